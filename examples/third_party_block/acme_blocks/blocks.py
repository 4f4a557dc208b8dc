"""A residual block of depthwise and pointwise convolutions."""

from __future__ import annotations

from torch import Tensor, nn


class FastBlock(nn.Module):
    """Depthwise 3x3, pointwise, ReLU, depthwise 3x3, pointwise; the input is added.

    Parameters
    ----------
    channels : int
        Channels in and out.

    Examples
    --------
    >>> import torch
    >>> FastBlock(4)(torch.zeros(1, 4, 5, 7)).shape
    torch.Size([1, 4, 5, 7])
    """

    halo = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        done: Tensor = x + self.body(x)
        return done
