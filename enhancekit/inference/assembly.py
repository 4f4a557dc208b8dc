"""From a network to an `Enhancer`: engine, device and precision chosen, the pipeline around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache

import torch
from torch import nn

from enhancekit.inference.apply import network_parts
from enhancekit.inference.compiled import CompiledForward
from enhancekit.inference.device import choose_device, choose_precision
from enhancekit.inference.engines import Engine, find_engine, need_cpu
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.graph import tile_graph
from enhancekit.inference.layout import to_channels_last
from enhancekit.inference.parts import Part, Source
from enhancekit.registry import Entry
from enhancekit.specs import EnhancerSpec
from enhancekit.weights import Card

__all__ = ["choose_place", "network_enhancer"]


def choose_place(engine: str, device: str) -> tuple[torch.device, Engine | None]:
    """Decide where a network is computed, and by which engine; ``None`` is torch.

    Raises
    ------
    DeviceError
        If the device does not exist, or the engine does not compute there.
    OptionError
        If the engine is unknown or not installed.

    Examples
    --------
    >>> choose_place("auto", "cpu")
    (device(type='cpu'), None)
    """
    if engine in ("auto", "torch"):
        return choose_device(device), None
    found = find_engine(engine)
    need_cpu(engine, device)
    return choose_device("cpu"), found


def network_enhancer(
    entry: Entry[EnhancerSpec],
    module: nn.Module,
    *,
    card: Card | None = None,
    global_context: bool = False,
    device: str = "auto",
    precision: str = "auto",
    tile: str | int | None = "auto",
    engine: str = "auto",
    saved_as: Card | None = None,
) -> Enhancer:
    """Make an enhancer of a network.

    Parameters
    ----------
    entry : Entry
        What it is to be called, and who brought it.
    module : torch.nn.Module
        Maps (N, 3, H, W) to the same size times the scale, in [0, 1]; carries
        ``size_requirements``. Moved to the device and changed to eval mode without gradients.
    card : Card, optional
        Of its weights.
    global_context : bool
        Whether it has a method ``context(whole)``; see `BackboneSpec`.
    device, precision, tile, engine
        As for `enhancekit.load`.
    saved_as : Card, optional
        What `Enhancer.save` writes beside the weights; without it there is nothing to save.

    Raises
    ------
    DeviceError
        If the device does not exist, or the engine does not compute there in this precision.
    OptionError
        If the engine or precision is unknown, or the engine is not installed.

    Examples
    --------
    >>> from enhancekit.registry import Provider
    >>> from enhancekit.specs import SizeRequirements
    >>> half = nn.AvgPool2d(1, divisor_override=2)
    >>> half.size_requirements = SizeRequirements(halo=0)
    >>> spec = EnhancerSpec(name="half", summary="Half", task="tone", backbone="acme:half")
    >>> entry = Entry(spec, Provider("acme", "acme", "1.0"), "enhancer")
    >>> network_enhancer(entry, half, device="cpu").run(torch.ones(1, 3, 1, 1)).mean()
    tensor(0.5000)
    """
    where, other = choose_place(engine, device)
    native = other.precisions() if other else None
    dtype, reason = choose_precision(precision, where, card.parity_db if card else {}, native)
    if other is not None:
        other.check(dtype)
    module.to(where).eval()
    to_channels_last(module)
    module.requires_grad_(False)
    network = _compiled(module, other, global_context) if other else lambda _: module
    network(dtype)  # what cannot be computed is found now rather than at the first picture

    def run(
        source: Source, dtype: torch.dtype, controls: Mapping[str, float], turned: bool
    ) -> Iterator[Part]:
        return network_parts(
            network(dtype),
            source,
            global_context=global_context,
            tile=tile,
            dtype=dtype,
            controls=controls,
            turned=turned,
        )

    return Enhancer(
        entry,
        run,
        card=card,
        module=module,
        device=where,
        precision=dtype,
        precision_reason=reason,
        engine=other.name if other else "torch",
        saved_as=saved_as,
    )


def _compiled(
    module: nn.Module, engine: Engine, has_context: bool
) -> Callable[[torch.dtype], nn.Module]:
    """Translate a network once; compile it for each precision that is asked for."""
    graph = tile_graph(module, global_context=has_context, least=engine.least)
    return cache(lambda dtype: CompiledForward(module, engine.open(graph, dtype), engine.least))
