"""Run the checks of a case: all at once, or each as a test of pytest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from enhancekit.errors import ConformanceError, EnhanceKitError, OptionError
from enhancekit.testing.backbone import BACKBONE_CHECKS
from enhancekit.testing.block import BLOCK_CHECKS
from enhancekit.testing.cases import (
    BackboneCase,
    BlockCase,
    Case,
    EnhancerCase,
    LossCase,
    MetricCase,
    NotApplicable,
    PluginCase,
)
from enhancekit.testing.enhancer import ENHANCER_CHECKS
from enhancekit.testing.loss import LOSS_CHECKS
from enhancekit.testing.metric import METRIC_CHECKS
from enhancekit.testing.plugin import PLUGIN_CHECKS

__all__ = ["Outcome", "checks_of", "parametrize_with_checks", "run_checks"]

Check = Callable[[Any], None]
CHECKS: Mapping[type[Case], tuple[Check, ...]] = {
    PluginCase: PLUGIN_CHECKS,
    BlockCase: BLOCK_CHECKS,
    BackboneCase: BACKBONE_CHECKS,
    EnhancerCase: ENHANCER_CHECKS,
    LossCase: LOSS_CHECKS,
    MetricCase: METRIC_CHECKS,
}
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check found."""

    check: str
    """Name of the check."""
    status: Literal["passed", "failed", "expected failure", "not applicable"]
    """What came of it."""
    reason: str = ""
    """Why it failed, was expected to, or does not apply."""


def checks_of(case: Case) -> Mapping[str, Callable[[], None]]:
    """Return the checks of a case by name, each ready to be called.

    One raises `ConformanceError` where the case fails it, and `NotApplicable` where it has no say.

    Examples
    --------
    >>> list(checks_of(PluginCase("acme")))[:2]
    ['registers', 'names_are_normalised']
    """
    return {check.__name__: _bound(check, case) for check in CHECKS[type(case)]}


def _bound(check: Check, case: Case) -> Callable[[], None]:
    def run() -> None:
        try:
            check(case)
        except (ConformanceError, NotApplicable):
            raise
        except Exception as error:
            said = (
                error if isinstance(error, EnhanceKitError) else f"{type(error).__name__}: {error}"
            )
            raise ConformanceError(f"{case} failed in {check.__name__}: {said}") from error

    return run


def _known(case: Case, expected: Mapping[str, str]) -> Mapping[str, Callable[[], None]]:
    checks = checks_of(case)
    if unknown := sorted(set(expected) - set(checks)):
        raise OptionError(
            f"expected_failed_checks names {', '.join(unknown)}; the checks of {case} are "
            + ", ".join(checks)
        )
    return checks


def run_checks(case: Case, expected_failed_checks: Mapping[str, str] = _NONE) -> Sequence[Outcome]:
    """Run every check of a case.

    Parameters
    ----------
    case : Case
        What to check.
    expected_failed_checks : mapping of str to str
        Checks that are known to fail, with the reason. One that passes all the same is an error,
        so that the list never outlives its cause.

    Returns
    -------
    sequence of Outcome
        One a check; none has failed.

    Raises
    ------
    ConformanceError
        If a check fails unexpectedly, or passes unexpectedly; names every one.
    OptionError
        If there is no check of an expected name.
    """
    outcomes = [
        _outcome(name, check, expected_failed_checks.get(name))
        for name, check in _known(case, expected_failed_checks).items()
    ]
    failed = [o for o in outcomes if o.status == "failed"]
    if failed:
        raise ConformanceError(
            f"{case} fails {len(failed)} of {len(outcomes)} checks:"
            + "".join(f"\n  {o.check}: {o.reason}" for o in failed)
        )
    return outcomes


def _outcome(name: str, check: Callable[[], None], expected: str | None) -> Outcome:
    try:
        check()
    except NotApplicable as why:
        return Outcome(name, "not applicable", str(why))
    except ConformanceError as error:
        if expected is not None:
            return Outcome(name, "expected failure", expected)
        return Outcome(name, "failed", str(error))
    if expected is not None:
        return Outcome(name, "failed", f"it passes, but was expected to fail: {expected}")
    return Outcome(name, "passed")


def parametrize_with_checks(
    *cases: Case, expected_failed_checks: Mapping[str, str] = _NONE
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a test of pytest run once for every check of every case.

    Parameters
    ----------
    *cases : Case
        What to check.
    expected_failed_checks : mapping of str to str
        Checks that are known to fail, with the reason: strict, so that a check that passes all
        the same fails the test.

    Returns
    -------
    callable
        Decorates a test with the one argument ``check``, which it calls.

    Raises
    ------
    OptionError
        If there is no check of an expected name, or pytest is not installed.

    Examples
    --------
    >>> @parametrize_with_checks(MetricCase("psnr"), LossCase("l1"))
    ... def test_conformance(check):
    ...     check()
    """
    try:
        import pytest
    except ModuleNotFoundError as error:
        raise OptionError(
            "parametrize_with_checks needs pytest; install it with: pip install pytest"
        ) from error

    def skipping(run: Callable[[], None]) -> Callable[[], None]:
        def check() -> None:
            try:
                run()
            except NotApplicable as why:
                pytest.skip(str(why))

        return check

    def marks(name: str) -> tuple[pytest.MarkDecorator, ...]:
        if name not in expected_failed_checks:
            return ()
        reason = expected_failed_checks[name]
        return (pytest.mark.xfail(reason=reason, strict=True, raises=ConformanceError),)

    parameters = [
        pytest.param(skipping(check), id=f"{case}-{name}", marks=marks(name))
        for case in cases
        for name, check in _known(case, expected_failed_checks).items()
    ]
    decorate: Callable[[Callable[..., None]], Callable[..., None]]
    decorate = pytest.mark.parametrize("check", parameters)
    return decorate
