"""What losses and metrics share: pictures of differing shapes are refused, not broadcast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from enhancekit.errors import ConformanceError, EnhanceKitError
from enhancekit.registry import Entry

__all__ = ["refused"]


def refused(entry: Entry[Any], compare: Callable[[], object]) -> None:
    """Require an error of the family from a comparison of pictures of differing shapes."""
    try:
        compare()
    except EnhanceKitError:
        return
    except Exception as error:
        raise ConformanceError(
            f"{entry} raises {type(error).__name__} for pictures of differing shapes; raise "
            "an EnhanceKitError, e.g. enhancekit.errors.OptionError, that names both"
        ) from error
    raise ConformanceError(
        f"{entry} compares pictures of differing shapes, which hides mistakes; raise "
        "enhancekit.errors.OptionError where output.shape != reference.shape"
    )
