"""Fast mode: enhance a small copy, and carry the change over to the full size.

Around each pixel of the small copy the result is an affine function of the picture; the guided
filter of He and Sun ("Fast guided filter", 2015) finds it, and applied to the full-size picture it
keeps every edge. What it cannot do is take away detail: noise finer than the small copy stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from enhancekit.inference.parts import Part, Source

__all__ = ["FAST_PIXELS", "fast_parts"]

FAST_PIXELS = 400_000
"""Pixels that the small copy has, about; pictures nearer to this than to four times of it are
enhanced exactly."""
RADIUS = 3
"""Half the side of the windows of the small copy, in its pixels."""
SHARE = 0.7
"""Share of the brightening, as a logarithm, that the guide is given; found by trial."""
EPSILON = 1e-4
"""Variance of the guide below which a window counts as flat."""
STRIP = 1 << 19
"""Pixels of the full size that are worked on at once."""


def fast_parts(enhance: Callable[[Tensor], Tensor], source: Source) -> Iterator[Part]:
    """Enhance a picture by way of a small copy.

    Parameters
    ----------
    enhance : callable
        Maps float pictures (N, 3, h, w) to the same.
    source : Source
        The picture.

    Yields
    ------
    Part
        Of the result, in [0, 1] unless the picture was small enough to be enhanced exactly.

    Examples
    --------
    >>> from enhancekit.inference.parts import Whole, collect
    >>> parts = fast_parts(lambda x: x + 0.25, Whole(torch.full((1, 3, 800, 1000), 0.25)))
    >>> bool((collect(parts, 800, 1000) - 0.5).abs().max() < 1e-3)
    True
    """
    height, width = source.shape[2:]
    factor = round((height * width / FAST_PIXELS) ** 0.5)
    if factor <= 1:
        yield Part.whole(enhance(source.read()))
        return
    small = _small(source, factor)
    result = enhance(small)
    gain = _gain(small, result)
    affine = _affine(_guide(small, gain), result)
    above, below, share = _between(small.shape[2], height, factor, source.device)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        part = slice(top, min(height, top + rows))
        first, last = int(above[top]), int(below[part.stop - 1])
        up, down = above[part] - first, below[part] - first
        a, b = (
            torch.lerp(wide[:, :, up], wide[:, :, down], share[part, None])
            for wide in (_widened(t[:, :, first : last + 1], factor, width) for t in affine)
        )
        guide = _guide(source.read(part), gain)
        yield Part(part, slice(0, width), torch.addcmul(b, a, guide, out=b).clamp_(0, 1))


def _widened(x: Tensor, factor: int, width: int) -> Tensor:
    """Interpolate each row to the full width."""
    wide = F.interpolate(x, scale_factor=(1.0, float(factor)), mode="bilinear")
    return wide[..., :width]


def _small(source: Source, factor: int) -> Tensor:
    """Average squares of pixels, in strips; at the far ends, what there is of them."""
    height, width = source.shape[2:]
    strip = max(1, STRIP // (factor * width)) * factor
    parts = [
        F.avg_pool2d(source.read(slice(top, min(height, top + strip))), factor, ceil_mode=True)
        for top in range(0, height, strip)
    ]
    return torch.cat(parts, dim=2)


def _gain(small: Tensor, result: Tensor) -> Tensor:
    """Find the gain (N, 1, 1, 1) of the guide's curve: most of what brightens the picture.

    All of it would leave nothing for the affine functions to express where the result is darker.
    """
    low = torch.full((len(small), 1, 1, 1), -3.0, device=small.device)
    high = torch.full_like(low, 6.0)
    wanted = result.mean(dim=(1, 2, 3), keepdim=True)
    for _ in range(16):
        middle = (low + high) / 2
        darker = _guide(small.clone(), middle.exp()).mean(dim=(1, 2, 3), keepdim=True) < wanted
        low, high = torch.where(darker, middle, low), torch.where(darker, high, middle)
    return (SHARE * (low + high) / 2).exp()


def _guide(pictures: Tensor, gain: Tensor) -> Tensor:
    """Bend pictures, in their place, by a curve of slope `gain` in the shadows; 1 stays 1."""
    # without it, affine functions would have to follow a dark picture's steep tone curve
    bent = pictures.clamp_(0, 1) * (gain - 1)
    return pictures.mul_(gain).div_(bent.add_(1))


def _affine(guide: Tensor, result: Tensor) -> tuple[Tensor, Tensor]:
    """Find slope and offset, (N, 3, h, w), that turn the guide into the result at each pixel."""
    mean, goal = _box(guide), _box(result)
    variance = _box(guide * guide) - mean * mean
    slope = (_box(guide * result) - mean * goal) / (variance + EPSILON)
    return _box(slope), _box(goal - slope * mean)


def _box(x: Tensor) -> Tensor:
    padded = F.pad(x, (RADIUS,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * RADIUS + 1, stride=1)


def _between(
    small: int, full: int, factor: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the two small rows each full row lies between, and its distance from the first."""
    place = ((torch.arange(full, device=device) + 0.5) / factor - 0.5).clamp(0, small - 1)
    above = place.floor().long()
    return above, (above + 1).clamp(max=small - 1), place - above
