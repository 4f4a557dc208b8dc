"""Denoisers of scikit-image beside the core's non-local means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.restoration import denoise_tv_chambolle, denoise_wavelet

from enhancekit.errors import OptionError

__all__ = ["tv", "wavelet"]

Array = NDArray[np.float32]

_LEAST = 16
_SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (2, 3), (3, 2), (3, 3))


def wavelet(picture: Array, sigma: float | None = None) -> Array:
    """Shrink wavelet coefficients of luma and chroma, each band by its own threshold: BayesShrink.

    The mean over eight shifts of the picture (Coifman and Donoho's cycle spinning), without which
    the wavelet's pattern shows. Pictures with a side below 16 pixels are mirrored to 16 and cut.

    Parameters
    ----------
    picture : ndarray
        Float32, shape (H, W, 3).
    sigma : float, optional
        Standard deviation of the noise in units of 1/255; estimated from the finest band by
        default.

    Returns
    -------
    ndarray
        Float32, shape (H, W, 3), clipped to [0, 1].

    Raises
    ------
    OptionError
        If `sigma` is negative.

    References
    ----------
    Chang, Yu and Vetterli: Adaptive wavelet thresholding for image denoising and compression. IEEE
    Transactions on Image Processing 9(9), 2000.

    Examples
    --------
    >>> round(float(wavelet(np.full((8, 8, 3), 0.5, np.float32)).mean()), 3)
    0.5
    """
    if sigma is not None and not sigma >= 0:
        raise OptionError(f"sigma is at least 0, not {sigma}")
    if picture.min() == picture.max() or sigma == 0:
        return picture.clip(0, 1)
    height, width = picture.shape[:2]
    sides = [(0, max(_LEAST - n, 0)) for n in (height, width)]
    padded = np.pad(picture, (*sides, (0, 0)), mode="symmetric")
    total = np.zeros_like(padded)
    for shift in _SHIFTS:
        done = denoise_wavelet(
            np.roll(padded, shift, axis=(0, 1)),
            sigma=None if sigma is None else sigma / 255,
            wavelet="db2",
            mode="soft",
            convert2ycbcr=True,
            channel_axis=-1,
            rescale_sigma=False,
        )
        total += np.roll(done, tuple(-s for s in shift), axis=(0, 1))
    mean: Array = (total / len(_SHIFTS))[:height, :width].clip(0, 1).astype(np.float32)
    return mean


def tv(picture: Array, weight: float = 0.1) -> Array:
    """Total variation: the picture of least variation near the given one.

    Parameters
    ----------
    picture : ndarray
        Float32, shape (H, W, 3).
    weight : float
        Above 0; more removes more noise, and more detail.

    Returns
    -------
    ndarray
        Float32, shape (H, W, 3); its range is within that of `picture`.

    Raises
    ------
    OptionError
        If `weight` is not above 0.

    References
    ----------
    Chambolle: An algorithm for total variation minimization and applications. Journal of
    Mathematical Imaging and Vision 20, 2004.

    Examples
    --------
    >>> float(tv(np.full((8, 8, 3), 0.5, np.float32)).max())
    0.5
    """
    if not weight > 0:
        raise OptionError(f"weight must be above 0, not {weight}")
    done = denoise_tv_chambolle(picture, weight=weight, channel_axis=-1)
    kept: Array = done.clip(picture.min(), picture.max()).astype(np.float32)
    return kept
