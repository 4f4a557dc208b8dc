"""Held-out PSNR while training: a spread of whole pictures, as a user would see them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from enhancekit.builtin.metrics import psnr
from enhancekit.imaging.reading import read_rgb8
from enhancekit.training.pairs import Pair

__all__ = ["spread", "validate"]

_LONGEST = 60
"""Characters of a sample's name; each may take four of the 255 bytes of a file name."""


_EXACT = 100.0
"""Decibels of a picture that is reproduced exactly; infinite, it would decide every mean."""


def spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Choose at most `count` pairs evenly over all.

    Examples
    --------
    >>> spread([], 4)
    []
    """
    count = min(count, len(pairs))
    return [pairs[i * len(pairs) // count] for i in range(count)]


def validate(
    enhance: Callable[[Tensor], Tensor],
    held_out: Mapping[str, Sequence[Pair]],
    count: int,
    show: Callable[[str, tuple[Tensor, ...]], None],
) -> dict[str, float]:
    """Measure held-out pairs.

    Parameters
    ----------
    enhance : callable
        Maps float pictures (1, 3, H, W) to the same.
    held_out : mapping of str to sequence of Pair
        By source.
    count : int
        Pairs of each source.
    show : callable
        Called with a name and (input, output, reference) for the first two of each source.

    Returns
    -------
    dict of str to float
        Mean PSNR in dB by source; RGB, outputs rounded to 8 bits, no picture above 100.
    """
    result = {}
    for source, pairs in held_out.items():
        values = []
        for i, pair in enumerate(spread(pairs, count)):
            low, high = _tensor(pair.input), _tensor(pair.target)
            output = (enhance(low).clamp(0, 1) * 255).round() / 255
            value = psnr(*(t[0].permute(1, 2, 0).numpy() for t in (output, high)))
            values.append(min(value, _EXACT))
            if i < 2:
                name = re.sub(r"[^\w.]+", "-", f"{source}-{pair.name}").strip("-")
                show(
                    name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-{i}", (low, output, high)
                )
        if values:
            result[source] = sum(values) / len(values)
    return result


def _tensor(path: Path) -> Tensor:
    return torch.from_numpy(read_rgb8(path)).permute(2, 0, 1)[None].float() / 255
