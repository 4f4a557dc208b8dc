"""Steady brightness: the exposure an enhancer would choose for each frame, smoothed over time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from enhancekit.imaging.convert import open_image
from enhancekit.inference.enhancer import Enhancer

__all__ = ["SteadyExposure"]

_SIDE = 192
"""Longest side in pixels of the small frame on which an exposure is tried; its mean is enough."""
_BAND = 0.06
"""How far, as a part of it, the choice may lie beside what is wanted before it follows."""
_CUT = 0.5
"""Change of a frame, as a part of its mean brightness, that counts as another scene."""


class SteadyExposure:
    """Chooses the control ``exposure`` for one frame after the other.

    Left alone, an enhancer that decides the brightness for each picture decides a little
    differently for each frame, which flickers. What it would choose is seen on a small copy of the
    frame and averaged over time. As in a camera, the choice stays while it is near that, so that
    noise doesn't move it at all; a cut to another scene is followed at once.

    Parameters
    ----------
    enhancer : Enhancer
        Has the control ``exposure``: the mean brightness wanted, in [0, 1].
    seconds : float
        Time constant of the exponential mean: how slowly the choice is followed.

    Examples
    --------
    >>> import enhancekit
    >>> enhancer = enhancekit.load("identity")  # its choice is the brightness as it is
    >>> steady = SteadyExposure(enhancer, seconds=1.0)
    >>> frames = [np.full((4, 4, 3), value, np.uint8) for value in (102, 105, 130, 130, 250)]
    >>> [round(steady(frame, 0.5), 2) for frame in frames]
    [0.4, 0.4, 0.42, 0.44, 0.98]
    """

    def __init__(self, enhancer: Enhancer, seconds: float) -> None:
        self._enhancer = enhancer
        self._seconds = seconds
        self._chosen = 0.0
        self._mean: float | None = None
        self._last: NDArray[np.float32] | None = None

    def __call__(self, frame: NDArray[Any], elapsed: float) -> float:
        """Give the exposure for a frame (H, W, 3), `elapsed` seconds after the one before."""
        whole = open_image(frame).read()
        height, width = whole.shape[2:]
        part = min(1.0, _SIDE / max(height, width))
        size = (max(1, round(height * part)), max(1, round(width * part)))
        small = whole if part == 1 else F.interpolate(whole, size, mode="area")
        wanted = float(self._enhancer.run(small).mean())
        is_cut = self._is_cut(small)
        if self._mean is None or is_cut:
            self._mean = self._chosen = wanted
        else:
            kept = math.exp(-elapsed / self._seconds)
            self._mean = kept * self._mean + (1 - kept) * wanted
            self._chosen = min(
                max(self._chosen, self._mean / (1 + _BAND)), self._mean * (1 + _BAND)
            )
        low, high = self._enhancer.entry.spec.controls.get("exposure", (0.0, 1.0))
        return min(max(self._chosen, low), high)

    def _is_cut(self, small: torch.Tensor) -> bool:
        view = F.adaptive_avg_pool2d(small, 8)[0].numpy()
        last, self._last = self._last, view
        if last is None:
            return False
        level = max(float(last.mean() + view.mean()) / 2, 4 / 255)  # in black there is only noise
        return float(np.abs(view - last).mean()) > _CUT * level
