"""The plugin is right: every check of enhancekit's conformance kit, one test each."""

from __future__ import annotations

from collections.abc import Callable

from enhancekit.testing import BlockCase, PluginCase, parametrize_with_checks


@parametrize_with_checks(PluginCase("acme"), BlockCase("acme:fast"))
def test_conformance(check: Callable[[], None]) -> None:
    check()
