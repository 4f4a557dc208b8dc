"""LIME: light a picture up by dividing it by a map of its illumination."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from enhancekit.errors import OptionError
from enhancekit_classical.smoothing import smoothed

__all__ = ["illumination", "lime"]

Array = NDArray[np.float32]

_EPSILON = 1e-3
_SIGMA = 2.0


def lime(picture: Array, alpha: float = 0.15, gamma: float = 0.8) -> Array:
    """Low-light image enhancement via illumination map estimation.

    Each pixel is divided by its illumination: the brightest of its channels, made smooth except at
    the edges that matter, to the power `gamma`. The paper removes the noise that becomes visible
    by BM3D afterwards; here that is left to a denoiser of your choice.

    Parameters
    ----------
    picture : ndarray
        Float32, shape (H, W, 3); clipped to [0, 1].
    alpha : float
        Weight of smoothness, at least 0.
    gamma : float
        In [0, 1]; 0 leaves the picture as it is, 1 gives every pixel full illumination.

    Returns
    -------
    ndarray
        Float32, shape (H, W, 3), in [0, 1].

    Raises
    ------
    OptionError
        If an option is out of range.

    References
    ----------
    Guo, Li and Ling: LIME: Low-light image enhancement via illumination map estimation. IEEE
    Transactions on Image Processing 26(2), 2017.

    Examples
    --------
    >>> round(float(lime(np.full((8, 8, 3), 0.04, np.float32), gamma=0.5).mean()), 3)
    0.2
    """
    if not alpha >= 0:
        raise OptionError(f"alpha is at least 0, not {alpha}")
    if not 0 <= gamma <= 1:
        raise OptionError(f"gamma lies in [0, 1], not {gamma}")
    picture = picture.clip(0, 1)
    light = illumination(picture.max(axis=2), alpha).clip(_EPSILON, 1)
    done: Array = (picture / (light**gamma)[..., None]).clip(0, 1).astype(np.float32)
    return done


def illumination(initial: Array, alpha: float) -> Array:
    """Refine an illumination map by the paper's sped-up solver.

    The T that minimises ``|initial - T|^2 + alpha sum W (grad T)^2 / (|grad initial| + epsilon)``.
    W is the paper's third choice: small where the map rises or falls for good, large where it
    merely wavers.

    Parameters
    ----------
    initial : ndarray
        Float32, shape (H, W).
    alpha : float
        At least 0.

    Returns
    -------
    ndarray
        Float32, shape (H, W).
    """
    down = np.diff(initial, axis=0, append=initial[-1:])
    right = np.diff(initial, axis=1, append=initial[:, -1:])
    return smoothed(
        initial, np.float32(alpha) * _weights(down), np.float32(alpha) * _weights(right)
    )


def _weights(slopes: Array) -> Array:
    epsilon = np.float32(_EPSILON)
    lasting = np.abs(gaussian_filter(slopes, _SIGMA)) + epsilon
    weights: Array = 1 / (lasting * (np.abs(slopes) + epsilon))
    return weights
