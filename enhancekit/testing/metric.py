"""Checks of a metric: its direction, its symmetry, and the values of its reference."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enhancekit.errors import ConformanceError
from enhancekit.testing.cases import MetricCase, NotApplicable
from enhancekit.testing.refusal import refused
from enhancekit.testing.samples import EXTREMES, extreme, noise, smooth

__all__ = [
    "METRIC_CHECKS",
    "deterministic",
    "direction_is_true",
    "finite_on_extremes",
    "inputs_are_untouched",
    "luma_is_true",
    "parity_is_true",
    "refuses_unequal_shapes",
    "symmetry_is_true",
]

Array = NDArray[np.float32]


def _reference(case: MetricCase) -> Array:
    picture = smooth(case.size, case.size + 3)[0].permute(1, 2, 0).numpy() + np.float32(0.3)
    return np.ascontiguousarray(picture, np.float32)


def _worse(reference: Array, amount: float, seed: int = 5) -> Array:
    height, width, channels = reference.shape
    added = noise(1, channels, height, width, seed)[0].permute(1, 2, 0).numpy() - 0.5
    done: Array = (reference + amount * added).clip(0, 1).astype(np.float32)
    return done


def _value(case: MetricCase, output: Array, reference: Array) -> float:
    found = case.entry.target()(output.copy(), reference.copy())
    if isinstance(found, float) and not math.isnan(found):
        return float(found)
    what = "NaN" if isinstance(found, float) else f"a {type(found).__name__}"
    raise ConformanceError(f"{case.entry} gives {what}; it must give a float that is a number")


def direction_is_true(case: MetricCase) -> None:
    """Require that equal pictures are best, and more noise is worse, as it declares."""
    reference = _reference(case)
    values = [_value(case, _worse(reference, a), reference) for a in (0.0, 0.05, 0.2, 0.5)]
    higher = case.entry.spec.higher_is_better
    falling = all(a > b for a, b in pairwise(values))
    rising = all(a < b for a, b in pairwise(values))
    if (higher and falling) or (not higher and rising):
        return
    shown = ", ".join(f"{v:.4g}" for v in values)
    turned = rising if higher else falling
    raise ConformanceError(
        f"{case.entry} declares higher_is_better={higher}, but gives {shown} for pictures with "
        "more and more noise; "
        + (f"declare higher_is_better={not higher}" if turned else "it follows neither direction")
    )


def symmetry_is_true(case: MetricCase) -> None:
    """Require that output and reference can be exchanged, where it claims so."""
    if not case.symmetric:
        raise NotApplicable("it does not claim to be symmetric")
    reference = _reference(case)
    output = _worse(reference, 0.3) * np.float32(0.8)
    there, back = _value(case, output, reference), _value(case, reference, output)
    if not math.isclose(there, back, rel_tol=1e-5, abs_tol=1e-9):
        raise ConformanceError(
            f"{case.entry} gives {there:.6g}, but {back:.6g} with output and reference exchanged; "
            "give symmetric=False to the check if that is meant"
        )


def parity_is_true(case: MetricCase) -> None:
    """Require the values of the implementation it claims to equal."""
    if case.reference is None:
        raise NotApplicable("it claims no other implementation's values")
    reference = _reference(case)
    for amount in (0.02, 0.1, 0.4):
        output = _worse(reference, amount)
        ours, theirs = _value(case, output, reference), float(case.reference(output, reference))
        if not math.isclose(ours, theirs, rel_tol=1e-4, abs_tol=1e-6):
            raise ConformanceError(
                f"{case.entry} gives {ours:.6g} where its reference gives {theirs:.6g}; compare "
                "range, window, border and colour of the two, and name them in `protocol`"
            )


def finite_on_extremes(case: MetricCase) -> None:
    """Require numbers for extremes; only equal pictures may be infinitely good."""
    kinds = {
        kind: extreme(kind, 1, 3, case.size, case.size)[0].permute(1, 2, 0).numpy()
        for kind in EXTREMES
    }
    for a, output in kinds.items():
        for b, reference in kinds.items():
            found = _value(case, output, reference)
            if a != b and math.isinf(found):
                raise ConformanceError(
                    f"{case.entry} is infinite for an output ({a}) against a reference ({b})"
                )


def inputs_are_untouched(case: MetricCase) -> None:
    """Require that neither picture is changed in place."""
    reference = _reference(case)
    output = _worse(reference, 0.2)
    pair = (output.copy(), reference.copy())
    case.entry.target()(*pair)
    if not (np.array_equal(pair[0], output) and np.array_equal(pair[1], reference)):
        raise ConformanceError(
            f"{case.entry} changes a picture it was given in place; work on a copy"
        )


def deterministic(case: MetricCase) -> None:
    """Require the same value again, another pair between."""
    reference = _reference(case)
    output = _worse(reference, 0.2)
    values = []
    for amount in (0.1, 0.5):
        _value(case, _worse(reference, amount), reference)
        values.append(_value(case, output, reference))
    before, again = values
    if again != before:
        raise ConformanceError(
            f"{case.entry} gives {before:.9g}, then {again:.9g} for the same pictures; draw "
            "nothing at random, and keep nothing from one pair to the next"
        )


def luma_is_true(case: MetricCase) -> None:
    """Require that it compares one channel too, unless it declares needs_colour."""
    if case.entry.spec.needs_colour:
        raise NotApplicable("it declares needs_colour=True")
    reference = _reference(case)[..., :1]
    try:
        _value(case, _worse(reference, 0.2), reference)
    except ConformanceError:
        raise
    except Exception as error:
        raise ConformanceError(
            f"{case.entry} fails on arrays of shape (H, W, 1), as protocols of luma give: "
            f"{type(error).__name__}: {error}; take them, or declare needs_colour=True"
        ) from error


def refuses_unequal_shapes(case: MetricCase) -> None:
    """Require an error of the family for differing shapes, no broadcasting or resizing."""
    reference: Any = _reference(case)
    target = case.entry.target()
    refused(case.entry, lambda: target(_worse(reference, 0.1), reference[:1]))


METRIC_CHECKS = (
    deterministic,
    direction_is_true,
    symmetry_is_true,
    parity_is_true,
    finite_on_extremes,
    inputs_are_untouched,
    luma_is_true,
    refuses_unequal_shapes,
)
