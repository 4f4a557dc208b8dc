"""Fast mode: enhance a small copy, and carry the change over to the full size.

Around each pixel of the small copy the result is an affine function of the picture; the guided
filter of He and Sun ("Fast guided filter", 2015) finds it, and applied to the full-size picture it
keeps every edge. What it cannot do is take away detail: noise finer than the small copy stays.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["FAST_PIXELS", "run_fast"]

FAST_PIXELS = 400_000
"""Pixels of the small copy; pictures that have no more are enhanced exactly."""
RADIUS = 2
"""Half the side of the windows of the small copy, in its pixels."""
EPSILON = 1e-4
"""Variance of the guide below which a window counts as flat."""
STRIP = 1 << 20
"""Pixels of the full size that are worked on at once."""


def run_fast(enhance: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """Enhance pictures by way of a small copy.

    Parameters
    ----------
    enhance : callable
        Maps float pictures (N, 3, h, w) to the same.
    pictures : Tensor
        Shape (N, 3, H, W), float32, nominally in [0, 1].

    Returns
    -------
    Tensor
        Same shape, in [0, 1] unless the picture was small enough to be enhanced exactly.

    Examples
    --------
    >>> bright = run_fast(lambda x: x + 0.25, torch.full((1, 3, 800, 1000), 0.25))
    >>> bool((bright - 0.5).abs().max() < 1e-3)
    True
    """
    height, width = pictures.shape[2:]
    shrink = (height * width / FAST_PIXELS) ** 0.5
    if shrink <= 1:
        return enhance(pictures)
    size = (max(1, round(height / shrink)), max(1, round(width / shrink)))
    small = F.interpolate(pictures, size=size, mode="bilinear", antialias=True)
    slope, offset = _affine(_guide(small), enhance(small))
    # across first: the rest is done in strips, whose memory does not grow with the picture
    across = (size[0], width)
    slope, offset = (F.interpolate(t, size=across, mode="bilinear") for t in (slope, offset))
    above, below, share = _between(size[0], height, pictures.device)
    result = torch.empty_like(pictures)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        part = slice(top, min(height, top + rows))
        a, b = (
            torch.lerp(t[:, :, above[part]], t[:, :, below[part]], share[part, None])
            for t in (slope, offset)
        )
        torch.addcmul(b, a, _guide(pictures[:, :, part]), out=result[:, :, part])
    return result.clamp_(0, 1)


def _guide(pictures: Tensor) -> Tensor:
    # dark pictures vary so little that no fixed epsilon would suit them and bright ones
    return pictures.clamp(0, 1).sqrt()


def _affine(guide: Tensor, result: Tensor) -> tuple[Tensor, Tensor]:
    """Find slope and offset, (N, 3, h, w), that turn the guide into the result at each pixel."""
    mean, goal = _box(guide), _box(result)
    variance = _box(guide * guide) - mean * mean
    slope = (_box(guide * result) - mean * goal) / (variance + EPSILON)
    return _box(slope), _box(goal - slope * mean)


def _box(x: Tensor) -> Tensor:
    padded = F.pad(x, (RADIUS,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * RADIUS + 1, stride=1)


def _between(small: int, full: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Give the two small rows each full row lies between, and its distance from the first."""
    place = ((torch.arange(full, device=device) + 0.5) * small / full - 0.5).clamp(0, small - 1)
    above = place.floor().long()
    return above, (above + 1).clamp(max=small - 1), place - above
