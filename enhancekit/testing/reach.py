"""How far an output pixel looks at the input: measured by its gradient, and by changes."""

from __future__ import annotations

import bisect
from collections.abc import Callable

import torch
from torch import Tensor

from enhancekit.testing.samples import seeded

__all__ = ["LIMIT", "measure_reach"]

LIMIT = 512
"""Whatever looks at least this far, in pixels, is taken for unbounded."""


def measure_reach(
    call: Callable[[Tensor, Tensor], Tensor],
    channels: int,
    *,
    expected: int = 0,
    multiple_of: int = 1,
    minimum: int = 1,
    scale: int = 1,
) -> int | None:
    """Measure how far an output pixel looks at the input in each direction.

    Parameters
    ----------
    call : callable
        ``call(x, whole)`` maps (N, channels, H, W) to `scale` times that height and width.
        `whole` equals `x` and carries no gradient.
    channels : int
        Channels of its input.
    expected : int
        Where to look first.
    multiple_of, minimum : int
        Sizes that it takes.
    scale : int
        How many times the input's height and width the output has.

    Returns
    -------
    int or None
        The reach in pixels; ``None`` if it sees the whole of a strip of `LIMIT` pixels a side.

    Examples
    --------
    >>> conv = torch.nn.Conv2d(3, 3, 5, padding=2)
    >>> measure_reach(lambda x, _: conv(x), 3)
    2
    """
    width = -(-max(minimum, 16) // multiple_of) * multiple_of
    margin = 8 + 2 * multiple_of
    room = expected + margin
    while True:
        half = -(-room // multiple_of) * multiple_of
        strip = (channels, half, width)
        # two seeds, because a rectifier may shut a path
        reach = max(
            measure(call, strip, multiple_of, scale, axis=axis, seed=seed)
            # what is faint shows in the gradient alone, what is detached in changes alone
            for measure in (_reach_of_gradient, _reach_of_changes)
            for axis in (2, 3)
            for seed in range(2)
        )
        if reach < half - multiple_of:
            return reach
        if half >= LIMIT:
            return None
        room = 2 * half


def _reach_of_gradient(
    call: Callable[[Tensor, Tensor], Tensor],
    strip: tuple[int, int, int],
    multiple_of: int,
    scale: int,
    *,
    axis: int,
    seed: int,
) -> int:
    """Measure along one axis, on a strip: the pixels of one period in its middle, one by one."""
    half = strip[1]
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(_shape(strip, multiple_of, axis), generator=generator).requires_grad_()
    done = call(x.clone(), x.detach())
    weighted = done * torch.randn(done.shape, generator=generator)
    furthest = 0
    for place in range(half * scale, (half + multiple_of) * scale):
        (gradient,) = torch.autograd.grad(
            weighted.select(axis, place).sum(), x, retain_graph=True, materialize_grads=True
        )
        seen = gradient.abs().amax(dim=(0, 1, 5 - axis)).nonzero().flatten()
        if len(seen):
            here = place // scale
            furthest = max(furthest, int((seen - here).abs().max()))
    return furthest


def _reach_of_changes(
    call: Callable[[Tensor, Tensor], Tensor],
    strip: tuple[int, int, int],
    multiple_of: int,
    scale: int,
    *,
    axis: int,
    seed: int,
) -> int:
    """Measure how near other pixels may come without being seen by the period in the middle."""
    half = strip[1]
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(_shape(strip, multiple_of, axis), generator=generator)
    others = (0.5 * x, 0.5 + 0.5 * x)  # both, because a clamp may shut a path

    def seen(pixels: Tensor) -> Tensor:
        # what is random is not to be taken for what is seen
        with torch.no_grad(), seeded(seed):
            done = call(pixels.clone(), x.clone())
        return done.narrow(axis, half * scale, multiple_of * scale)

    def beyond(distance: int) -> bool:
        near = torch.arange(x.shape[axis]).view((-1, 1) if axis == 2 else (-1,))
        near = (near >= half - distance) & (near < half + multiple_of + distance)
        return not all(
            torch.allclose(seen(x.where(near, other)), undisturbed, rtol=1e-5, atol=1e-6)
            for other in others
        )

    undisturbed = seen(x)
    return bisect.bisect_left(range(half), True, key=lambda distance: not beyond(distance))


def _shape(strip: tuple[int, int, int], multiple_of: int, axis: int) -> tuple[int, int, int, int]:
    channels, half, width = strip
    length = 2 * half + multiple_of
    return (1, channels, length, width) if axis == 2 else (1, channels, width, length)
