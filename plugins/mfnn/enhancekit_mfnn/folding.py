"""Exact shortcuts through chains of linear layers, in training as well as in use.

A 3x3 convolution followed by a 5x5 one is one 7x7 convolution; a 1x1 in front of a 5x5 is a 5x5;
doubling by bilinear interpolation in front of a 5x5 is a transposed 8x8 of stride 2 with sixteen
products for each output instead of twenty-five. The composed kernels are functions of the
parameters, so gradients flow through them. Zero padding and the interpolation's clamping make a
narrow border differ; it is computed layer by layer and put in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["conv_of_conv", "conv_of_project_and_double", "doubling_kernel"]

_DOUBLING = (0.25, 0.75, 0.75, 0.25)
"""What a sample of the small picture gives to four neighbours in the doubled one."""

PAYS = 2**21
"""Values in the result below which the border costs more than is saved (measured on a CPU)."""


class _Border(torch.autograd.Function):
    """Overwrite the border of a picture in place: rows in full, columns between them."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, *edges: Tensor) -> Tensor:
        ctx.ring = edges[0].shape[2]
        ctx.mark_dirty(y)
        return _overwrite(y, *edges)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        r = ctx.ring
        inner = grad.clone()
        parts = [inner[:, :, :r], inner[:, :, -r:], inner[:, :, r:-r, :r], inner[:, :, r:-r, -r:]]
        taken = [part.clone() for part in parts]
        for part in parts:
            part.zero_()
        return inner, *taken


def _overwrite(y: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    r = top.shape[2]
    y[:, :, :r], y[:, :, -r:] = top, bottom
    y[:, :, r:-r, :r], y[:, :, r:-r, -r:] = left, right
    return y


def _with_border(y: Tensor, ring: int, edge: Callable[[int, bool], Tensor]) -> Tensor:
    """Replace a ring of pixels; ``edge(dim, at_end)`` computes the outermost rows or columns."""
    rows = [edge(2, False), edge(2, True)]
    columns = [edge(3, False)[:, :, ring:-ring], edge(3, True)[:, :, ring:-ring]]
    if torch.onnx.is_in_onnx_export():  # engines copy the whole picture for each assignment
        middle = torch.cat((columns[0], y[:, :, ring:-ring, ring:-ring], columns[1]), dim=3)
        return torch.cat((rows[0], middle, rows[1]), dim=2)
    if torch.is_grad_enabled():
        return _Border.apply(y, *rows, *columns)  # type: ignore[no-any-return,no-untyped-call]
    return _overwrite(y, *rows, *columns)


def _outermost(x: Tensor, dim: int, at_end: bool, size: int) -> Tensor:
    return x.narrow(dim, x.shape[dim] - size if at_end else 0, size)


def _edge_conv(x: Tensor, weight: Tensor, bias: Tensor | None, dim: int, at_end: bool) -> Tensor:
    """Convolve a strip cut from a picture: zeros beyond the picture, nothing at the cut."""
    pad = weight.shape[2] // 2
    along, before, after = (pad, pad), 0 if at_end else pad, pad if at_end else 0
    across = (before, after)
    return F.conv2d(F.pad(x, (*along, *across) if dim == 2 else (*across, *along)), weight, bias)


def _pays(x: Tensor, conv: nn.Conv2d) -> bool:
    if torch.onnx.is_in_onnx_export():  # sizes are symbols; only what holds for all may be used
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return all(statically_known_true(side >= 16) for side in x.shape[2:])
    return min(x.shape[2:]) >= 16 and x[:, 0].numel() * conv.out_channels >= PAYS


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def _laid_out(kernel: Tensor, like: Tensor) -> Tensor:
    """Give a composed kernel the memory layout of a parameter, which decides the output's."""
    if like.is_contiguous(memory_format=torch.channels_last):
        return kernel.contiguous(memory_format=torch.channels_last)
    return kernel.contiguous()


def conv_of_conv(x: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """Give ``second(first(x))`` for a 3x3 and a 5x5 convolution with "same" zero padding.

    Parameters
    ----------
    x : Tensor
        Shape (N, C, H, W).
    first, second : torch.nn.Conv2d
        In this order.
    """
    if not _pays(x, second):
        return second(first(x))  # type: ignore[no-any-return]
    with torch.autocast(x.device.type, enabled=False):
        weight = F.conv2d(first.weight.transpose(0, 1), second.weight.flip(2, 3), padding=4)
        weight = _laid_out(weight.transpose(0, 1), second.weight)
        bias = _bias(second) + torch.einsum("omab,m->o", second.weight, _bias(first))
    y = F.conv2d(x, weight, bias, padding=3)

    def edge(dim: int, at_end: bool) -> Tensor:
        strip = _outermost(x, dim, at_end, 5)
        between = _edge_conv(strip, first.weight, first.bias, dim, at_end)
        return _edge_conv(between, second.weight, second.bias, dim, at_end)

    return _with_border(y, 2, edge)


def doubling_kernel(weight: Tensor) -> Tensor:
    """Compose bilinear doubling with a 5x5 convolution.

    Parameters
    ----------
    weight : Tensor
        Shape (O, I, 5, 5).

    Returns
    -------
    Tensor
        Shape (I, O, 8, 8), for ``conv_transpose2d`` with stride 2 and padding 3.

    Examples
    --------
    >>> doubling_kernel(torch.ones(1, 1, 5, 5)).sum() / 25  # each sample is spread over four
    tensor(4.)
    """
    spread = torch.zeros(8, 5, device=weight.device, dtype=weight.dtype)
    for tap in range(5):
        spread[4 - tap : 8 - tap, tap] = spread.new_tensor(_DOUBLING)
    return torch.einsum("ka,oiab,lb->iokl", spread, weight, spread)


def conv_of_project_and_double(
    fine: Tensor, project: nn.Conv2d | None, coarse: Tensor, conv: nn.Conv2d
) -> Tensor:
    """Give ``conv(cat(project(fine), double(coarse)))`` without making any of them.

    Parameters
    ----------
    fine : Tensor
        Shape (N, C, H, W).
    project : torch.nn.Conv2d, optional
        A 1x1 convolution.
    coarse : Tensor
        Shape (N, D, H/2, W/2).
    conv : torch.nn.Conv2d
        A 5x5 convolution with "same" zero padding.
    """
    double = torch.nn.functional.interpolate
    if not _pays(fine, conv):
        given = fine if project is None else project(fine)
        both = torch.cat((given, double(coarse, scale_factor=2.0, mode="bilinear")), dim=1)
        return conv(both)  # type: ignore[no-any-return]
    if project is not None and project.out_channels < project.in_channels:
        fine, project = project(fine), None  # 25 products for each channel it takes away
    ours, theirs = conv.weight.split((conv.in_channels - coarse.shape[1], coarse.shape[1]), dim=1)
    bias, at_border = _bias(conv), None
    with torch.autocast(fine.device.type, enabled=False):
        kernel = _laid_out(doubling_kernel(theirs), conv.weight)
        if project is not None:
            # zero padding hides the projection's bias beyond the border: 5x5 kinds of places
            shifts = F.conv2d(
                _bias(project).view(1, -1, 1, 1).expand(-1, -1, 5, 5), ours, padding=2
            )
            ours = torch.einsum("omab,mc->ocab", ours, project.weight[:, :, 0, 0])
            ours = _laid_out(ours, conv.weight)
            bias, at_border = bias + shifts[0, :, 2, 2], shifts
    y = F.conv2d(fine, ours, bias, padding=2)
    y += F.conv_transpose2d(coarse, kernel, stride=2, padding=3)

    def edge(dim: int, at_end: bool) -> Tensor:
        strip = _outermost(coarse, dim, at_end, 4)
        strip = _outermost(double(strip, scale_factor=2.0, mode="bilinear"), dim, at_end, 5)
        near = _edge_conv(strip, theirs, None, dim, at_end)
        near = near + _edge_conv(_outermost(fine, dim, at_end, 5), ours, conv.bias, dim, at_end)
        if at_border is None:
            return near
        kinds = torch.full((fine.shape[5 - dim],), 2, device=fine.device)
        kinds[:2], kinds[-2:] = torch.tensor((0, 1)), torch.tensor((3, 4))
        along = at_border.index_select(5 - dim, kinds)
        return near + _outermost(along, dim, at_end, 3)

    return _with_border(y, 3, edge)
