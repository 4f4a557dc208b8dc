"""Checks of a loss: zero where it claims to be, a true gradient, a mean over the batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from enhancekit.errors import ConformanceError
from enhancekit.testing.cases import LossCase, NotApplicable
from enhancekit.testing.devices import require_one_device
from enhancekit.testing.refusal import refused
from enhancekit.testing.samples import extreme, noise, smooth

__all__ = [
    "LOSS_CHECKS",
    "computes_on_one_device",
    "finite_on_extremes",
    "gradient_is_true",
    "inputs_are_untouched",
    "reductions_are_true",
    "refuses_unequal_shapes",
    "zero_at_identity",
]


STEPS = (1e-3, 1e-4)
"""The larger is exact where a loss is smooth, the smaller where it has many kinks."""


def _pair(case: LossCase, n: int = 2) -> tuple[Tensor, Tensor]:
    reference = torch.cat([smooth(case.size, case.size, seed) for seed in range(n)]) + 0.2
    difference = 0.2 * (noise(n, 3, case.size, case.size, seed=9) - 0.4)
    return (reference + difference).clamp(0, 1), reference


def _value(loss: nn.Module, output: Tensor, reference: Tensor) -> Tensor:
    """Compare copies, so that a loss that changes its pictures fails in one check only."""
    found: Tensor = loss(output.clone(), reference.clone())
    return found


def zero_at_identity(case: LossCase) -> None:
    """Require 0 where output and reference are equal, and more where they are not."""
    if not case.zero_at_identity:
        raise NotApplicable("it does not claim to be 0 at identity")
    loss = case.make()
    output, reference = _pair(case)
    with torch.no_grad():
        same, other = (
            float(_value(loss, reference, reference)),
            float(_value(loss, output, reference)),
        )
    if abs(same) > 1e-5:
        raise ConformanceError(
            f"{case.entry} gives {same:.3g} for equal pictures; subtract what is left, or give "
            "zero_at_identity=False to the check and say so in the summary"
        )
    if not other > same:
        raise ConformanceError(
            f"{case.entry} gives {other:.3g} for pictures that differ and {same:.3g} for equal "
            "ones; a loss grows with the error"
        )


def gradient_is_true(case: LossCase) -> None:
    """Require that its gradient is the slope that small steps measure."""
    loss = case.make().double()  # with its constants, which have the steps' precision then
    output, reference = _pair(case)
    output = output.double().requires_grad_()
    reference = reference.double()
    value = _value(loss, output, reference)
    if not value.requires_grad:
        raise ConformanceError(
            f"{case.entry} gives a value without gradient; compute it from `output` by torch's "
            "functions, without .item(), .detach() or numpy"
        )
    (gradient,) = torch.autograd.grad(value.sum(), output)
    for name, direction in _directions(output.detach(), reference, gradient):
        claimed = float((gradient * direction).sum())
        allowed = 0.05 * abs(claimed) + 2e-3 * float(gradient.abs().sum())
        measured = [_slope(loss, output, reference, direction, step) for step in STEPS]
        if not any(abs(slope - claimed) <= allowed + lost for slope, lost in measured):
            raise ConformanceError(
                f"the gradient of {case.entry} says {claimed:.3g} {name}, small steps measure "
                f"{measured[0][0]:.3g}; a part of it is detached, or its backward is wrong"
            )


def _slope(
    loss: nn.Module, output: Tensor, reference: Tensor, direction: Tensor, step: float
) -> tuple[float, float]:
    """Measure the slope, and say how much of it 32 bits may have lost."""
    with torch.no_grad():
        ahead, behind = (
            float(_value(loss, output + way * step * direction, reference).sum()) for way in (1, -1)
        )
    return (ahead - behind) / (2 * step), 4e-7 * abs(ahead) / step


def _directions(
    output: Tensor, reference: Tensor, gradient: Tensor
) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    yield "along the gradient", gradient.sign()
    yield "towards the reference", (reference - output).sign()
    yield "towards brighter", torch.ones_like(output)
    for _ in range(2):
        # signs of squares of 4x4, so that neighbours do not cancel
        height, width = (-(-s // 4) for s in output.shape[2:])
        coarse = torch.randn((*output.shape[:2], height, width), generator=generator).sign()
        fine = nn.functional.interpolate(coarse, scale_factor=4.0)
        yield "at random", fine[..., : output.shape[2], : output.shape[3]].to(output)


def reductions_are_true(case: LossCase) -> None:
    """Require the mean over a batch, and with ``reduction="none"`` each picture's value."""
    loss = case.make()
    output, reference = _pair(case, n=3)
    with torch.no_grad():
        whole = _value(loss, output, reference)
        if whole.shape != ():
            raise ConformanceError(
                f"{case.entry} gives the shape {tuple(whole.shape)}; it must be a scalar, e.g. by "
                ".mean()"
            )
        single = torch.stack(
            [_value(loss, output[i : i + 1], reference[i : i + 1]) for i in range(3)]
        )
        if not torch.allclose(whole, single.mean(), rtol=1e-4, atol=1e-6):
            raise ConformanceError(
                f"{case.entry} gives {float(whole):.4g} for a batch whose pictures give "
                f"{float(single.mean()):.4g} on average; reduce by the mean, so that the size of "
                "the batch does not change the learning rate"
            )
        if case.reduces:
            each = _value(case.make(reduction="none"), output, reference)
            if each.shape != (3,) or not torch.allclose(each, single, rtol=1e-4, atol=1e-6):
                raise ConformanceError(
                    f'{case.entry} with reduction="none" gives the shape {tuple(each.shape)} or '
                    "other values than each picture alone; give one value a picture, shape (N,)"
                )


def finite_on_extremes(case: LossCase) -> None:
    """Require a finite value and gradient for constants, equal and opposite pictures."""
    loss = case.make()
    shape = (1, 3, case.size, case.size)
    extremes = {kind: extreme(kind, *shape) for kind in ("black", "white", "chequered")}
    extremes["noise"] = noise(*shape)
    pairs = [(a, b) for a in extremes for b in extremes if a == b or "noise" not in (a, b)]
    for a, b in pairs:
        output = extremes[a].clone().requires_grad_()
        value = _value(loss, output, extremes[b])
        gradient = output.new_zeros(())
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), output)
        if not (bool(value.isfinite().all()) and bool(gradient.isfinite().all())):
            raise ConformanceError(
                f"{case.entry} gives a value or gradient that is NaN or infinite for an output "
                f"({a}) against a reference ({b}); add a small constant under roots, in logarithms "
                "and in denominators"
            )


def inputs_are_untouched(case: LossCase) -> None:
    """Require that neither picture is changed in place."""
    loss = case.make()
    pair = _pair(case)
    before = [x.clone() for x in pair]
    with torch.no_grad():
        loss(*pair)
    if not all(torch.equal(*both) for both in zip(pair, before, strict=True)):
        raise ConformanceError(
            f"{case.entry} changes a picture it was given in place; write `x = x - y` instead of "
            "`x -= y`"
        )


def refuses_unequal_shapes(case: LossCase) -> None:
    """Require an error of the family for pictures of differing shapes, no broadcasting."""
    loss = case.make()
    output, reference = _pair(case)
    with torch.no_grad():
        refused(case.entry, lambda: loss(output, reference.mean(dim=1, keepdim=True)))


def computes_on_one_device(case: LossCase) -> None:
    """Require that its constants go where it goes, as buffers do."""
    loss = case.make()
    pair = _pair(case)
    require_one_device(case.entry, loss, lambda: loss(*pair))


LOSS_CHECKS = (
    zero_at_identity,
    gradient_is_true,
    reductions_are_true,
    finite_on_extremes,
    inputs_are_untouched,
    refuses_unequal_shapes,
    computes_on_one_device,
)
