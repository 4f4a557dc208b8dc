"""Retinex: each pixel compared with its surroundings, at several distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from enhancekit.errors import OptionError

__all__ = ["msrcr"]

Array = NDArray[np.float32]

_ALPHA = 125.0


def msrcr(
    picture: Array, scales: Sequence[float] = (15.0, 80.0, 250.0), clip: float = 0.01
) -> Array:
    """Multi-scale retinex with colour restoration.

    The logarithm of each pixel less that of its surroundings, averaged over `scales` and weighted
    by the pixel's colour. The paper's final gain and offset fit its own scanner; as in Petro et
    al., each channel is instead stretched to [0, 1] with a share of `clip` lost at each end. A
    channel of one value stays as it is.

    Parameters
    ----------
    picture : ndarray
        Float32, shape (H, W, 3); clipped to [0, 1].
    scales : sequence of float
        Standard deviations in pixels of the Gaussian surroundings, above 0.
    clip : float
        In [0, 0.5).

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
    Jobson, Rahman and Woodell: A multiscale retinex for bridging the gap between color images and
    the human observation of scenes. IEEE Transactions on Image Processing 6(7), 1997.
    Petro, Sbert and Morel: Multiscale retinex. Image Processing On Line 4, 2014.

    Examples
    --------
    >>> ramp = np.linspace(0, 0.1, 48, dtype=np.float32).reshape(4, 4, 3)
    >>> done = msrcr(ramp)
    >>> float(done.min()), float(done.max())
    (0.0, 1.0)
    """
    if not scales or not all(scale > 0 for scale in scales):
        raise OptionError(f"scales are one or more numbers above 0, not {scales}")
    if not 0 <= clip < 0.5:
        raise OptionError(f"clip lies in [0, 0.5), not {clip}")
    picture = picture.clip(0, 1)
    light = 255 * picture + 1
    retinex = np.log(light) - sum(np.log(_blurred(light, scale)) for scale in scales) / len(scales)
    colour = np.log(_ALPHA * light / light.sum(axis=2, keepdims=True))
    done: Array = np.stack(
        [
            _stretched(channel, clip, given)
            for channel, given in zip(
                np.moveaxis(colour * retinex, 2, 0), np.moveaxis(picture, 2, 0), strict=True
            )
        ],
        axis=2,
    )
    return done.astype(np.float32)


def _blurred(picture: Array, scale: float) -> Array:
    """Blur by a Gaussian, mirrored at the ends; by cosine transforms, whose time has no scale."""
    spread = [
        np.exp(-((np.pi * np.arange(n) / n * scale) ** 2) / 2).astype(np.float32)
        for n in picture.shape[:2]
    ]
    spectrum = dctn(picture, axes=(0, 1), norm="ortho") * np.outer(*spread)[..., None]
    done: Array = idctn(spectrum, axes=(0, 1), norm="ortho")
    return done.clip(1)  # what the light's floor is; rounding may fall below


def _stretched(channel: Array, clip: float, given: Array) -> Array:
    low, high = np.quantile(channel, (clip, 1 - clip))
    if given.min() == given.max() or not high > low:
        return given
    done: Array = ((channel - low) / (high - low)).clip(0, 1)
    return done
