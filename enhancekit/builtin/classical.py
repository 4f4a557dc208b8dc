"""Classical enhancers: functions of a float32 HxWx3 array, nominally in [0, 1]; scikit-image's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage import exposure
from skimage.color import rgb2gray
from skimage.restoration import denoise_nl_means
from skimage.transform import rescale

from enhancekit.errors import OptionError

__all__ = ["clahe", "equalize", "estimate_noise", "gamma", "identity", "nl_means", "spline_x2"]

Picture = NDArray[np.float32]


def identity(picture: Picture) -> Picture:
    """Give the picture back.

    Examples
    --------
    >>> identity(np.ones((1, 1, 3), np.float32)).max()
    np.float32(1.0)
    """
    return picture


def gamma(picture: Picture, gamma: float = 1 / 2.2) -> Picture:
    """Raise to a power; below 1 brightens. Negative values count as 0.

    Parameters
    ----------
    picture : ndarray
        Float32, shape (H, W, 3).
    gamma : float
        The exponent, above 0.

    Raises
    ------
    OptionError
        If `gamma` is not above 0.

    Examples
    --------
    >>> float(gamma(np.full((1, 1, 3), 0.25, np.float32), gamma=0.5)[0, 0, 0])
    0.5
    """
    if not gamma > 0:
        raise OptionError(f"gamma must be above 0, not {gamma}")
    done: Picture = exposure.adjust_gamma(picture.clip(0), gamma).astype(np.float32)
    return done


def clahe(picture: Picture, clip_limit: float = 0.02, kernel_size: int | None = None) -> Picture:
    """Contrast-limited adaptive histogram equalisation of the luma (Zuiderveld, 1994).

    Values are clipped to [0, 1], where the histogram is defined; hue is kept.

    Parameters
    ----------
    picture : ndarray
        Float32, shape (H, W, 3).
    clip_limit : float
        In [0, 1]; more gives more contrast, and more noise.
    kernel_size : int, optional
        Side of the contextual regions in pixels; an eighth of the picture by default.

    Raises
    ------
    OptionError
        If `clip_limit` lies outside [0, 1], or `kernel_size` is below 1.

    Examples
    --------
    >>> clahe(np.zeros((8, 8, 3), np.float32)).shape
    (8, 8, 3)
    """
    if not 0 <= clip_limit <= 1:
        raise OptionError(f"clip_limit lies in [0, 1], not {clip_limit}")
    if kernel_size is not None and kernel_size < 1:
        raise OptionError(f"kernel_size is at least 1 pixel, not {kernel_size}")
    return _on_luma(
        picture,
        lambda y: exposure.equalize_adapthist(y, kernel_size=kernel_size, clip_limit=clip_limit),
    )


def equalize(picture: Picture) -> Picture:
    """Histogram equalisation of the luma; values are clipped to [0, 1], hue is kept.

    Parameters
    ----------
    picture : ndarray
        Float32, shape (H, W, 3).

    Examples
    --------
    >>> equalize(np.zeros((8, 8, 3), np.float32)).max()
    np.float32(0.0)
    """
    return _on_luma(picture, exposure.equalize_hist)


def nl_means(picture: Picture, sigma: float | None = None) -> Picture:
    """Non-local means (Buades et al., 2005) with patches of 5x5 and a search of 13x13.

    Parameters
    ----------
    picture : ndarray
        Float32, shape (H, W, 3).
    sigma : float, optional
        Standard deviation of the noise in units of 1/255; estimated by default, as by Immerkaer
        (Computer Vision and Image Understanding, 1996).

    Raises
    ------
    OptionError
        If `sigma` is negative.

    Examples
    --------
    >>> nl_means(np.ones((8, 8, 3), np.float32)).max()
    np.float32(1.0)
    """
    if sigma is not None and not sigma >= 0:
        raise OptionError(f"sigma is at least 0, not {sigma}")
    if min(picture.shape[:2]) < 3:
        return picture  # no pixel has neighbours on all sides to estimate from
    deviation = estimate_noise(picture) if sigma is None else sigma / 255
    if not deviation > 0:
        return picture
    done: Picture = denoise_nl_means(
        picture,
        patch_size=5,
        patch_distance=6,
        h=0.8 * deviation,
        sigma=deviation,
        fast_mode=True,
        channel_axis=-1,
    ).astype(np.float32)
    return done


def estimate_noise(picture: Picture) -> float:
    """Estimate the standard deviation of the noise from what is left beside lines and slopes.

    Immerkaer's (1996) way; fine texture counts as noise.

    Parameters
    ----------
    picture : ndarray
        Float32, shape (H, W, C), at least 3 pixels a side.

    Returns
    -------
    float
        In the picture's unit.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0, 0.1, (99, 99, 3)).astype(np.float32)
    >>> round(estimate_noise(noise), 2)
    0.1
    """
    across = picture[:-2] - 2 * picture[1:-1] + picture[2:]
    left = across[:, :-2] - 2 * across[:, 1:-1] + across[:, 2:]
    return float(np.abs(left).mean() * np.sqrt(np.pi / 2) / 6)


def spline_x2(picture: Picture) -> Picture:
    """Twice the height and width by cubic splines; the baseline of super-resolution.

    Parameters
    ----------
    picture : ndarray
        Float32, shape (H, W, 3).

    Examples
    --------
    >>> spline_x2(np.ones((4, 6, 3), np.float32)).shape
    (8, 12, 3)
    """
    done: Picture = rescale(picture, 2, order=3, mode="edge", channel_axis=-1).astype(np.float32)
    return done


def _on_luma(picture: Picture, change: Callable[[Picture], Picture]) -> Picture:
    picture = picture.clip(0, 1)
    luma = rgb2gray(picture).clip(0, 1)
    if np.ptp(luma) <= 1e-6 * luma.max():
        return picture  # a histogram of one value, but for rounding, has nothing to spread
    done: Picture = (picture + (change(luma) - luma)[..., None]).clip(0, 1).astype(np.float32)
    return done
