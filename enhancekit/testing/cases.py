"""What the kit checks: a registered name, how it is made for the checks, and what it claims."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from enhancekit.errors import ConformanceError, OptionError
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.loading import load
from enhancekit.plugins import host
from enhancekit.registry import Entry
from enhancekit.specs import BackboneSpec, BlockSpec, EnhancerSpec, LossSpec, MetricSpec
from enhancekit.testing.samples import seeded, wake

__all__ = [
    "BackboneCase",
    "BlockCase",
    "Case",
    "EnhancerCase",
    "LossCase",
    "MetricCase",
    "NotApplicable",
    "PluginCase",
]

_NONE: Mapping[str, Any] = MappingProxyType({})
RESIDUAL_CHANNELS = 8


class NotApplicable(Exception):  # noqa: N818  it is no error; the check says why it has no say
    """Raised by a check that has nothing to check in a case, or nothing to check it with."""


@dataclass(frozen=True)
class Case:
    """A registered name under check."""

    name: str
    """As its registry knows it, best qualified: ``"plugin:name"``."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class PluginCase(Case):
    """An installed plugin, by the name of its entry point."""


@dataclass(frozen=True)
class BlockCase(Case):
    """A block.

    The kit knows how a block of the role ``"residual"`` is made and called. For other roles the
    constructor's arguments and the channels are given, and `call` where ``block(x)`` is not how
    it is used.
    """

    args: tuple[Any, ...] = ()
    """Arguments of the constructor; for the role ``"residual"``, 8 channels by default."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the constructor."""
    channels: int | None = None
    """Channels of its input."""
    out_channels: int | None = None
    """Channels of its output; those of its input by default."""
    call: Callable[[nn.Module, Tensor], Tensor] | None = None
    """Uses the block on a tensor (N, channels, H, W); ``block(x)`` by default."""

    @property
    def entry(self) -> Entry[BlockSpec]:
        """What the registry holds under the name."""
        return host().blocks.get(self.name)

    @property
    def widths(self) -> tuple[int, int]:
        """Channels in and out."""
        into = self.channels
        if into is None and self._residual:
            into = int(self.args[0]) if self.args else RESIDUAL_CHANNELS
        if into is None:
            raise OptionError(
                f"{self.entry} has the role {self.entry.spec.role!r}, whose interface the kit does "
                "not know; give args=(...) of its constructor and channels= of its input"
            )
        return into, self.out_channels if self.out_channels is not None else into

    @property
    def _residual(self) -> bool:
        return self.entry.spec.role == "residual"

    def make(self, seed: int = 0) -> nn.Module:
        """Build it, with random parameters of which none is left at zero."""
        args = self.args or ((self.widths[0],) if self._residual else ())
        with seeded(seed):
            made = self.entry.create(*args, **self.options)
        return wake(_module(made, self.entry), seed)

    def apply(self, module: nn.Module, x: Tensor) -> Tensor:
        """Use it on a tensor (N, channels, H, W)."""
        done = module(x) if self.call is None else self.call(module, x)
        return _tensor(done, self.entry)


@dataclass(frozen=True)
class BackboneCase(Case):
    """A network; give options that make it small, and the checks are fast."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Over the config of its spec."""

    channels = 3

    @property
    def entry(self) -> Entry[BackboneSpec]:
        """What the registry holds under the name."""
        return host().backbones.get(self.name)

    def make(self, seed: int = 0) -> nn.Module:
        """Build it, with random parameters of which none is left at zero."""
        with seeded(seed):
            made = self.entry.create(**copy.deepcopy({**self.entry.spec.config, **self.options}))
        return wake(_module(made, self.entry), seed)

    def apply(self, module: nn.Module, x: Tensor) -> Tensor:
        """Use it on whole pictures (N, 3, H, W)."""
        return self.apply_within(module, x, x)

    def apply_within(self, module: nn.Module, x: Tensor, whole: Tensor) -> Tensor:
        """Use it on a part of pictures, with the context of the whole ones."""
        context: Any = getattr(module, "context", None)
        if not self.entry.spec.global_context:
            return _tensor(module(x), self.entry)
        if not callable(context):
            raise ConformanceError(
                f"{self.entry} is declared with global_context=True, but its network has no "
                "method `context(whole)`; add it, or declare global_context=False"
            )
        return _tensor(module(x, context(whole)), self.entry)


@dataclass(frozen=True)
class EnhancerCase(Case):
    """An enhancer, loaded on the CPU in 32 bits."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """For `enhancekit.load`, e.g. ``{"pretrained": False, "width": 8}``."""

    @property
    def entry(self) -> Entry[EnhancerSpec]:
        """What the registry holds under the name."""
        return host().enhancers.get(self.name)

    def make(
        self, *, device: str = "cpu", precision: str = "fp32", tile: int | None = None
    ) -> Enhancer:
        """Load it; where it is untrained, no parameter is left at zero."""
        with seeded(0):
            made = load(
                self.name,
                **{"device": device, "precision": precision, "tile": tile, **self.options},
            )
        if made.card is None and made.module is not None:
            wake(made.module, 0)
        return made


@dataclass(frozen=True)
class LossCase(Case):
    """A loss."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the constructor."""
    size: int = 24
    """Height and width of the pictures compared."""
    zero_at_identity: bool = True
    """Whether it claims to be 0 where output and reference are equal."""

    @property
    def entry(self) -> Entry[LossSpec]:
        """What the registry holds under the name."""
        return host().losses.get(self.name)

    def make(self, **more: Any) -> nn.Module:
        """Build it."""
        with seeded(0):
            made = self.entry.create(**{**self.options, **more})
        return _module(made, self.entry).eval()

    @property
    def reduces(self) -> bool:
        """Whether its constructor has the parameter ``reduction``."""
        try:
            return "reduction" in inspect.signature(self.entry.target()).parameters
        except (TypeError, ValueError):  # what has no signature has no such parameter
            return False


@dataclass(frozen=True)
class MetricCase(Case):
    """A metric."""

    size: int = 24
    """Height and width of the pictures compared."""
    symmetric: bool = True
    """Whether it claims that output and reference can be exchanged."""
    reference: Callable[..., Any] | None = None
    """Another implementation that it claims to equal, ``reference(output, reference)``."""

    @property
    def entry(self) -> Entry[MetricSpec]:
        """What the registry holds under the name."""
        return host().metrics.get(self.name)


def _module(made: Any, entry: Entry[Any]) -> nn.Module:
    if isinstance(made, nn.Module):
        return made
    raise ConformanceError(
        f"{entry} made a {type(made).__name__}; its target must return a torch.nn.Module"
    )


def _tensor(done: Any, entry: Entry[Any]) -> Tensor:
    if isinstance(done, torch.Tensor):
        return done
    raise ConformanceError(f"{entry} gave a {type(done).__name__}; it must give a tensor")
