"""`load`: from a name to an `Enhancer`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from enhancekit.errors import DeviceError, EnhanceKitError, OptionError, PluginError
from enhancekit.inference.apply import network_parts
from enhancekit.inference.compiled import CompiledForward
from enhancekit.inference.device import choose_device, choose_precision
from enhancekit.inference.engines import Engine, find_engine
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.exported import PREFIX, load_exported
from enhancekit.inference.graph import tile_graph
from enhancekit.inference.network import build_network, refuse_unknown_options, resolve_config
from enhancekit.inference.parts import Part, Source
from enhancekit.inference.tiling import check_tile
from enhancekit.plugins import host
from enhancekit.registry import Entry
from enhancekit.specs import EnhancerSpec

__all__ = ["load"]


def load(
    name: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    tile: str | int | None = "auto",
    weights: str | os.PathLike[str] | None = None,
    pretrained: bool = True,
    engine: str = "auto",
    **options: Any,
) -> Enhancer:
    """Load an enhancer by name.

    Parameters
    ----------
    name : str
        A registered enhancer, e.g. ``"clahe"`` or ``"builtin:clahe"``; see ``enhancekit list``.
        Or ``"onnx:FILE"``, a file written by ``enhancekit export``.
    device : str
        ``"auto"`` (CUDA if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    precision : str
        ``"auto"`` (lower than 32 bits only where the weights' card states a measured parity and
        the device computes it natively), ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    tile : "auto", None or int
        Side of the tiles in pixels. ``"auto"`` tiles large pictures, ``None`` never does.
    weights : path-like, optional
        Weights of your own, as ``enhancekit train`` writes them.
    pretrained : bool
        ``False`` asks for an untrained network, to train it or to compare speed.
    engine : str
        What computes the network: ``"torch"``, or on the CPU ``"onnxruntime"`` or ``"openvino"``,
        extras of enhancekit that translate it first, which takes seconds. ``"auto"`` is torch,
        and for a file the first of the others that is installed.
    **options
        Over the enhancer's config, e.g. ``block="acme:fast"``.

    Returns
    -------
    Enhancer
        Ready for use.

    Raises
    ------
    UnknownNameError, AmbiguousNameError
        If no enhancer, or more than one, has the name.
    WeightsError
        If there are no weights for this config, or they are damaged.
    DeviceError
        If the device does not exist, or the engine does not compute there in this precision.
    OptionError
        If an option is unknown or out of range, or the engine is not installed.

    Examples
    --------
    >>> import enhancekit
    >>> enhancekit.load("clahe", device="cpu")
    <Enhancer builtin:clahe on cpu in torch.float32>
    """
    check_tile(tile)
    if name.startswith(PREFIX):
        if weights is not None or not pretrained or options:
            raise OptionError(f"{name} is a finished network; it takes no weights and no options")
        _need_cpu(engine, device)
        path = name.removeprefix(PREFIX)
        return load_exported(path, engine=engine, precision=precision, tile=tile)
    entry = host().enhancers.get(name)
    other = None if engine in ("auto", "torch") else find_engine(engine)
    if other is not None:
        _need_cpu(engine, device)
    where = choose_device("cpu" if other else device)
    if entry.spec.target:
        if other is not None:
            raise OptionError(f"{entry} is a function, not a network; engine={engine!r} has no use")
        choose_precision(precision, where, {})
        return _load_function(entry, weights, pretrained, options)
    backbone, _ = resolve_config(entry, options)
    module, card = build_network(entry, options, weights=weights, pretrained=pretrained)
    native = other.precisions() if other else None
    dtype, reason = choose_precision(precision, where, card.parity_db if card else {}, native)
    if other is not None:
        other.check(dtype)
    module.to(where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    module.requires_grad_(False)
    has_context = backbone.spec.global_context
    network = _compiled(module, other, has_context) if other else lambda _: module
    network(dtype)  # what cannot be computed is found now rather than at the first picture

    def run(source: Source, dtype: torch.dtype, controls: Mapping[str, float]) -> Iterator[Part]:
        return network_parts(
            network(dtype),
            source,
            global_context=has_context,
            tile=tile,
            dtype=dtype,
            controls=controls,
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
    )


def _need_cpu(engine: str, device: str) -> None:
    if device not in ("auto", "cpu"):
        raise DeviceError(
            f"engine {engine!r} computes on the CPU only, not on {device!r}; use engine='torch' "
            "with a registered name there"
        )


def _compiled(
    module: nn.Module, engine: Engine, has_context: bool
) -> Callable[[torch.dtype], nn.Module]:
    """Translate a network once; compile it for each precision that is asked for."""
    graph = tile_graph(module, global_context=has_context, least=engine.least)
    return cache(lambda dtype: CompiledForward(module, engine.open(graph, dtype), engine.least))


def _load_function(
    entry: Entry[EnhancerSpec],
    weights: str | os.PathLike[str] | None,
    pretrained: bool,
    options: Mapping[str, Any],
) -> Enhancer:
    if weights is not None or not pretrained:
        raise OptionError(f"{entry} is a function; it has no weights")
    function = entry.target()
    config = {**entry.spec.config, **options}
    known = list(inspect.signature(function).parameters)[1:]
    refuse_unknown_options(entry, config, sorted(known))
    apply = partial(function, **config)

    def one(picture: Tensor) -> Tensor:
        given = picture.permute(1, 2, 0).cpu().numpy().copy()
        try:
            done = np.asarray(apply(given), dtype=np.float32)
        except EnhanceKitError:
            raise
        except Exception as error:  # a plugin's function may raise anything
            raise PluginError(f"{entry} failed: {type(error).__name__}: {error}") from error
        wanted = (given.shape[0] * entry.spec.scale, given.shape[1] * entry.spec.scale, 3)
        if done.shape != wanted:
            raise PluginError(
                f"{entry} gave the shape {done.shape} for one of {given.shape}; it must be {wanted}"
            )
        return torch.from_numpy(np.ascontiguousarray(done)).permute(2, 0, 1)

    def run(source: Source, _dtype: torch.dtype, _controls: Mapping[str, float]) -> Iterator[Part]:
        done = torch.stack([one(picture) for picture in source.read()])
        yield Part.whole(done.to(source.device))

    return Enhancer(entry, run, device=torch.device("cpu"))
