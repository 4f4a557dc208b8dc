"""What a plugin hands over: frozen descriptions that name their code without importing it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from enhancekit.errors import PluginError, SpecError
from enhancekit.plain import is_number

__all__ = [
    "LOAD_ARGUMENTS",
    "BackboneSpec",
    "BlockSpec",
    "EnhancerSpec",
    "LossSpec",
    "MetricSpec",
    "SchemeSpec",
    "SizeRequirements",
    "Spec",
    "WeightsSpec",
    "load_target",
]

_NAME = re.compile(r"[a-z0-9]+([-_.][a-z0-9]+)*")
LOAD_ARGUMENTS = ("name", "device", "precision", "tile", "weights", "pretrained", "engine")
"""What `enhancekit.load` takes for itself, so that no option can be called so."""
_ENHANCE = ("image", "strength", "mode")
_SERVE = ("enhancer", "quality", "subsampling", "lossless", "metadata")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def _frozen(options: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(options))


def _check_config(owner: str, config: Mapping[str, Any]) -> None:
    """Refuse options that nobody could give to `enhancekit.load` by name."""
    if not isinstance(config, Mapping):
        raise SpecError(f"{owner}: config is a mapping of options, not {config!r}")
    for option in config:
        if not isinstance(option, str) or not option.isidentifier():
            raise SpecError(f"{owner}: the option {option!r} in its config is no identifier")
        if option in LOAD_ARGUMENTS:
            raise SpecError(
                f"{owner}: an option cannot be called {option!r}, which `load` takes for itself"
            )


def load_target(target: str, wanted_by: str) -> Any:
    """Import the object a target names.

    Parameters
    ----------
    target : str
        ``"package.module:attribute"``.
    wanted_by : str
        Who asks, as it should stand in an error, e.g. ``"block acme:fast (acme 1.0)"``.

    Returns
    -------
    object
        The attribute.

    Raises
    ------
    PluginError
        If the module cannot be imported or has no such attribute.

    Examples
    --------
    >>> load_target("math:sqrt", "an example")(9.0)
    3.0
    """
    module, _, attribute = target.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # a plugin's module may raise anything on import
        raise PluginError(
            f"{wanted_by} names {target!r}, which cannot be imported: "
            f"{type(error).__name__}: {error}. Reinstall or report it to the plugin's author."
        ) from error
    return found


@dataclass(frozen=True, slots=True)
class SizeRequirements:
    """What a network asks of the pictures it is given; the pipeline pads, tiles and crops by it."""

    multiple_of: int = 1
    """Height and width must be multiples of this; the pipeline pads by reflection."""
    minimum: int = 1
    """Smallest height and width, in pixels, after padding."""
    halo: int | None = None
    """How far, in pixels, an output pixel looks at the input in each direction. ``None``: not
    known or unbounded, so the picture is never cut into tiles."""
    scale: int = 1
    """How many times the input's height and width the output has."""

    def __post_init__(self) -> None:
        least = [(self.multiple_of, 1), (self.minimum, 1), (self.scale, 1)]
        least += [] if self.halo is None else [(self.halo, 0)]
        if not all(isinstance(number, int) and number >= bound for number, bound in least):
            raise SpecError(
                f"{self} is impossible: multiple_of, minimum and scale are whole numbers of at "
                "least 1, halo of at least 0"
            )


@dataclass(frozen=True, slots=True)
class WeightsSpec:
    """Trained weights that a plugin ships: a safetensors file with a model card in its header."""

    resource: str
    """``"package:path/inside/it.safetensors"``."""
    sha256: str
    """Hash of the file, checked before it is used."""

    def __post_init__(self) -> None:
        if ":" not in self.resource or not self.resource.endswith(".safetensors"):
            raise SpecError(
                f"weights resource {self.resource!r} is not 'package:path.safetensors'; "
                "only safetensors files are accepted"
            )
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise SpecError(f"weights {self.resource!r}: sha256 must be 64 lower-case hex digits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What every registered thing has: a name, a one-line summary, and where its code is."""

    name: str
    """Lower case letters and digits, joined by ``-``, ``_`` or ``.``."""
    summary: str
    """One line for listings."""
    target: str = ""
    """``"package.module:attribute"``, imported on first use."""
    aliases: tuple[str, ...] = ()
    """Other names it answers to."""

    def __post_init__(self) -> None:
        if isinstance(self.aliases, str):
            raise SpecError(f"{type(self).__name__} {self.name!r}: aliases is a tuple, not text")
        for name in (self.name, *self.aliases):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise SpecError(
                    f"{type(self).__name__} name {name!r} is not lower-case letters and digits "
                    "joined by '-', '_' or '.'"
                )
        if not self.summary.strip() or "\n" in self.summary:
            raise SpecError(f"{type(self).__name__} {self.name!r} needs a one-line summary")
        if self.target and not _TARGET.fullmatch(self.target):
            raise SpecError(
                f"{type(self).__name__} {self.name!r}: target {self.target!r} is not "
                "'package.module:attribute'"
            )

    def _needs_target(self) -> None:
        if not self.target:
            raise SpecError(f"{type(self).__name__} {self.name!r} names no target")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec(Spec):
    """A network: ``target(**config)`` returns a ``torch.nn.Module`` mapping NCHW to NCHW.

    The module carries ``size_requirements`` (a `SizeRequirements`). With ``global_context`` it
    also has ``context(whole)``, computed once from the whole picture, whose result is passed to
    ``forward(x, context)`` for every tile. If all that counts for it are the averages of the
    picture on a grid, it says so by ``context_grid``, the grid's number of rows and of columns: a
    large picture then need not stand whole in memory, and `context` may be given its averages. With
    a grid of 0 it looks at nothing, and may be given a single pixel.
    With ``takes_margins = True`` its ``forward`` takes ``margins=(top, bottom, left, right)``, how
    many pixels of a tile are only there to be looked at, multiples of ``multiple_of``, and leaves
    them out of the result: what looks less far than the whole network then need not be computed for
    all of them.
    To be trained, it has ``context_for(batch)``, the context that suits an
    `enhancekit.training.batches.Batch`, and ``context_loss(inputs, targets)``, a loss of its own
    on thumbnails of whole pictures.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    """Default options of the target; an enhancer's config overrides them one by one."""
    global_context: bool = False
    """Whether the network needs statistics of the whole picture."""
    training_only: tuple[str, ...] = ()
    """Options that change how it trains but not what its weights mean; weights fit any."""

    def __post_init__(self) -> None:
        super(BackboneSpec, self).__post_init__()
        self._needs_target()
        if isinstance(self.training_only, str):
            raise SpecError(f"backbone {self.name!r}: training_only is a tuple, not text")
        _check_config(f"backbone {self.name!r}", self.config)
        object.__setattr__(self, "config", _frozen(self.config))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec(Spec):
    """A part of a network: ``target(...)`` returns a ``torch.nn.Module``."""

    role: str
    """Which interface it has, so that only like is swapped for like, e.g. ``"residual"``:
    built by ``target(channels)``, mapping (N, channels, H, W) to the same shape."""

    def __post_init__(self) -> None:
        super(BlockSpec, self).__post_init__()
        self._needs_target()
        if not self.role:
            raise SpecError(f"block {self.name!r} names no role")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSpec(Spec):
    """A loss: ``target(**options)`` returns a module mapping (output, reference) to a scalar.

    Both are (N, 3, H, W), float, nominally in [0, 1]; other shapes than each other's are refused
    with an `OptionError`. The scalar is the mean over the batch, finite for any finite pictures,
    and 0 for equal ones unless the loss says otherwise in its summary. With an option
    ``reduction="none"``, if there is one, it gives the value of each picture, shape (N,).
    `enhancekit.testing.check_loss` checks all of this.
    """

    def __post_init__(self) -> None:
        super(LossSpec, self).__post_init__()
        self._needs_target()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec(Spec):
    """A metric: ``target(output, reference)`` on two float arrays in [0, 1] returns a float.

    The arrays have the shape (H, W, 3), or (H, W, 1) under a protocol of luma alone. There is
    always a reference: figures that need none have no place in an evaluation of pairs.
    """

    higher_is_better: bool
    """Direction, for tables and for choosing the best weights."""
    protocol: str
    """How it is computed, in words that belong beside every printed figure; which pixels are
    compared is the evaluation protocol's matter."""
    unit: str = ""
    """Unit of the value, e.g. ``"dB"``."""
    needs_colour: bool = False
    """Whether three channels are needed, so that it has no meaning for luma alone."""

    def __post_init__(self) -> None:
        super(MetricSpec, self).__post_init__()
        self._needs_target()
        if not self.protocol:
            raise SpecError(f"metric {self.name!r} names no protocol")
        if self.name in ("enhancer", "picture", "scene"):
            raise SpecError(f"metric {self.name!r}: reports have a column of that name; rename it")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnhancerSpec(Spec):
    """Something that makes pictures better, asked for by ``enhancekit.load(name)``.

    Either ``target`` is a function of a float32 HxWx3 array in [0, 1] (and options) giving such
    an array, or ``backbone`` names a network with its ``config`` and its ``weights``.
    """

    task: str
    """What it is for, e.g. ``"low-light"``, ``"denoise"``, ``"tone"``."""
    backbone: str = ""
    """Registered name of the network."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Options of the backbone (or of the target)."""
    weights: WeightsSpec | None = None
    """Trained weights, if the plugin ships any."""
    controls: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """What ``enhance`` can be told for each picture, with the range of each, e.g.
    ``{"exposure": (0.05, 0.95)}``; handed by name to the network's ``context``, or to the target,
    over its options."""
    scale: int = 1
    """How many times the input's height and width the output has."""
    default: bool = False
    """Offer it where the user names no enhancer on the command line."""
    train_hint: str = ""
    """What to type to train it, repeated where weights are missing."""

    def __post_init__(self) -> None:
        super(EnhancerSpec, self).__post_init__()
        if bool(self.target) == bool(self.backbone):
            raise SpecError(f"enhancer {self.name!r} needs either a target or a backbone")
        if not isinstance(self.scale, int) or self.scale < 1:
            raise SpecError(
                f"enhancer {self.name!r}: scale is a whole number of at least 1, not {self.scale!r}"
            )
        if self.weights is not None and not isinstance(self.weights, WeightsSpec):
            raise SpecError(
                f"enhancer {self.name!r}: weights is a WeightsSpec, not {self.weights!r}"
            )
        if self.target and self.weights is not None:
            raise SpecError(
                f"enhancer {self.name!r} is a function, which takes no weights; give it a backbone"
            )
        _check_config(f"enhancer {self.name!r}", self.config)
        if not isinstance(self.controls, Mapping):
            raise SpecError(
                f"enhancer {self.name!r}: controls maps names to ranges, and is not "
                f"{self.controls!r}"
            )
        for control, bounds in self.controls.items():
            self._check_control(control, bounds)
        object.__setattr__(self, "config", _frozen(self.config))
        object.__setattr__(self, "controls", _frozen(self.controls))

    def _check_control(self, control: str, bounds: Any) -> None:
        if not isinstance(control, str) or not control.isidentifier():
            raise SpecError(f"enhancer {self.name!r}: the control {control!r} is no identifier")
        for user, taken in (("`enhance`", _ENHANCE), ("`enhancekit serve`", _SERVE)):
            if control in taken:
                raise SpecError(
                    f"enhancer {self.name!r}: a control cannot be called {control!r}, which "
                    f"{user} takes for itself"
                )
        pair = isinstance(bounds, Sequence) and not isinstance(bounds, str) and len(bounds) == 2
        if not pair or not all(map(is_number, bounds)) or not bounds[0] < bounds[1]:
            raise SpecError(
                f"enhancer {self.name!r}: the range of the control {control!r} is two rising "
                f"numbers, not {bounds!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeSpec(Spec):
    """A kind of place enhancers come from, asked for by ``enhancekit.load("name:place")``.

    ``target(place, *, device, precision, tile, engine, **options)`` returns an `Enhancer`; what
    it is given are the arguments of `enhancekit.load`, and its own options by name. Around a
    network, `enhancekit.inference.assembly.network_enhancer` makes one.
    """

    def __post_init__(self) -> None:
        super(SchemeSpec, self).__post_init__()
        self._needs_target()
