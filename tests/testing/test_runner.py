"""Running checks: outcomes, failures that are expected, pytest, and isolated plugins."""

from __future__ import annotations

import pytest

import enhancekit
from enhancekit import plugins
from enhancekit.errors import ConformanceError, OptionError, PluginError, UnknownNameError
from enhancekit.testing import (
    MetricCase,
    check_metric,
    checks_of,
    isolated_plugins,
    parametrize_with_checks,
)

pytest_plugins = ["pytester"]

WRONG = {"reference": lambda output, reference: -1.0}


class TestAllAtOnce:
    def test_outcomes(self):
        found = {o.check: o for o in check_metric("psnr")}
        assert list(found) == list(checks_of(MetricCase("psnr")))
        assert found["direction_is_true"].status == "passed"
        assert found["parity_is_true"].status == "not applicable"
        assert "claims no other" in found["parity_is_true"].reason

    def test_every_failure_is_named(self):
        with pytest.raises(ConformanceError, match="mae fails 1 of 8 checks:\n  parity_is_true: "):
            check_metric("mae", **WRONG)

    def test_expected(self):
        found = check_metric("mae", expected_failed_checks={"parity_is_true": "#7"}, **WRONG)
        (expected,) = [o for o in found if o.status == "expected failure"]
        assert (expected.check, expected.reason) == ("parity_is_true", "#7")

    def test_expected_but_passing(self):
        with pytest.raises(ConformanceError, match="it passes, but was expected to fail: #7"):
            check_metric("mae", expected_failed_checks={"symmetry_is_true": "#7"})

    def test_no_such_check(self):
        with pytest.raises(
            OptionError, match="names symetry; the checks of mae are deterministic, dir"
        ):
            check_metric("mae", expected_failed_checks={"symetry": "#7"})

    def test_unknown_name(self):
        with pytest.raises(ConformanceError, match="did you mean 'psnr'"):
            check_metric("psnt")


class TestInPytest:
    def test_outcomes(self, pytester):
        pytester.makepyfile(
            """
            from enhancekit.testing import MetricCase, parametrize_with_checks

            wrong = MetricCase("mae", reference=lambda output, reference: -1.0)

            @parametrize_with_checks(MetricCase("mae"))
            def test_right(check):
                check()

            @parametrize_with_checks(wrong)
            def test_wrong(check):
                check()

            @parametrize_with_checks(wrong, expected_failed_checks={"parity_is_true": "#7"})
            def test_expected(check):
                check()

            @parametrize_with_checks(wrong, expected_failed_checks={"luma_is_true": "#8"})
            def test_strict(check):
                check()
            """
        )
        found = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rs", "-v")
        found.stdout.fnmatch_lines_random(
            [
                "*test_right?mae-parity_is_true? SKIPPED*",
                "*test_wrong?mae-parity_is_true? FAILED*",
                "*test_expected?mae-parity_is_true? XFAIL (#7)*",
                # strict: what passes all the same has no place in the list
                "*test_strict?mae-luma_is_true? FAILED*",
                "*claims no other implementation's values*",
            ]
        )
        found.assert_outcomes(passed=7 + 7 + 7 + 6, skipped=1, failed=1 + 2, xfailed=1)

    def test_no_such_check(self):
        with pytest.raises(OptionError, match="names symetry"):
            parametrize_with_checks(MetricCase("mae"), expected_failed_checks={"symetry": "#7"})


class Plugin:
    @enhancekit.hookimpl
    def enhancekit_losses(self):
        yield enhancekit.LossSpec(name="huber", summary="Huber", target="torch.nn:HuberLoss")


class Broken:
    @enhancekit.hookimpl
    def enhancekit_losses(self):
        raise OSError("in the hook")


@pytest.mark.usefixtures("fresh_host")
class TestIsolated:
    def test_nothing_but_the_core(self):
        before = plugins.host()
        with isolated_plugins() as host:
            assert plugins.host() is host
            assert [s.provider.plugin for s in host.statuses() if s.status == "ok"] == ["builtin"]
            assert "gamma" in enhancekit.enhancers
        assert plugins.host() is before

    def test_given(self):
        with isolated_plugins(acme=Plugin()):
            assert isinstance(enhancekit.losses.create("acme:huber"), object)
        with pytest.raises(UnknownNameError):
            enhancekit.losses.get("acme:huber")

    def test_installed(self, make_plugin):
        block = {"name": "good", "role": "r", "target": "x:y"}
        make_plugin(blocks=[block])
        make_plugin(blocks=[block], name="other", distribution="other-plugin")
        for name in ("orbit", "orbit-plugin"):
            with isolated_plugins(name):
                assert enhancekit.blocks.get("good").qualified_name == "orbit:good"

    def test_put_back_after_an_error(self):
        before = plugins.host()
        with pytest.raises(ZeroDivisionError), isolated_plugins():
            _ = 1 / 0
        assert plugins.host() is before

    @pytest.mark.parametrize(
        ("installed", "given", "said"),
        [
            (["orbit"], {}, "no plugin orbit is installed"),
            ([], {"acme": Broken()}, "in the hook"),
            ([], {"acme": object()}, "registers nothing"),
        ],
    )
    def test_what_is_missing_or_broken_is_an_error(self, installed, given, said):
        before = plugins.host()
        with pytest.raises(PluginError, match=said), isolated_plugins(*installed, **given):
            pytest.fail("it was entered")
        assert plugins.host() is before
