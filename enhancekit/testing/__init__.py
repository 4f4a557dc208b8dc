"""The conformance kit: what plugin authors run to know that their plugin is right.

Each ``check_...`` runs every check of one registered thing and raises one `ConformanceError` that
names all that fail, with what to declare or write instead. `parametrize_with_checks` makes each
check a test of pytest.

Examples
--------
>>> from enhancekit.testing import check_metric
>>> {outcome.status for outcome in check_metric("psnr")} <= {"passed", "not applicable"}
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

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
from enhancekit.testing.isolation import isolated_plugins
from enhancekit.testing.runner import Outcome, checks_of, parametrize_with_checks, run_checks

__all__ = [
    "BackboneCase",
    "BlockCase",
    "Case",
    "EnhancerCase",
    "LossCase",
    "MetricCase",
    "NotApplicable",
    "Outcome",
    "PluginCase",
    "check_backbone",
    "check_block",
    "check_enhancer",
    "check_loss",
    "check_metric",
    "check_plugin",
    "checks_of",
    "isolated_plugins",
    "parametrize_with_checks",
]

_NONE: Mapping[str, str] = MappingProxyType({})


def check_plugin(
    name: str, *, expected_failed_checks: Mapping[str, str] = _NONE
) -> Sequence[Outcome]:
    """Check a plugin as a package, by the name of its entry point.

    Parameters
    ----------
    name : str
        Entry point in the group ``enhancekit`` of an installed distribution.
    expected_failed_checks : mapping of str to str
        Checks known to fail, with the reason; strict.

    Returns
    -------
    sequence of Outcome
        One a check.

    Raises
    ------
    ConformanceError
        Names every check that fails, and what to do.
    """
    return run_checks(PluginCase(name), expected_failed_checks)


def check_block(
    name: str, *, expected_failed_checks: Mapping[str, str] = _NONE, **case: Any
) -> Sequence[Outcome]:
    """Check a block; see `check_plugin`, and `BlockCase` for what can be given besides."""
    return run_checks(BlockCase(name, **case), expected_failed_checks)


def check_backbone(
    name: str, *, expected_failed_checks: Mapping[str, str] = _NONE, **case: Any
) -> Sequence[Outcome]:
    """Check a network; see `check_plugin`, and `BackboneCase` for what can be given besides."""
    return run_checks(BackboneCase(name, **case), expected_failed_checks)


def check_loss(
    name: str, *, expected_failed_checks: Mapping[str, str] = _NONE, **case: Any
) -> Sequence[Outcome]:
    """Check a loss; see `check_plugin`, and `LossCase` for what can be given besides.

    Examples
    --------
    >>> [o.status for o in check_loss("charbonnier")]
    ['passed', 'passed', 'passed', 'passed', 'passed', 'passed', 'passed']
    """
    return run_checks(LossCase(name, **case), expected_failed_checks)


def check_metric(
    name: str, *, expected_failed_checks: Mapping[str, str] = _NONE, **case: Any
) -> Sequence[Outcome]:
    """Check a metric; see `check_plugin`, and `MetricCase` for what can be given besides.

    Examples
    --------
    >>> {o.check: o.status for o in check_metric("mae")}["direction_is_true"]
    'passed'
    """
    return run_checks(MetricCase(name, **case), expected_failed_checks)


def check_enhancer(
    name: str, *, expected_failed_checks: Mapping[str, str] = _NONE, **case: Any
) -> Sequence[Outcome]:
    """Check an enhancer; see `check_plugin`, and `EnhancerCase` for what can be given besides.

    Examples
    --------
    >>> {o.check: o.status for o in check_enhancer("gamma")}["range_is_kept"]
    'passed'
    """
    return run_checks(EnhancerCase(name, **case), expected_failed_checks)
