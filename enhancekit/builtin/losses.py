"""Losses on pictures: each a module mapping (output, reference), both NCHW, to a scalar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from enhancekit.errors import OptionError

__all__ = [
    "L1",
    "MSSSIM",
    "SSIM",
    "Charbonnier",
    "Gradient",
    "Luma",
    "PictureLoss",
    "multi_scale_ssim",
]

Reduction = Literal["mean", "none"]

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11


def same_shape(output: Tensor | NDArray[Any], reference: Tensor | NDArray[Any]) -> None:
    """Refuse to compare pictures of differing shapes, which broadcasting would hide."""
    if output.shape != reference.shape:
        raise OptionError(
            f"output has the shape {tuple(output.shape)} but the reference "
            f"{tuple(reference.shape)}; losses and metrics compare equal shapes only and never "
            "resize"
        )


class PictureLoss(nn.Module, ABC):
    """A loss over the batch; `per_picture` gives one value a picture."""

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "none"):
            raise OptionError(f"reduction is 'mean' or 'none', not {reduction!r}")
        self.reduction = reduction

    @abstractmethod
    def per_picture(self, output: Tensor, reference: Tensor) -> Tensor:
        """Give one value a picture, shape (N,)."""

    def forward(self, output: Tensor, reference: Tensor) -> Tensor:
        """Compare two batches of shape (N, C, H, W).

        Returns
        -------
        Tensor
            A scalar, or shape (N,) with ``reduction="none"``.
        """
        same_shape(output, reference)
        # 16-bit sums over a picture lose the very differences a loss is about
        with torch.autocast(output.device.type, enabled=False):
            values = self.per_picture(output.float(), reference.float())
        return values.mean() if self.reduction == "mean" else values


class L1(PictureLoss):
    """Mean absolute difference.

    Examples
    --------
    >>> float(L1()(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)))
    1.0
    """

    def per_picture(self, output: Tensor, reference: Tensor) -> Tensor:
        """Give one value a picture, shape (N,)."""
        return (output - reference).abs().flatten(1).mean(1)


class Charbonnier(PictureLoss):
    """Mean of ``sqrt(d**2 + eps**2) - eps`` (Charbonnier et al., ICIP 1994), 0 at identity.

    Parameters
    ----------
    eps : float
        Half-width of the quadratic part, in units of the range [0, 1].
    reduction : {"mean", "none"}
        Average over the batch, or one value a picture.

    Examples
    --------
    >>> float(Charbonnier()(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)))
    0.0
    """

    def __init__(self, eps: float = 1e-3, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.eps = eps

    def per_picture(self, output: Tensor, reference: Tensor) -> Tensor:
        """Give one value a picture, shape (N,)."""
        distance = ((output - reference) ** 2 + self.eps**2).sqrt() - self.eps
        return distance.flatten(1).mean(1)


class Luma(Charbonnier):
    """`Charbonnier` of the luma alone, which super-resolution is measured on.

    Luma is 0.299 R + 0.587 G + 0.114 B of the gamma-encoded values (ITU-R BT.601).

    Parameters
    ----------
    eps, reduction
        As for `Charbonnier`.

    Raises
    ------
    OptionError
        If the pictures have not three channels.

    Examples
    --------
    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> round(float(Luma(eps=1e-6)(red, torch.zeros(1, 3, 1, 1))), 3)
    0.299
    """

    def per_picture(self, output: Tensor, reference: Tensor) -> Tensor:
        """Give one value a picture, shape (N,)."""
        if output.shape[1] != 3:
            raise OptionError(
                f"the loss luma is for colour pictures of 3 channels, not {output.shape[1]}"
            )
        weights = output.new_tensor((0.299, 0.587, 0.114))
        return super().per_picture(
            torch.einsum("nchw,c->nhw", output, weights),
            torch.einsum("nchw,c->nhw", reference, weights),
        )


class Gradient(PictureLoss):
    """L1 distance of horizontal and of vertical differences, summed.

    Examples
    --------
    >>> ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    >>> float(Gradient()(ramp, torch.zeros(1, 1, 4, 4)))
    1.0
    """

    def per_picture(self, output: Tensor, reference: Tensor) -> Tensor:
        """Give one value a picture, shape (N,)."""
        difference = output - reference
        total = difference.new_zeros(len(difference))
        for axis in (2, 3):
            if difference.shape[axis] > 1:
                total = total + difference.diff(dim=axis).abs().flatten(1).mean(1)
        return total


def _window(reference: Tensor) -> Tensor:
    ticks = torch.arange(WINDOW, device=reference.device, dtype=reference.dtype) - WINDOW // 2
    bell = torch.exp(-(ticks**2) / (2 * 1.5**2))
    return bell / bell.sum()


def _band(bell: Tensor, size: int) -> Tensor:
    """Write the window as a matrix (size, size - 10), each column one position."""
    band = bell.new_zeros(size, size - len(bell) + 1)
    for i, value in enumerate(bell):
        band.diagonal(-i).copy_(value.expand(band.shape[1]))
    return band


def _blur(x: Tensor, bell: Tensor) -> Tensor:
    # as a product of matrices this is 12 times as fast on a CPU as a one-channel convolution
    return _band(bell, x.shape[2]).T @ (x @ _band(bell, x.shape[3]))


def _ssim_parts(output: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure part, averaged over positions: shape (N, C) each."""
    bell = _window(reference)
    stacked = torch.cat((output, reference, output**2, reference**2, output * reference))
    mx, my, mxx, myy, mxy = _blur(stacked, bell).chunk(5)
    c1, c2 = 0.01**2, 0.03**2
    structure = (2 * (mxy - mx * my) + c2) / (mxx - mx**2 + myy - my**2 + c2)
    luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
    return (luminance * structure).mean((2, 3)), structure.mean((2, 3))


class SSIM(PictureLoss):
    """One minus the structural similarity (Wang et al., IEEE TIP 2004), range [0, 2].

    The index is scikit-image's with ``gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1``. Pictures of at least 11x11 pixels.

    Examples
    --------
    >>> picture = torch.rand(1, 3, 16, 16)
    >>> float(SSIM()(picture, picture)) < 1e-6
    True
    """

    def per_picture(self, output: Tensor, reference: Tensor) -> Tensor:
        """Give one value a picture, shape (N,)."""
        if min(output.shape[2:]) < WINDOW:
            raise OptionError(
                f"ssim needs pictures of at least {WINDOW}x{WINDOW}, not "
                f"{output.shape[2]}x{output.shape[3]}; train on larger crops"
            )
        return 1 - _ssim_parts(output, reference)[0].mean(1)


def multi_scale_ssim(output: Tensor, reference: Tensor) -> Tensor:
    """Multi-scale SSIM (Wang et al., Asilomar 2003) of NCHW batches, shape (N,).

    Raises
    ------
    OptionError
        If a side is shorter than 176 pixels, where the fifth scale has no full window.
    """
    shortest = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)
    if min(output.shape[2:]) < shortest:
        raise OptionError(
            f"ms_ssim needs pictures of at least {shortest}x{shortest}, not "
            f"{output.shape[2]}x{output.shape[3]}; use larger crops, or ssim"
        )
    result = output.new_ones(output.shape[:2])
    for scale, weight in enumerate(SCALE_WEIGHTS):
        whole, structure = _ssim_parts(output, reference)
        last = scale == len(SCALE_WEIGHTS) - 1
        # a negative structure has no real power; clamped a little above 0 to keep its gradient
        result = result * (whole if last else structure).clamp(min=1e-4) ** weight
        output, reference = F.avg_pool2d(output, 2), F.avg_pool2d(reference, 2)
    return result.mean(1)


class MSSSIM(PictureLoss):
    """One minus multi-scale SSIM (Wang et al., Asilomar 2003), range [0, 1], sides from 176.

    Examples
    --------
    >>> picture = torch.rand(1, 3, 176, 176)
    >>> float(MSSSIM()(picture, picture)) < 1e-6
    True
    """

    def per_picture(self, output: Tensor, reference: Tensor) -> Tensor:
        """Give one value a picture, shape (N,)."""
        return 1 - multi_scale_ssim(output, reference)
