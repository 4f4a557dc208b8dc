"""Every exception of enhancekit: one family, each message saying what, where from and what next."""

from __future__ import annotations

__all__ = [
    "AmbiguousNameError",
    "ConformanceError",
    "DataError",
    "DeviceError",
    "EnhanceKitError",
    "FolderError",
    "ImageError",
    "ImageWarning",
    "NonFiniteError",
    "OptionError",
    "OutOfMemoryError",
    "PluginError",
    "RecipeError",
    "SpecError",
    "UnknownNameError",
    "WeightsError",
]


class EnhanceKitError(Exception):
    """Base class: catching it catches everything enhancekit raises on purpose."""


class SpecError(EnhanceKitError, ValueError):
    """A plugin handed over a description that cannot be used."""


class PluginError(EnhanceKitError):
    """A plugin could not be loaded, or its code failed while it was used."""


class UnknownNameError(EnhanceKitError, LookupError):
    """No plugin registered the name that was asked for."""


class AmbiguousNameError(EnhanceKitError, LookupError):
    """Several plugins registered the name; the qualified form ``plugin:name`` decides."""


class OptionError(EnhanceKitError, ValueError):
    """An option has a value that cannot be used."""


class ImageError(EnhanceKitError, ValueError):
    """A picture cannot be read, is of an unsupported kind, or cannot be written."""


class FolderError(EnhanceKitError, ValueError):
    """A folder of pictures cannot be listed, written to, or is in use by another run."""


class ImageWarning(UserWarning):
    """A picture was read or written, but not all of what came with it."""


class DeviceError(EnhanceKitError, RuntimeError):
    """The device or precision asked for does not exist on this machine."""


class OutOfMemoryError(DeviceError):
    """The memory of the device did not suffice."""


class NonFiniteError(EnhanceKitError, ArithmeticError):
    """A network gave NaN or infinity, also when computed in 32 bits."""


class WeightsError(EnhanceKitError):
    """Weights are missing, damaged, or belong to another network."""


class DataError(EnhanceKitError, ValueError):
    """Training or evaluation data are missing, unpaired or of differing sizes."""


class RecipeError(EnhanceKitError, ValueError):
    """A training recipe has an unknown key, a missing one, or a value out of range."""


class ConformanceError(EnhanceKitError, AssertionError):
    """A plugin does not do what it declares; raised by the checks of `enhancekit.testing`."""
