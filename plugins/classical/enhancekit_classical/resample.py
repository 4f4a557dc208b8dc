"""Enlarging by Pillow's kernels, in floats, so that 16 bits stay 16 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["bicubic_x2", "lanczos_x2"]

Array = NDArray[np.float32]


def bicubic_x2(picture: Array) -> Array:
    """Twice the height and width by cubic convolution (a = -0.5).

    Parameters
    ----------
    picture : ndarray
        Float32, shape (H, W, 3).

    Returns
    -------
    ndarray
        Float32, shape (2H, 2W, 3); what overshoots is clipped to the range of `picture`.

    References
    ----------
    Keys: Cubic convolution interpolation for digital image processing. IEEE Transactions on
    Acoustics, Speech, and Signal Processing 29(6), 1981.

    Examples
    --------
    >>> bicubic_x2(np.ones((4, 6, 3), np.float32)).shape
    (8, 12, 3)
    """
    return _doubled(picture, Image.Resampling.BICUBIC)


def lanczos_x2(picture: Array) -> Array:
    """Twice the height and width by Lanczos' kernel of three lobes.

    Parameters
    ----------
    picture : ndarray
        Float32, shape (H, W, 3).

    Returns
    -------
    ndarray
        Float32, shape (2H, 2W, 3); what overshoots is clipped to the range of `picture`.

    References
    ----------
    Duchon: Lanczos filtering in one and two dimensions. Journal of Applied Meteorology 18(8), 1979.

    Examples
    --------
    >>> lanczos_x2(np.ones((4, 6, 3), np.float32)).shape
    (8, 12, 3)
    """
    return _doubled(picture, Image.Resampling.LANCZOS)


def _doubled(picture: Array, kernel: Image.Resampling) -> Array:
    height, width = picture.shape[:2]
    channels = [
        np.asarray(Image.fromarray(channel).resize((2 * width, 2 * height), kernel))
        for channel in np.ascontiguousarray(np.moveaxis(picture, 2, 0), dtype=np.float32)
    ]
    done: Array = np.stack(channels, axis=2).clip(picture.min(), picture.max())
    return done
