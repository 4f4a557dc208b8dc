"""Figures of merit on float HxWx3 arrays in [0, 1]; scikit-image is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from enhancekit.builtin.losses import multi_scale_ssim, same_shape
from enhancekit.errors import OptionError

__all__ = ["delta_e", "mae", "ms_ssim", "psnr", "ssim"]

Array = NDArray[np.floating[Any]]


def _check(output: Array, reference: Array) -> None:
    same_shape(output, reference)
    for given in (output, reference):
        if not np.issubdtype(given.dtype, np.floating):
            raise OptionError(
                f"metrics compare floats in [0, 1], not {given.dtype}; divide by its white, e.g. "
                "255"
            )


def psnr(output: Array, reference: Array) -> float:
    """Peak signal-to-noise ratio in dB over all channels; infinite for equal pictures.

    Parameters
    ----------
    output, reference : ndarray
        Float, shape (H, W, 3), range [0, 1].

    Raises
    ------
    OptionError
        If the shapes differ, or they are no floats.

    Examples
    --------
    >>> psnr(np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.1))
    20.0
    """
    _check(output, reference)
    if np.array_equal(output, reference):
        return float("inf")
    value = peak_signal_noise_ratio(
        reference.astype(np.float64), output.astype(np.float64), data_range=1.0
    )
    return float(value)


def ssim(output: Array, reference: Array) -> float:
    """Structural similarity (Wang et al., IEEE TIP 2004), mean over channels, range [-1, 1].

    scikit-image's, with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``.

    Parameters
    ----------
    output, reference : ndarray
        Float, shape (H, W, 3), range [0, 1], at least 11x11 pixels.

    Raises
    ------
    OptionError
        If the shapes differ or are too small, or they are no floats.

    Examples
    --------
    >>> picture = np.random.default_rng(0).random((16, 16, 3))
    >>> ssim(picture, picture)
    1.0
    """
    _check(output, reference)
    if min(output.shape[:2]) < 11:
        raise OptionError(f"ssim needs at least 11x11 pixels, not {output.shape[:2]}")
    value = structural_similarity(
        reference.astype(np.float64),
        output.astype(np.float64),
        data_range=1.0,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def ms_ssim(output: Array, reference: Array) -> float:
    """Multi-scale SSIM (Wang et al., Asilomar 2003), five scales, range [0, 1].

    Parameters
    ----------
    output, reference : ndarray
        Float, shape (H, W, 3), range [0, 1], at least 176x176 pixels.

    Raises
    ------
    OptionError
        If the shapes differ or are too small, or they are no floats.

    Examples
    --------
    >>> picture = np.random.default_rng(0).random((176, 176, 3))
    >>> round(ms_ssim(picture, picture), 6)
    1.0
    """
    _check(output, reference)
    tensors = (
        torch.from_numpy(np.ascontiguousarray(a, np.float64)).permute(2, 0, 1)[None]
        for a in (output, reference)
    )
    return float(multi_scale_ssim(*tensors))


def mae(output: Array, reference: Array) -> float:
    """Mean absolute error, range [0, 1].

    Parameters
    ----------
    output, reference : ndarray
        Float, shape (H, W, 3), range [0, 1].

    Raises
    ------
    OptionError
        If the shapes differ, or they are no floats.

    Examples
    --------
    >>> mae(np.zeros((4, 4, 3)), np.ones((4, 4, 3)))
    1.0
    """
    _check(output, reference)
    return float(np.abs(output.astype(np.float64) - reference.astype(np.float64)).mean())


def delta_e(output: Array, reference: Array) -> float:
    """Mean CIEDE2000 colour difference of sRGB pictures (CIE 142-2001); 1 is just visible.

    Parameters
    ----------
    output, reference : ndarray
        Float, shape (H, W, 3), range [0, 1].

    Raises
    ------
    OptionError
        If the shapes differ, or they are no floats.

    Examples
    --------
    >>> delta_e(np.zeros((4, 4, 3)), np.zeros((4, 4, 3)))
    0.0
    """
    _check(output, reference)
    lab = (rgb2lab(np.clip(a.astype(np.float64), 0, 1)) for a in (reference, output))
    return float(deltaE_ciede2000(*lab).mean())
