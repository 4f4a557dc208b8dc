"""Inputs made from clean photographs: dark and noisy ones, noise alone, or smaller ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from enhancekit.errors import DataError

__all__ = [
    "LEVELS",
    "SHRINKING",
    "Darkening",
    "Degradation",
    "draw_camera_noise",
    "draw_darkening",
    "draw_degradation",
    "from_linear",
    "to_linear",
]


EXPOSURE = (1 / 40, 1 / 3)
"""Range of the exposure, log-uniform: 1.6 to 5.3 stops under, as the inputs of LOL and SICE."""
SHOT = (1e-4, 3e-3)
"""Range of the shot noise's variance per unit of signal, log-uniform: the lower part of the range
that Brooks et al. ("Unprocessing images for learned raw denoising", CVPR 2019) take for cameras,
since ours acts on an underexposed signal."""
CAMERA_SHOT = (1e-4, 1.2e-2)
"""The same for well-exposed photographs: that paper's whole range."""
READ = (2.18, 1.20, 0.26)
"""Log of the read noise's variance given the log of the shot noise's: slope, offset, standard
deviation (same paper)."""
TINT = 0.08
"""Standard deviation of the log of the red and blue gains."""
SIGMA = (0.0, 50.0)
"""Range of Gaussian noise's standard deviation, uniform, in units of 1/255."""
PEAK = (8.0, 255.0)
"""Range of the photons a white pixel gathers under Poisson noise, log-uniform."""

LEVELS = {"gaussian": (0.01, 255.0), "poisson": (0.1, 1e6)}
"""Levels that may be asked for. Beyond them nothing is left of the picture, or of the noise, and
32 bits don't hold the numbers."""

SHRINKING = {"bicubic-x2": 2, "bicubic-x3": 3, "bicubic-x4": 4}
"""How many times smaller these kinds make their inputs."""

Degradation = Callable[[Tensor, torch.Generator, bool], Tensor]
"""Maps a clean crop (3, H, W) to the input it might have come from; the last argument is false for
thumbnails of whole pictures, which average noise away."""


def to_linear(encoded: Tensor) -> Tensor:
    """Undo the sRGB encoding (IEC 61966-2-1).

    Examples
    --------
    >>> float(to_linear(torch.tensor(1.0)))
    1.0
    """
    high = ((encoded.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(encoded <= 0.04045, encoded / 12.92, high)


def from_linear(linear: Tensor) -> Tensor:
    """Apply the sRGB encoding (IEC 61966-2-1).

    Examples
    --------
    >>> float(from_linear(torch.tensor(0.0)))
    0.0
    """
    high = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, high)


def _uniform(low: float, high: float, draw: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=draw))


@dataclass(frozen=True, slots=True)
class Darkening:
    """One camera setting; the same one makes a crop and the thumbnail of its whole picture."""

    gains: Tensor
    """Exposure times white balance, shape (3, 1, 1)."""
    shot: float
    """Variance of the shot noise per unit of signal."""
    read: float
    """Variance of the read noise."""
    blur: float
    """Standard deviation in pixels of the blur that demosaicing gives the noise; 0 for none."""

    def __call__(self, clean: Tensor, draw: torch.Generator, noise: bool) -> Tensor:
        """Photograph a clean picture darkly.

        Parameters
        ----------
        clean : Tensor
            sRGB, shape (3, H, W), in [0, 1].
        draw : torch.Generator
            Of the noise.
        noise : bool
            Whether to add noise and round to 8 bits; thumbnails average both away.

        Returns
        -------
        Tensor
            sRGB, same shape, in [0, 1].
        """
        signal = to_linear(clean) * self.gains
        if not noise:
            return from_linear(signal.clamp(0, 1))
        deviation = (self.shot * signal + self.read).sqrt()
        grain = torch.randn(clean.shape, generator=draw)
        if self.blur:
            grain = _blurred(grain, self.blur)
        noisy = (signal + deviation * grain).clamp(0, 1)
        return (from_linear(noisy) * 255).round() / 255


def draw_darkening(draw: torch.Generator) -> Darkening:
    """Draw a camera setting from the ranges above.

    Examples
    --------
    >>> darkening = draw_darkening(torch.Generator().manual_seed(0))
    >>> bool((darkening.gains < 1).all())
    True
    """
    exposure = math.exp(_uniform(math.log(EXPOSURE[0]), math.log(EXPOSURE[1]), draw))
    red, blue = (torch.randn(2, generator=draw) * TINT).exp().tolist()
    gains = torch.tensor([red, 1.0, blue]).view(3, 1, 1) * exposure
    return _camera(gains, SHOT, draw)


def _camera(gains: Tensor, shots: tuple[float, float], draw: torch.Generator) -> Darkening:
    shot = _uniform(math.log(shots[0]), math.log(shots[1]), draw)
    slope, offset, spread = READ
    read = slope * shot + offset + spread * float(torch.randn((), generator=draw))
    blur = _uniform(0.4, 0.9, draw) if _uniform(0, 1, draw) < 0.5 else 0.0
    return Darkening(gains, math.exp(shot), math.exp(read), blur)


def draw_camera_noise(draw: torch.Generator) -> Darkening:
    """Draw a well-exposed photograph's noise: that of `draw_darkening`, up to higher gains.

    Examples
    --------
    >>> bool((draw_camera_noise(torch.Generator().manual_seed(0)).gains == 1).all())
    True
    """
    return _camera(torch.ones(3, 1, 1), CAMERA_SHOT, draw)


def draw_degradation(kind: str, draw: torch.Generator, level: float | None = None) -> Degradation:
    """Draw how a clean photograph is to be spoilt.

    Parameters
    ----------
    kind : {"dark", "camera", "gaussian", "poisson", "bicubic-x2", "bicubic-x3", "bicubic-x4"}
        ``"gaussian"`` noise is neither clipped nor rounded, as denoising is usually measured;
        ``"bicubic-x2"`` halves the size with an antialiased bicubic kernel and rounds to 8 bits,
        the others divide it by 3 and 4.
    draw : torch.Generator
        Of the parameters.
    level : float, optional
        Standard deviation of Gaussian noise in units of 1/255, or the peak of Poisson noise,
        instead of one drawn; see `LEVELS`.

    Raises
    ------
    DataError
        If there is no such kind, or it takes no level, or an impossible one.

    Examples
    --------
    >>> draw = torch.Generator().manual_seed(0)
    >>> draw_degradation("bicubic-x2", draw)(torch.zeros(3, 8, 8), draw, True).shape
    torch.Size([3, 4, 4])
    """
    if level is not None:
        low, high = LEVELS.get(kind, (1.0, 0.0))
        if not low <= level <= high:
            ranges = " and ".join(f"{least:g} to {most:g}" for least, most in LEVELS.values())
            raise DataError(
                f"{kind}:{level:g} is no degradation; only {' and '.join(LEVELS)} take a level, "
                f"of {ranges}"
            )
    if kind == "dark":
        return draw_darkening(draw)
    if kind == "camera":
        return draw_camera_noise(draw)
    if kind == "gaussian":
        return partial(_gaussian, (_uniform(*SIGMA, draw) if level is None else level) / 255)
    if kind == "poisson":
        drawn = math.exp(_uniform(math.log(PEAK[0]), math.log(PEAK[1]), draw))
        return partial(_poisson, drawn if level is None else level)
    if kind in SHRINKING:
        return partial(_shrunk, SHRINKING[kind])
    raise DataError(
        f"no degradation is called {kind!r}; there are dark, camera, gaussian, poisson, "
        + ", ".join(SHRINKING)
    )


def _gaussian(sigma: float, clean: Tensor, draw: torch.Generator, noise: bool) -> Tensor:
    return clean + sigma * torch.randn(clean.shape, generator=draw) if noise else clean


def _poisson(peak: float, clean: Tensor, draw: torch.Generator, noise: bool) -> Tensor:
    return torch.poisson(clean * peak, generator=draw) / peak if noise else clean


def _shrunk(times: int, clean: Tensor, draw: torch.Generator, noise: bool) -> Tensor:
    del draw
    if not noise:
        return clean
    size = [side // times for side in clean.shape[1:]]
    small = F.interpolate(clean[None], size=size, mode="bicubic", antialias=True)[0]
    return (small.clamp(0, 1) * 255).round() / 255


def _blurred(grain: Tensor, sigma: float) -> Tensor:
    ticks = torch.arange(-2.0, 3.0)
    bell = torch.exp(-(ticks**2) / (2 * sigma**2))
    bell = bell / bell.sum()
    kernel = (bell[:, None] * bell[None, :]).expand(3, 1, 5, 5)
    padded = F.pad(grain[None], (2, 2, 2, 2), mode="reflect")
    return F.conv2d(padded, kernel, groups=3)[0]
