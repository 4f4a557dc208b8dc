"""Pictures and parameters for the checks: repeatable, and with nothing at zero that could hide."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["EXTREMES", "extreme", "noise", "seeded", "smooth", "wake"]

EXTREMES = ("black", "white", "grey", "nearly black", "one white pixel", "chequered")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Fix torch's random numbers inside, and leave the caller's as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def noise(n: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Give uniform noise in [0, 1], shape (n, channels, height, width), float32.

    Examples
    --------
    >>> noise(1, 3, 4, 5).shape
    torch.Size([1, 3, 4, 5])
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((n, channels, height, width), generator=generator)


def smooth(height: int, width: int, seed: int = 0) -> Tensor:
    """Give a dim picture of soft gradients and a little noise in [0, 1], shape (1, 3, H, W)."""
    coarse = noise(1, 3, 4, 4, seed)
    picture = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (0.35 * picture + 0.03 * noise(1, 3, height, width, seed + 1)).clamp(0, 1)


def extreme(kind: str, n: int, channels: int, height: int, width: int) -> Tensor:
    """Give one of `EXTREMES`, shape (n, channels, height, width), in [0, 1]."""
    x = torch.zeros(n, channels, height, width)
    if kind == "white":
        x += 1
    elif kind == "grey":
        x += 13 / 255
    elif kind == "nearly black":
        x += 1e-8
    elif kind == "one white pixel":
        x[..., height // 2, width // 2] = 1
    elif kind == "chequered":
        x[..., ::2, ::2] = x[..., 1::2, 1::2] = 1
    return x


def wake(module: nn.Module, seed: int) -> nn.Module:
    """Shake every parameter a little and return the module in eval mode.

    Layers that start at zero, as the last one of many residual blocks does, would hide what
    stands in front of them.
    """
    generator = torch.Generator().manual_seed(seed + 1000)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() or parameter.is_complex():
                fan_in = parameter[0].numel() if parameter.dim() > 1 else 100
                kind = torch.complex64 if parameter.is_complex() else torch.float32
                drawn = torch.randn(parameter.shape, generator=generator, dtype=kind)
                parameter.add_((drawn * 0.5 / fan_in**0.5).to(parameter))
    return module.eval()
