"""The whole state of a training run in one file that is complete or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from enhancekit.atomic import replacing
from enhancekit.errors import DataError

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, atomically.

    Raises
    ------
    DataError
        If it cannot be written; what stood there before is untouched.
    """
    try:
        with replacing(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch wraps a full disk in a RuntimeError
        raise DataError(f"the checkpoint {path} cannot be written: {error}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running any code in it.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"there is no checkpoint {path} to resume from") from None
    except Exception as error:  # unpickling raises whatever the bytes lead it to
        raise DataError(f"the checkpoint {path} is damaged: {error}") from error
    if not isinstance(state, dict) or not state:
        raise DataError(f"the checkpoint {path} is damaged: it holds no state")
    return state
