"""Each check of losses and metrics fails on what breaks exactly it, and on nothing else."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from failing import failing
from torch import nn

from enhancekit import LossSpec, MetricSpec, hookimpl
from enhancekit.errors import OptionError
from enhancekit.testing import (
    LossCase,
    MetricCase,
    check_loss,
    check_metric,
    checks_of,
    isolated_plugins,
)


class Mended(nn.Module):
    """Mean squared error; what the broken losses would be without their one fault."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, output, reference):
        if output.shape != reference.shape:
            raise OptionError(f"{output.shape} is not {reference.shape}")
        each = self.each(output, reference)
        return each.mean() if self.reduction == "mean" else each

    def each(self, output, reference):
        return ((output - reference) ** 2).flatten(1).mean(1)


class WithConstants(Mended):
    def __init__(self, reduction="mean"):
        super().__init__(reduction)
        self.register_buffer("kernel", torch.tensor([[[[1.0, -1.0]]]]).repeat(3, 1, 1, 1))

    def each(self, output, reference):
        slopes = (F.conv2d(x, self.kernel, groups=3) for x in (output, reference))
        return super().each(*slopes) + 0.1 * super().each(output, reference)


class NotZero(Mended):
    def each(self, output, reference):
        return super().each(output, reference) + 0.01


class Detached(Mended):
    def each(self, output, reference):
        return super().each(output, reference) + super().each(output.detach(), reference)


class NoGradient(Mended):
    def each(self, output, reference):
        return super().each(output, reference).detach()


class Summed(Mended):
    def forward(self, output, reference):
        return super().forward(output, reference) * (1 if self.reduction == "none" else len(output))


class NotEach(Mended):
    def forward(self, output, reference):
        return super().forward(output, reference).mean()


class NotReduced(Mended):
    def forward(self, output, reference):
        super().forward(output, reference)
        return self.each(output, reference)


class RootAtZero(Mended):
    def each(self, output, reference):
        return super().each(output, reference).sqrt()


class LossInPlace(Mended):
    def each(self, output, reference):
        output -= reference
        return (output**2).flatten(1).mean(1)


class Broadcasting(Mended):
    def forward(self, output, reference):
        each = self.each(output, reference)
        return each.mean() if self.reduction == "mean" else each


class Constant(Mended):
    def each(self, output, reference):
        return 0 * super().each(output, reference)


class PlainWeights(Mended):
    def __init__(self, reduction="mean"):
        super().__init__(reduction)
        self.weights = torch.tensor([0.3, 0.6, 0.1]).view(3, 1, 1)

    def each(self, output, reference):
        return ((output - reference) ** 2 * self.weights).flatten(1).mean(1)


class MovedWeights(PlainWeights):
    def each(self, output, reference):
        return ((output - reference) ** 2 * self.weights.to(output)).flatten(1).mean(1)


LOSSES = {
    "zero_at_identity": (NotZero, r"gives 0\.01 for equal pictures; .* zero_at_identity=False"),
    "gradient_is_true": (Detached, r"small steps measure .*; a part of it is detached"),
    "reductions_are_true": (Summed, "reduce by the mean"),
    "finite_on_extremes": (RootAtZero, r"\(black\) against a reference \(black\); .* under roots"),
    "inputs_are_untouched": (LossInPlace, r"instead of `x -= y`"),
    "refuses_unequal_shapes": (Broadcasting, "raise .*OptionError where"),
    "computes_on_one_device": (PlainWeights, r"stays on the CPU \(weights\); .*register_buffer"),
}


def same_shape(output, reference):
    if output.shape != reference.shape:
        raise OptionError(f"{output.shape} is not {reference.shape}")


def mean_error(output, reference):
    same_shape(output, reference)
    return float(np.abs(output - reference).mean())


def upside_down(output, reference):
    return -mean_error(output, reference)


def flat(output, reference):
    return 0.0 * mean_error(output, reference)


def lopsided(output, reference):
    return mean_error(output, reference) * float(1 + reference.mean())


def other_values(output, reference):
    return 1.01 * mean_error(output, reference)


def by_range(output, reference):
    same_shape(output, reference)
    both = np.stack((output, reference))
    with np.errstate(all="ignore"):
        return float(np.float64(mean_error(output, reference)) / np.float64(np.ptp(both)))


def in_place(output, reference):
    same_shape(output, reference)
    output -= reference
    return float(np.abs(output).mean())


def by_colour(output, reference):
    same_shape(output, reference)
    red, green, blue = np.moveaxis(output - reference, 2, 0)
    return float((np.abs(red) + np.abs(green) + np.abs(blue)).mean() / 3)


def broadcasting(output, reference):
    return float(np.abs(output - reference).mean())


def by_chance(output, reference):
    return mean_error(output, reference) + float(np.random.default_rng().uniform(0, 1e-9))


def text(output, reference):
    return str(mean_error(output, reference))


METRICS = {
    "direction_is_true": (upside_down, "with more and more noise; declare higher_is_better=True"),
    "deterministic": (by_chance, "for the same pictures; draw nothing at random"),
    "symmetry_is_true": (lopsided, "with output and reference exchanged; .*symmetric=False"),
    "parity_is_true": (other_values, "where its reference gives .*range, window, border"),
    "finite_on_extremes": (by_range, "gives NaN; it must give a float"),
    "inputs_are_untouched": (in_place, "work on a copy"),
    "luma_is_true": (by_colour, r"\(H, W, 1\), .*; take them, or declare needs_colour=True"),
    "refuses_unequal_shapes": (broadcasting, "raise .*OptionError where"),
}


def name_of(made):
    return re.sub(r"(?<!^)(?=[A-Z])", "-", made.__name__).lower().replace("_", "-")


class Plugin:
    @hookimpl
    def enhancekit_losses(self):
        others = (Mended, MovedWeights, WithConstants, NoGradient, NotEach, NotReduced, Constant)
        for made in (*others, *(b for b, _ in LOSSES.values())):
            target = f"{__name__}:{made.__name__}"
            yield LossSpec(name=name_of(made), summary="x", target=target)

    @hookimpl
    def enhancekit_metrics(self):
        for made in (mean_error, flat, text, *(b for b, _ in METRICS.values())):
            yield MetricSpec(
                name=name_of(made),
                summary="x",
                target=f"{__name__}:{made.__name__}",
                higher_is_better=False,
                protocol="range [0, 1]",
            )


@pytest.fixture(autouse=True)
def _plugin():
    with isolated_plugins(kit=Plugin()):
        yield


class TestLoss:
    def test_every_check_has_a_loss_that_breaks_it(self):
        assert set(LOSSES) == set(checks_of(LossCase("kit:mended")))

    @pytest.mark.parametrize("check", LOSSES)
    def test_breaking_exactly_one(self, check):
        made, said = LOSSES[check]
        found = failing(LossCase(f"kit:{name_of(made)}"))
        assert set(found) == {check}
        assert re.search(said, found[check])

    @pytest.mark.parametrize(
        ("made", "check", "said"),
        [
            (NoGradient, "gradient_is_true", "a value without gradient"),
            (NotEach, "reductions_are_true", 'with reduction="none"'),
            (NotReduced, "reductions_are_true", "must be a scalar"),
            (Constant, "zero_at_identity", "a loss grows with the error"),
        ],
    )
    def test_other_ways_to_break_it(self, made, check, said):
        assert said in failing(LossCase(f"kit:{name_of(made)}"))[check]

    @pytest.mark.parametrize("name", ["mended", "moved-weights", "with-constants"])
    def test_mended(self, name):
        assert {o.status for o in check_loss(f"kit:{name}")} == {"passed"}

    def test_what_does_not_claim_zero_is_not_held_to_it(self):
        assert failing(LossCase("kit:not-zero", zero_at_identity=False)) == {}


class TestMetric:
    @staticmethod
    def case(made):
        reference = mean_error if made is not by_range else None
        other = made in (upside_down, lopsided)
        return MetricCase(f"kit:{name_of(made)}", reference=None if other else reference)

    def test_every_check_has_a_metric_that_breaks_it(self):
        assert set(METRICS) == set(checks_of(MetricCase("kit:mean-error")))

    @pytest.mark.parametrize("check", METRICS)
    def test_breaking_exactly_one(self, check):
        made, said = METRICS[check]
        found = failing(self.case(made))
        assert set(found) == {check}
        assert re.search(said, found[check])

    def test_mended(self):
        found = check_metric("kit:mean-error", reference=mean_error)
        assert {o.status for o in found} == {"passed"}

    def test_what_does_not_claim_symmetry_is_not_held_to_it(self):
        assert failing(MetricCase("kit:lopsided", symmetric=False)) == {}

    @pytest.mark.parametrize(
        ("made", "said"),
        [(flat, "follows neither direction"), (text, "gives a str; it must give a float")],
    )
    def test_other_ways_to_break_the_direction(self, made, said):
        assert said in failing(self.case(made))["direction_is_true"]
