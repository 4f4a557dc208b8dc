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
_BAND = 0.1
"""How far the gain may lie beside what is wanted before it follows, in log odds."""
_CUT = 0.5
"""Change of a frame, as a part of its mean brightness, that counts as another scene."""
_DARK = 16 / 255
"""Mean brightness below which that part is no smaller: a fade to black is not a row of cuts."""
_BLACK = 1 / 255
"""Mean brightness below which a frame tells nothing of its scene."""


class SteadyExposure:
    """Chooses the control ``exposure`` for one frame after the other.

    Left alone, an enhancer that decides the brightness for each picture decides a little
    differently for each frame, which flickers. By how much it would brighten is seen on a small
    copy of the frame, as the difference in log odds, and averaged over time; so what fades to black
    does so. As in a camera, the gain stays while it is near that, so that noise doesn't move it at
    all; a cut to another scene is followed at once.

    Parameters
    ----------
    enhancer : Enhancer
        Has the control ``exposure``: the mean brightness wanted, in [0, 1].
    seconds : float
        Time constant of the exponential mean: how slowly the choice is followed.

    Examples
    --------
    >>> import enhancekit
    >>> enhancer = enhancekit.load("gamma")
    >>> steady = SteadyExposure(enhancer, seconds=1.0)
    >>> frames = [np.full((4, 4, 3), value, np.uint8) for value in (51, 52, 34, 17, 0)]
    >>> [round(steady(frame, 0.04), 2) for frame in frames]
    [0.48, 0.49, 0.36, 0.29, 0.0]
    """

    def __init__(self, enhancer: Enhancer, seconds: float) -> None:
        self._enhancer = enhancer
        self._seconds = seconds
        self._gain = 0.0
        self._mean: float | None = None
        self._last: NDArray[np.float32] | None = None

    def __call__(self, frame: NDArray[Any], elapsed: float) -> float:
        """Give the exposure for a frame (H, W, 3), `elapsed` seconds after the one before."""
        whole = open_image(frame).read()
        height, width = whole.shape[2:]
        part = min(1.0, _SIDE / max(height, width))
        size = (max(1, round(height * part)), max(1, round(width * part)))
        small = whole if part == 1 else F.interpolate(whole, size, mode="area")
        given = float(small.mean())
        is_cut = self._is_cut(small)
        if given >= _BLACK:
            wanted = _log_odds(float(self._enhancer.run(small).mean())) - _log_odds(given)
            if self._mean is None or is_cut:
                self._mean = self._gain = wanted
            else:
                kept = math.exp(-elapsed / self._seconds)
                self._mean = kept * self._mean + (1 - kept) * wanted
                self._gain = min(max(self._gain, self._mean - _BAND), self._mean + _BAND)
        chosen = 1 / (1 + math.exp(-_log_odds(given) - self._gain))
        low, high = self._enhancer.entry.spec.controls.get("exposure", (0.0, 1.0))
        return min(max(chosen, low), high)

    def _is_cut(self, small: torch.Tensor) -> bool:
        view = F.adaptive_avg_pool2d(small, 8)[0].numpy()
        last, self._last = self._last, view
        if last is None:
            return False
        level = max(float(last.mean() + view.mean()) / 2, _DARK)
        return float(np.abs(view - last).mean()) > _CUT * level


def _log_odds(share: float) -> float:
    share = min(max(share, 1e-4), 1 - 1e-4)
    return math.log(share / (1 - share))
