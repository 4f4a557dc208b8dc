"""`load`: from a name to an `Enhancer`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from enhancekit.errors import EnhanceKitError, OptionError, PluginError
from enhancekit.inference.apply import apply_network
from enhancekit.inference.device import choose_device, choose_precision
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.network import build_network, refuse_unknown_options, resolve_config
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
    **options: Any,
) -> Enhancer:
    """Load an enhancer by name.

    Parameters
    ----------
    name : str
        A registered enhancer, e.g. ``"clahe"`` or ``"builtin:clahe"``; see ``enhancekit list``.
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
        If the device does not exist.
    OptionError
        If an option is unknown or out of range.

    Examples
    --------
    >>> import enhancekit
    >>> enhancekit.load("clahe", device="cpu")
    <Enhancer builtin:clahe on cpu in torch.float32>
    """
    entry = host().enhancers.get(name)
    where = choose_device(device)
    check_tile(tile)
    if entry.spec.target:
        choose_precision(precision, where, {})
        return _load_function(entry, weights, pretrained, options)
    backbone, _ = resolve_config(entry, options)
    module, card = build_network(entry, options, weights=weights, pretrained=pretrained)
    dtype, reason = choose_precision(precision, where, card.parity_db if card else {})
    module.to(where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    module.requires_grad_(False)

    def run(pictures: Tensor, dtype: torch.dtype, controls: Mapping[str, float]) -> Tensor:
        return apply_network(
            module,
            pictures,
            global_context=backbone.spec.global_context,
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
    )


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
        given = picture.permute(1, 2, 0).cpu().numpy().copy()  # it may work in place
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

    def run(pictures: Tensor, _dtype: torch.dtype, _controls: Mapping[str, float]) -> Tensor:
        return torch.stack([one(p) for p in pictures]).to(pictures.device)

    return Enhancer(entry, run, device=torch.device("cpu"))
