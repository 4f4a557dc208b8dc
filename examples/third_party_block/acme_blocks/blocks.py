"""A residual block of depthwise and pointwise convolutions with a gate between."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["FastBlock"]


class FastBlock(nn.Module):
    """Depthwise 3x3, pointwise to twice the channels, gate, depthwise 3x3, pointwise; x is added.

    It sees as far as MFNN's SCR for a seventh of the multiplications. The gate, one half of the
    channels times the other, is that of NAFNet (Chen et al., ECCV 2022), whose normalisation and
    attention over the whole picture are left out: with them no tile could be computed by itself.

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
        self.widen = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Conv2d(channels, 2 * channels, 1),
        )
        self.join = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        one, other = self.widen(x).chunk(2, dim=1)
        done: Tensor = x + self.join(one * other)
        return done
