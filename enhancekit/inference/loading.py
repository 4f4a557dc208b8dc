"""`load`: from a name to an `Enhancer`."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from enhancekit.errors import (
    AmbiguousNameError,
    EnhanceKitError,
    OptionError,
    PluginError,
    UnknownNameError,
)
from enhancekit.inference.assembly import choose_place, network_enhancer
from enhancekit.inference.device import choose_precision
from enhancekit.inference.enhancer import Enhancer, check_control
from enhancekit.inference.network import (
    build_network,
    parameters_of,
    refuse_unknown_options,
    resolve_config,
    weights_config,
)
from enhancekit.inference.parts import Part, Source
from enhancekit.inference.tiling import check_tile
from enhancekit.plain import is_number
from enhancekit.plugins import host
from enhancekit.registry import Entry
from enhancekit.specs import EnhancerSpec, SchemeSpec
from enhancekit.weights import Card

__all__ = ["find_scheme", "load", "load_entry"]


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
        Or ``"scheme:place"``, e.g. ``"onnx:FILE"`` for a file written by ``enhancekit export``;
        see ``enhancekit list schemes``.
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
        Over the enhancer's config, e.g. ``block="acme:fast"``; of a scheme, its own.

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
    PluginError
        If a plugin's code fails or breaks its contract.

    Examples
    --------
    >>> import enhancekit
    >>> enhancekit.load("clahe", device="cpu")
    <Enhancer builtin:clahe on cpu in fp32>
    """
    if not isinstance(name, str):
        raise OptionError(f"an enhancer is asked for by its name, not by {name!r}")
    check_tile(tile)
    if found := find_scheme(name):
        if weights is not None or not pretrained:
            raise OptionError(f"{name} is a finished network; it takes no weights")
        scheme, place = found
        how = {"device": device, "precision": precision, "tile": tile, "engine": engine}
        return _load_from(scheme, place, how, options)
    return load_entry(
        host().enhancers.get(name),
        device=device,
        precision=precision,
        tile=tile,
        weights=weights,
        pretrained=pretrained,
        engine=engine,
        options=options,
    )


def load_entry(
    entry: Entry[EnhancerSpec],
    *,
    device: str = "auto",
    precision: str = "auto",
    tile: str | int | None = "auto",
    weights: str | os.PathLike[str] | None = None,
    pretrained: bool = True,
    engine: str = "auto",
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Enhancer:
    """Load what an entry of the registry describes, or one made like it; see `load`."""
    where, other = choose_place(engine, device)
    if entry.spec.target:
        if other is not None:
            raise OptionError(f"{entry} is a function, not a network; engine={engine!r} has no use")
        choose_precision(precision, where, {})
        return _load_function(entry, weights, pretrained, options)
    backbone, config = resolve_config(entry, options)
    module, card = build_network(entry, options, weights=weights, pretrained=pretrained)
    untrained = Card(
        name=entry.spec.name,
        backbone=backbone.qualified_name,
        config=weights_config(backbone, config),
        task=entry.spec.task,
    )
    return network_enhancer(
        entry,
        module,
        card=card,
        global_context=backbone.spec.global_context,
        device=device,
        precision=precision,
        tile=tile,
        engine=engine,
        saved_as=card or untrained,
    )


def find_scheme(name: str) -> tuple[Entry[SchemeSpec], str] | None:
    """Find the scheme of ``scheme:place`` or ``plugin:scheme:place``; registered names go first.

    Returns
    -------
    tuple of Entry and str, or None
        The scheme and the place; ``None`` for the name of an enhancer.

    Raises
    ------
    UnknownNameError
        If something stands before a colon that is neither a plugin's name nor a scheme.
    """
    if ":" not in name:
        return None
    try:
        host().enhancers.get(name)
    except AmbiguousNameError:
        return None
    except UnknownNameError as error:
        schemes = host().schemes
        parts = name.split(":")
        for end in (1, 2):
            known = ":".join(parts[:end])
            if len(parts) > end and known in schemes:
                return schemes.get(known), ":".join(parts[end:])
        raise UnknownNameError(
            f"no scheme is called {parts[0]!r}, only {', '.join(schemes)}, and {error}"
        ) from None
    return None


def _load_from(
    scheme: Entry[SchemeSpec], place: str, how: Mapping[str, Any], options: Mapping[str, Any]
) -> Enhancer:
    parameters = parameters_of(scheme)
    own = parameters and [p for p in parameters[1:] if p.name not in how]
    refuse_unknown_options(scheme, options, own)
    made = scheme.create(place, **how, **options)
    if not isinstance(made, Enhancer):
        raise PluginError(f"{scheme} made a {type(made).__name__}, not an Enhancer")
    return made


def _load_function(
    entry: Entry[EnhancerSpec],
    weights: str | os.PathLike[str] | None,
    pretrained: bool,
    options: Mapping[str, Any],
) -> Enhancer:
    if weights is not None or not pretrained:
        raise OptionError(f"{entry} is a function; it has no weights")
    function = entry.target()
    config = copy.deepcopy({**entry.spec.config, **options})
    _check_options(entry, config)

    def one(picture: Tensor, controls: Mapping[str, float]) -> Tensor:
        told = {**config, **controls}
        given = picture.detach().permute(1, 2, 0).cpu().numpy().copy()
        try:
            done = np.asarray(function(given, **told), dtype=np.float32)
        except EnhanceKitError:
            raise
        except Exception as error:  # a plugin's function may raise anything
            said = ", ".join(f"{k}={v!r}" for k, v in told.items())
            called = f", called with {said}," if said else ""
            raise PluginError(f"{entry}{called} failed: {type(error).__name__}: {error}") from error
        wanted = (given.shape[0] * entry.spec.scale, given.shape[1] * entry.spec.scale, 3)
        if done.shape != wanted:
            raise PluginError(
                f"{entry} gave the shape {done.shape} for one of {given.shape}; it must be {wanted}"
            )
        return torch.from_numpy(np.ascontiguousarray(done)).permute(2, 0, 1)

    def run(
        source: Source, _dtype: torch.dtype, controls: Mapping[str, float], _turned: bool
    ) -> Iterator[Part]:
        done = torch.stack([one(picture, controls) for picture in source.read()])
        yield Part.whole(done.to(source.device))

    return Enhancer(entry, run, device=torch.device("cpu"))


def _check_options(entry: Entry[EnhancerSpec], config: Mapping[str, Any]) -> None:
    """Refuse options and controls that a function does not take, and text for a number."""
    parameters = parameters_of(entry)
    if parameters is None:
        return
    del parameters[:1]  # the picture
    refuse_unknown_options(entry, config, parameters)
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        names = {p.name for p in parameters}
        if unused := sorted(set(entry.spec.controls) - names):
            raise PluginError(f"{entry} declares controls its target has not: {', '.join(unused)}")
    for option in parameters:
        value = config.get(option.name, option.default)
        if is_number(option.default) and not is_number(value):
            raise OptionError(f"{entry}: {option.name} is a number, not {value!r}")
    for name, ends in entry.spec.controls.items():
        if config.get(name) is not None:
            check_control(name, config[name], ends)
