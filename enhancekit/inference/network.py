"""Build a network from an enhancer's description, with trained weights or expressly without."""

from __future__ import annotations

import copy
import inspect
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from enhancekit.errors import OptionError, PluginError, WeightsError
from enhancekit.plugins import host
from enhancekit.registry import Entry
from enhancekit.specs import BackboneSpec, EnhancerSpec, SizeRequirements
from enhancekit.weights import Card, how_to_get, load_weights, shipped

__all__ = [
    "build_network",
    "parameters_of",
    "refuse_unknown_options",
    "resolve_config",
    "weights_config",
]


def resolve_config(
    entry: Entry[EnhancerSpec], options: Mapping[str, Any]
) -> tuple[Entry[BackboneSpec], dict[str, Any]]:
    """Find the backbone of an enhancer and everything it is to be built with.

    Raises
    ------
    OptionError
        If the enhancer has no network.
    """
    if not entry.spec.backbone:
        raise OptionError(f"{entry} is a function, not a network; it has nothing to train")
    backbone = host().backbones.get(entry.spec.backbone)
    # copies, since a constructor may change what it is given
    return backbone, copy.deepcopy({**backbone.spec.config, **entry.spec.config, **options})


def weights_config(backbone: Entry[BackboneSpec], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides which weights fit, with the defaults, which may change one day."""
    every = {**{k: v for k, v in _defaults(backbone).items() if _is_plain(v)}, **config}
    return {k: v for k, v in every.items() if k not in backbone.spec.training_only}


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def build_network(
    entry: Entry[EnhancerSpec],
    options: Mapping[str, Any],
    *,
    weights: str | os.PathLike[str] | None = None,
    pretrained: bool = True,
) -> tuple[nn.Module, Card | None]:
    """Build the network of an enhancer.

    Parameters
    ----------
    entry : Entry
        The enhancer.
    options : mapping
        Over its config.
    weights : path-like, optional
        Trained weights; those the plugin ships by default.
    pretrained : bool
        ``False`` gives random weights, to train or to compare speed.

    Returns
    -------
    module : torch.nn.Module
        The network.
    card : Card or None
        The weights' model card; ``None`` for an untrained network.

    Raises
    ------
    WeightsError
        If there are no weights, or they belong to another network.
    OptionError
        If an option is unknown, or `pretrained` and `weights` contradict each other.
    PluginError
        If the backbone's code fails or breaks its contract.
    """
    backbone, config = resolve_config(entry, options)
    if not pretrained and weights is not None:
        raise OptionError("pretrained=False and weights= contradict each other")
    hint = entry.spec.train_hint
    if pretrained and weights is None and entry.spec.weights is None:
        raise WeightsError(f"{entry} ships no trained weights.{how_to_get(hint)}")
    refuse_unknown_options(backbone, config, parameters_of(backbone))
    with _plain_defaults():
        module = backbone.create(**config)
    if not isinstance(module, nn.Module):
        raise PluginError(f"{backbone} made a {type(module).__name__}, not a torch.nn.Module")
    if any(isinstance(p, UninitializedParameter) for p in module.parameters()):
        raise PluginError(
            f"the network of {backbone} has lazy layers, whose weights have no shape yet; give "
            "their channels"
        )
    needs = getattr(module, "size_requirements", None)
    if not isinstance(needs, SizeRequirements):
        raise PluginError(
            f"{backbone}: the network has no `size_requirements`; set it to a "
            "SizeRequirements(multiple_of=..., minimum=..., halo=...)"
        )
    if needs.scale != entry.spec.scale:
        raise PluginError(
            f"{entry} declares the scale {entry.spec.scale}, but its network has {needs.scale}"
        )
    card = None
    if pretrained:
        path = shipped(entry.spec.weights) if weights is None and entry.spec.weights else weights
        card = load_weights(
            path or "",
            module,
            backbone=backbone.qualified_name,
            config=weights_config(backbone, config),
            defaults=_defaults(backbone),
            train_hint=hint,
        )
    return module, card


def parameters_of(entry: Entry[Any]) -> list[inspect.Parameter] | None:
    """Give what a spec's target takes; ``None`` for one written in C that doesn't tell.

    Raises
    ------
    PluginError
        If it cannot be called at all.
    """
    target = entry.target()
    if not callable(target):
        raise PluginError(f"{entry} names {entry.spec.target!r}, which cannot be called")
    try:
        return list(inspect.signature(target).parameters.values())
    except ValueError:
        return None


def _defaults(backbone: Entry[BackboneSpec]) -> dict[str, Any]:
    parameters = parameters_of(backbone) or ()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def _plain_defaults() -> Iterator[None]:
    """Build in 32 bits on the CPU, whatever a caller has made torch's defaults."""
    with _ONE_AT_A_TIME:  # the default is the whole process's
        theirs = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            with torch.device("cpu"):
                yield
        finally:
            torch.set_default_dtype(theirs)


def refuse_unknown_options(
    entry: Entry[Any], given: Mapping[str, Any], parameters: Sequence[inspect.Parameter] | None
) -> None:
    """Refuse options that a target does not have, listing those it has.

    Parameters
    ----------
    entry : Entry
        Whose target it is, for the message.
    given : mapping of str to object
        The options.
    parameters : sequence of inspect.Parameter or None
        What the target takes, from `parameters_of`; it may take anything.

    Raises
    ------
    OptionError
        If there are any.
    """
    if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = sorted(p.name for p in parameters)
    if unknown := sorted(set(given) - set(known)):
        raise OptionError(
            f"{entry} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}"
        )
