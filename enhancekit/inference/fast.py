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

__all__ = ["EXACT_PIXELS", "FAST_PIXELS", "fast_parts"]

EXACT_PIXELS = 450_000
"""Pixels up to which pictures are enhanced exactly."""
FAST_PIXELS = 130_000
"""Pixels that the small copy of a larger one has, about."""
RADIUS = 3
"""Half the side of the windows of the small copy, in its pixels."""
SHARE = 0.7
"""Share of the brightening, as a logarithm, that the guide is given; found by trial."""
EPSILON = 1e-4
"""Variance of the brightened picture below which a window counts as flat."""
STRIP = 1 << 20
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
    if height * width <= EXACT_PIXELS:
        yield Part.whole(enhance(source.read()))
        return
    factor = round((height * width / FAST_PIXELS) ** 0.5)
    small = _small(source, factor)
    result = enhance(small)
    gain = _gain(small, result)
    affine = _affine(_guide(small.clone(), gain), result, EPSILON * (1 - 1 / gain) ** 2)
    rows = max(1, STRIP // (width * factor))
    for top in range(0, small.shape[2], rows):
        bottom = min(top + rows, small.shape[2])
        part = slice(top * factor, min(bottom * factor, height))
        slope, offset = (
            _enlarged(t, top, bottom, factor)[:, :, : part.stop - part.start, :width]
            for t in affine
        )
        done = torch.addcmul(offset, slope, _guide(source.read(part), gain))
        yield Part(part, slice(0, width), done.clamp_(0, 1))


def _small(source: Source, factor: int) -> Tensor:
    """Average squares of pixels, in strips; at the far ends, what there is of them."""
    height, width = source.shape[2:]
    strip = max(1, STRIP // (factor * width)) * factor
    parts = [
        _averaged(source.read(slice(top, min(height, top + strip))), factor)
        for top in range(0, height, strip)
    ]
    return torch.cat(parts, dim=2)


def _averaged(x: Tensor, factor: int) -> Tensor:
    """Average squares; several times as fast as pooling, which goes through channels singly."""
    count, channels, height, width = x.shape
    if height % factor or width % factor:
        # what is left at the ends is averaged for itself
        more = (0, -width % factor, 0, -height % factor)
        weights = F.pad(torch.ones_like(x[:1, :1]), more)
        return _averaged(F.pad(x, more), factor) / _averaged(weights, factor)
    lines = x.permute(0, 2, 3, 1).reshape(count, height // factor, factor, width * channels)
    squares = lines.mean(dim=2).view(count, height // factor, width // factor, factor, channels)
    return squares.mean(dim=3).permute(0, 3, 1, 2)


def _enlarged(x: Tensor, top: int, bottom: int, factor: int) -> Tensor:
    """Interpolate rows `top` to `bottom`, bilinearly: along rows first, of which there are few."""
    rows = torch.arange(top - 1, bottom + 1, device=x.device).clamp(0, x.shape[2] - 1)
    near = x[:, :, rows].contiguous(memory_format=torch.channels_last)
    wide = F.interpolate(near, scale_factor=(1.0, float(factor)), mode="bilinear")
    wide = wide.permute(0, 2, 3, 1)
    # from the middle of a row to the middle of the next
    first = factor // 2
    share = (torch.arange(factor, dtype=x.dtype, device=x.device) + first + 0.5) / factor - 0.5
    between = torch.lerp(wide[:, :-1, None], wide[:, 1:, None], share.view(-1, 1, 1))
    return between.flatten(1, 2)[:, factor - first :].permute(0, 3, 1, 2)


def _gain(small: Tensor, result: Tensor) -> Tensor:
    """Find the gain (N, 1, 1, 1) of the guide's curve: most of what brightens the picture.

    All of it would leave nothing for the affine functions to express where the result is darker.
    """
    low = small.new_zeros((len(small), 1, 1, 1))
    high = torch.full_like(low, 6.0)
    wanted = result.mean(dim=(1, 2, 3), keepdim=True)
    for _ in range(16):
        middle = (low + high) / 2
        darker = _curve(small, middle.exp()).mean(dim=(1, 2, 3), keepdim=True) < wanted
        low, high = torch.where(darker, middle, low), torch.where(darker, high, middle)
    return (SHARE * (low + high) / 2).exp().clamp(min=1.5)


def _curve(pictures: Tensor, gain: Tensor) -> Tensor:
    """Brighten by a curve of slope `gain`, above 1, in the shadows; 1 stays 1."""
    return gain / (gain - 1) * (1 - _guide(pictures.clone(), gain))


def _guide(pictures: Tensor, gain: Tensor) -> Tensor:
    """Bend pictures, in their place, as the curve does, but for its offset and its scale.

    Unbent, affine functions would have to follow a dark picture's steep tone curve.
    """
    return pictures.clamp_(0, 1).mul_(gain - 1).add_(1).reciprocal_()


def _affine(guide: Tensor, result: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
    """Find slope and offset, (N, 3, h, w), that turn the guide into the result at each pixel."""
    mean, goal = _box(guide), _box(result)
    variance = _box(guide * guide) - mean * mean
    slope = (_box(guide * result) - mean * goal) / (variance + flat)
    return _box(slope), _box(goal - slope * mean)


def _box(x: Tensor) -> Tensor:
    """Average windows; sums of shifted pictures take a third of the time that pooling does."""
    side = 2 * RADIUS + 1
    x = F.pad(x.contiguous(), (RADIUS,) * 4, mode="replicate")
    for dim in (2, 3):
        length = x.shape[dim] - 2 * RADIUS
        total = x.narrow(dim, 0, length) + x.narrow(dim, 1, length)
        for shift in range(2, side):
            total += x.narrow(dim, shift, length)
        x = total
    return x / side**2
