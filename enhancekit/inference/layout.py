"""The memory layout in which convolutions are fastest."""

from __future__ import annotations

import itertools

import torch
from torch import nn

__all__ = ["to_channels_last"]


def to_channels_last(module: nn.Module) -> None:
    """Lay out a module's parameters and buffers anew, in place: those with four dimensions.

    ``module.to(memory_format=...)`` fails on others with five, as tables of colours have.

    Examples
    --------
    >>> layer = nn.Conv2d(2, 3, 3)
    >>> to_channels_last(layer)
    >>> layer.weight.is_contiguous(memory_format=torch.channels_last)
    True
    """
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
