"""The plugin passes enhancekit's conformance kit: its package and every enhancer."""

from __future__ import annotations

from enhancekit.plugins import host
from enhancekit.testing import EnhancerCase, PluginCase, parametrize_with_checks

NAMES = ("lime", "msrcr", "wavelet", "tv", "bicubic-x2", "lanczos-x2")


@parametrize_with_checks(PluginCase("classical"), *(EnhancerCase(f"classical:{n}") for n in NAMES))
def test_conformance(check):
    check()


def test_everything_registered_is_checked():
    (status,) = [s for s in host().statuses() if s.provider.plugin == "classical"]
    assert {e.spec.name for e in status.entries} == set(NAMES)
