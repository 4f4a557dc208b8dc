"""What can be said of a picture without a reference, and how far two pictures lie apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab

from enhancekit.builtin.classical import estimate_noise

__all__ = ["Measures", "difference", "measured", "thumbnail"]

SIDE = 512
"""Longer side in pixels at which colours are compared."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What can be said of a picture without a reference."""

    brightness: float
    """Mean of the luma (BT.601), from 0 to 1."""
    black: float
    """Share of pixels whose channels are all 0."""
    white: float
    """Share of pixels of which a channel is full."""
    noise: float | None
    """Estimated standard deviation, in units of 1/255; fine texture counts. ``None``: too small."""
    cast: float
    """How far the mean colour lies from grey, in CIELAB."""
    colour: tuple[int, int, int]
    """The mean colour in 8-bit sRGB."""


def thumbnail(picture: NDArray[np.uint8]) -> Image.Image:
    """Return a picture at the size at which colours are compared."""
    small = Image.fromarray(picture)
    small.thumbnail((SIDE, SIDE))
    return small


def measured(picture: NDArray[np.float32]) -> Measures:
    """Measure a picture.

    Parameters
    ----------
    picture : numpy.ndarray
        sRGB, shape (H, W, 3), float32, nominally in [0, 1]; beyond counts as clipped.

    Examples
    --------
    >>> found = measured(np.full((8, 8, 3), 0.5, np.float32))
    >>> round(found.brightness, 2), found.black, found.white, found.noise, round(found.cast)
    (0.5, 0.0, 0.0, 0.0, 0)
    """
    top = picture.max(axis=2)
    mean = picture.reshape(-1, 3).mean(axis=0, dtype=np.float64).clip(0, 1)
    _, a, b = rgb2lab(mean)
    red, green, blue = (int(v) for v in np.rint(mean * 255))
    half = 0.5 / 255  # what 8 bits round to the ends
    return Measures(
        brightness=float(mean @ (0.299, 0.587, 0.114)),
        black=float((top < half).mean()),
        white=float((top >= 1 - half).mean()),
        noise=estimate_noise(picture) * 255 if min(picture.shape[:2]) >= 3 else None,
        cast=float(np.hypot(a, b)),
        colour=(red, green, blue),
    )


def difference(first: Image.Image, second: Image.Image) -> float:
    """Return the mean colour difference (CIE76) of two thumbnails, one enlarged if need be.

    Examples
    --------
    >>> black, white = (Image.new("RGB", (3, 2), c) for c in ("black", "white"))
    >>> round(difference(black, white)), difference(white, white)
    (100, 0.0)
    """
    if first.size != second.size:
        second = second.resize(first.size)
    apart = rgb2lab(np.asarray(first)) - rgb2lab(np.asarray(second))
    return float(np.sqrt((apart**2).sum(axis=-1)).mean())
