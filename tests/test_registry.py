"""Looking up, creating and blaming, without any plugin installed."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass

import pytest

import enhancekit
from enhancekit.errors import (
    AmbiguousNameError,
    EnhanceKitError,
    OptionError,
    PluginError,
    UnknownNameError,
)
from enhancekit.registry import Entry, Provider, Registry, blame
from enhancekit.specs import BlockSpec

ONE = Provider("one", "dist-one", "1.0")
TWO = Provider("two", "dist-two", "2.5")


class Plain:
    def __init__(self, *args, **options):
        self.given = args, options

    def fail(self):
        raise ValueError("it broke")


@dataclass(frozen=True)
class Frozen:
    size: int = 1


class Slotted:
    __slots__ = ()


def raising(*_args, **_options):
    raise ZeroDivisionError("no such width")


def refusing():
    raise OptionError("width must be even")


def entry(name, provider=ONE, aliases=(), attribute="Plain"):
    spec = BlockSpec(
        name=name, summary="a test's", role="r", aliases=aliases, target=f"{__name__}:{attribute}"
    )
    return Entry(spec, provider, "block")


def registry(*entries, failures=()):
    return Registry("block", lambda: entries, lambda: failures)


FULL = registry(
    entry("fast", ONE, aliases=("quick", "speedy")),
    entry("shared", ONE),
    entry("shared", TWO),
    entry("slow", TWO),
)


@pytest.mark.parametrize(
    ("asked", "qualified"),
    [
        ("fast", "one:fast"),
        ("quick", "one:fast"),
        ("speedy", "one:fast"),
        ("one:fast", "one:fast"),
        ("one:quick", "one:fast"),
        ("one:shared", "one:shared"),
        ("two:shared", "two:shared"),
        ("slow", "two:slow"),
    ],
)
def test_get(asked, qualified):
    assert FULL.get(asked).qualified_name == qualified
    assert asked in FULL


def test_an_entry_says_where_it_is_from():
    assert str(FULL.get("two:shared")) == "block two:shared (dist-two 2.5)"


def test_list_is_ordered_and_complete():
    found = [e.qualified_name for e in FULL.list()]
    assert found == ["one:fast", "one:shared", "two:shared", "two:slow"]


def test_names_are_the_shortest_that_work():
    assert list(FULL.names()) == ["fast", "one:shared", "two:shared", "slow"]
    assert list(FULL) == list(FULL.names())


def test_names_work_where_an_alias_clashes_with_a_name():
    clashing = registry(entry("fast", ONE), entry("quick", TWO, aliases=("fast",)))
    assert [clashing.get(n).qualified_name for n in clashing.names()] == ["one:fast", "two:quick"]


def test_ambiguous_name_lists_every_provider():
    with pytest.raises(AmbiguousNameError, match="block 'shared' is registered by several") as info:
        FULL.get("shared")
    assert "one:shared (dist-one 1.0)" in str(info.value)
    assert "two:shared (dist-two 2.5)" in str(info.value)
    assert "shared" in FULL


def test_ambiguous_alias_names_what_to_ask_for():
    clashing = registry(entry("fast", ONE), entry("quick", TWO, aliases=("fast",)))
    with pytest.raises(AmbiguousNameError, match=r"one:fast \(dist-one 1\.0\), two:quick \(dist-"):
        clashing.get("fast")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("fsat", "did you mean 'fast'"),
        ("Fast", "did you mean 'fast'"),
        ("quik", "did you mean 'quick'"),
        ("one:fasst", "did you mean 'one:fast'"),
        ("two:fast", "'one:fast'"),
        ("zzzzzz", "known: fast, one:shared, two:shared, slow"),
        ("", "known: fast"),
    ],
)
def test_unknown_name(asked, hint):
    with pytest.raises(UnknownNameError) as info:
        FULL.get(asked)
    assert str(info.value).startswith(f"no block is called {asked!r}; ")
    assert hint in str(info.value)
    assert asked not in FULL


def test_unknown_name_in_an_empty_registry():
    with pytest.raises(UnknownNameError, match="the name of a registered block is text, not None"):
        registry().get(None)
    with pytest.raises(UnknownNameError, match="no block is called 'x'; known: none"):
        registry().get("x")
    assert "empty" in repr(registry())


def test_unknown_name_repeats_the_plugins_that_failed():
    broken = registry(
        entry("fast"), failures=["acme (acme-plugin 1.0): ImportError: x", "b (b 2): no"]
    )
    with pytest.raises(UnknownNameError) as info:
        broken.get("zzzzzz")
    assert "acme (acme-plugin 1.0): ImportError: x" in str(info.value)
    assert "b (b 2): no" in str(info.value)
    assert broken.get("fast").spec.name == "fast"


def test_unknown_name_is_a_lookup_error():
    with pytest.raises(LookupError):
        FULL.get("nope")
    with pytest.raises(EnhanceKitError):
        FULL.get("shared")


def test_entries_are_asked_for_at_every_query():
    entries = [entry("fast")]
    growing = Registry("block", lambda: entries, lambda: ())
    assert "slow" not in growing
    entries.append(entry("slow"))
    assert "slow" in growing


def test_create_passes_everything_on_and_signs_the_result():
    made = FULL.create("quick", 4, width=8)
    assert made.given == ((4,), {"width": 8})
    assert made.enhancekit_origin == "block one:fast (dist-one 1.0)"


def test_create_blames_the_plugin():
    with pytest.raises(PluginError, match=r"block one:bad \(dist-one 1\.0\) failed") as info:
        registry(entry("bad", attribute="raising")).create("bad", 4, width=3)
    assert "(4, width=3)" in str(info.value)
    assert "ZeroDivisionError: no such width" in str(info.value)
    assert isinstance(info.value.__cause__, ZeroDivisionError)


def test_create_leaves_our_own_errors_alone():
    with pytest.raises(OptionError, match=r"^width must be even$"):
        registry(entry("bad", attribute="refusing")).create("bad")


def test_create_blames_a_target_that_is_missing():
    with pytest.raises(PluginError, match=r"block one:bad \(dist-one 1\.0\) names .*Nothing"):
        registry(entry("bad", attribute="Nothing")).create("bad")


@pytest.mark.parametrize("attribute", ["Frozen", "Slotted"])
def test_create_makes_what_cannot_be_signed(attribute):
    made = registry(entry("odd", attribute=attribute)).create("odd")
    assert type(made).__name__ == attribute


class TestBlame:
    def test_names_what_raised(self):
        with pytest.raises(ValueError, match="it broke") as info:
            FULL.create("slow").fail()
        assert blame(info.value) == "block two:slow (dist-two 2.5)"

    def test_names_the_innermost(self):
        class Outer:
            enhancekit_origin = "backbone one:net (dist-one 1.0)"

            def run(self, part):
                part.fail()

        with pytest.raises(ValueError, match="it broke") as info:
            Outer().run(FULL.create("slow"))
        assert blame(info.value) == "block two:slow (dist-two 2.5)"

    def test_skips_what_nobody_registered(self):
        class Inner:
            def run(self):
                raise ValueError("inside a helper")

        class Registered:
            enhancekit_origin = "block one:fast (dist-one 1.0)"

            def run(self):
                Inner().run()

        with pytest.raises(ValueError, match="inside a helper") as info:
            Registered().run()
        assert blame(info.value) == "block one:fast (dist-one 1.0)"

    def test_nobody(self):
        with pytest.raises(ValueError, match="it broke") as info:
            Plain().fail()
        assert blame(info.value) == ""
        assert blame(ValueError("never raised")) == ""


class TestLosses:
    def test_a_sum_is_made_of_registered_losses(self):
        import torch

        loss = enhancekit.losses.create("2*builtin:l1 + charbonnier")
        assert loss.names == ["builtin:l1", "charbonnier"]
        value = float(loss(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)))
        assert value == pytest.approx(3.0, abs=1e-3)

    @pytest.mark.parametrize("text", ["l1 + sim", "0.1*sim"])
    def test_an_unknown_term_is_found_a_near_name(self, text):
        with pytest.raises(UnknownNameError, match=r"no loss is called 'sim'; did you mean 'ssim'"):
            enhancekit.losses.create(text)

    def test_a_single_loss_is_itself(self):
        assert type(enhancekit.losses.create("l1")).__name__ == "L1"


def test_targets_are_imported_on_use_only():
    module = types.ModuleType("imported_on_use")
    module.thing = Plain
    spec = BlockSpec(name="late", summary="s", role="r", target="imported_on_use:thing")
    late = registry(Entry(spec, ONE, "block"))
    with pytest.raises(PluginError, match="imported_on_use"):
        late.get("late").target()
    sys.modules["imported_on_use"] = module
    try:
        assert late.get("late").target() is Plain
    finally:
        del sys.modules["imported_on_use"]
