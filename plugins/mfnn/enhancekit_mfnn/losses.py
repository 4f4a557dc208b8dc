"""The two composite losses the report trained with."""

from __future__ import annotations

from torch import nn

from enhancekit.plugins import host

__all__ = ["report_first", "report_second"]


def report_first(vgg_weights: str | None = None) -> nn.Module:
    """``0.5*l1 + 0.7*vgg + 0.5*ms_ssim``.

    Parameters
    ----------
    vgg_weights : str, optional
        Path of VGG19 weights; see the ``vgg`` loss.
    """
    options = {"vgg": {"weights": vgg_weights}}
    loss: nn.Module = host().losses.create("0.5*l1 + 0.7*vgg + 0.5*ms_ssim", options=options)
    return loss


def report_second() -> nn.Module:
    """``l1 + 0.1*ssim + grad``.

    Examples
    --------
    >>> import torch
    >>> picture = torch.rand(1, 3, 16, 16)
    >>> float(report_second()(picture, picture)) < 1e-6
    True
    """
    loss: nn.Module = host().losses.create("l1 + 0.1*ssim + grad")
    return loss
