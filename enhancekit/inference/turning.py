"""The mean of what a network makes of a tile as it is, turned, and mirrored.

A network treats a picture and its mirror image a little differently; the mean over all eight
orientations errs less than any of them (Timofte et al., "Seven ways to improve example-based single
image super resolution", CVPR 2016, where it is called enhanced prediction).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from enhancekit.inference.parts import Margins

__all__ = ["mean_of_turned"]


def mean_of_turned(
    network: Callable[[Sequence[Any], Tensor, Margins], Tensor],
    context: Sequence[Any],
    part: Tensor,
    margins: Margins,
) -> Tensor:
    """Apply a network to the eight orientations of a tile, and turn the results back.

    Parameters
    ----------
    network : callable
        Given a context, maps (N, 3, H, W) to the size times its scale, without the margins.
    context : sequence
        What else it takes; tensors of four dimensions have places and are turned along.
    part : Tensor
        The tile, shape (N, 3, H, W).
    margins : tuple of int
        Its pixels at the top, bottom, left and right that are only there to be looked at.

    Returns
    -------
    Tensor
        The mean, float32.

    Examples
    --------
    >>> down = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> mean_of_turned(lambda c, x, m: x + down, (), torch.zeros(1, 3, 2, 2), (0,) * 4)[0, 0]
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    total: Tensor | None = None
    for mirrored in (False, True):
        for quarters in range(4):
            beside = _mirrored(margins) if mirrored else margins
            for _ in range(quarters):
                beside = _turned(beside)
            told = [_along(value, quarters, mirrored=mirrored) for value in context]
            # as the tile itself was laid out
            given = _along(part, quarters, mirrored=mirrored)
            given = given.contiguous(memory_format=torch.channels_last)
            done = network(told, given, beside).float()
            done = torch.rot90(done, -quarters, (2, 3))
            done = done.flip(3) if mirrored else done
            total = done if total is None else total + done
    assert total is not None  # noqa: S101  there are eight
    return total / 8


def _along(value: Any, quarters: int, *, mirrored: bool) -> Any:
    if not isinstance(value, Tensor) or value.ndim != 4:
        return value
    return torch.rot90(value.flip(3) if mirrored else value, quarters, (2, 3))


def _mirrored(margins: Margins) -> Margins:
    top, bottom, left, right = margins
    return top, bottom, right, left


def _turned(margins: Margins) -> Margins:
    """Turn by a quarter as `torch.rot90` does: the right side comes to the top."""
    top, bottom, left, right = margins
    return right, left, top, bottom
