"""Pictures read and given back in parts, so that a large one never stands whole in floats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["NO_MARGINS", "Margins", "Part", "Source", "Whole", "collect"]

Margins = tuple[int, int, int, int]
"""Pixels at the top, bottom, left and right of a tile that are only there to be looked at."""
NO_MARGINS: Margins = (0, 0, 0, 0)


class Source(Protocol):
    """A picture that gives any part of itself; `enhancekit.imaging.convert.Opened` is one."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number of pictures, 3, height and width."""

    @property
    def device(self) -> torch.device:
        """Where its pixels lie, and results belong."""

    def read(self, rows: slice = ..., columns: slice = ...) -> Tensor:
        """Give a part, or the whole, as floats (N, 3, h, w) of the reader's own."""


class Part(NamedTuple):
    """A part of a result."""

    rows: slice
    """Its rows in the result; start and stop are known."""
    columns: slice
    """Its columns in the result."""
    pixels: Tensor
    """Shape (N, 3, rows, columns)."""

    @classmethod
    def whole(cls, pixels: Tensor) -> Part:
        """Make the only part of a result."""
        return cls(slice(0, pixels.shape[2]), slice(0, pixels.shape[3]), pixels)


class Whole:
    """A tensor as a source.

    Parameters
    ----------
    pictures : Tensor
        Shape (N, 3, H, W); never changed.
    """

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures
        self.shape: tuple[int, int, int, int] = tuple(pictures.shape)  # type: ignore[assignment]
        self.device = pictures.device

    def read(self, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """Give a part, or the whole."""
        return self.pictures[:, :, rows, columns].clone()


def collect(parts: Iterator[Part], height: int, width: int) -> Tensor:
    """Put the parts of a result together; later ones go over earlier ones.

    Parameters
    ----------
    parts : iterator of Part
        At least one.
    height, width : int
        Of the result.

    Returns
    -------
    Tensor
        Shape (N, 3, height, width).

    Examples
    --------
    >>> collect(iter([Part.whole(torch.ones(1, 3, 1, 2))]), 1, 2).shape
    torch.Size([1, 3, 1, 2])
    """
    result: Tensor | None = None
    for rows, columns, pixels in parts:
        if pixels.shape[2:] == (height, width):
            # what was made in inference mode could not be changed by whoever gets it
            result = pixels.clone() if pixels.is_inference() else pixels
            continue
        if result is None:
            result = torch.empty(
                (*pixels.shape[:2], height, width), dtype=pixels.dtype, device=pixels.device
            )
        result[:, :, rows, columns] = pixels
    if result is None:
        raise ValueError("a result without parts")
    return result
