"""Discovery through real entry points: what one plugin does wrong harms no other."""

from __future__ import annotations

import json
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points

import pytest

import enhancekit
from enhancekit import discovery
from enhancekit.errors import AmbiguousNameError, PluginError, UnknownNameError
from enhancekit.plugins import Host, PluginWarning, host, reset

ALL_OF_THEM = """
from enhancekit import BackboneSpec, BlockSpec, EnhancerSpec, LossSpec, MetricSpec, SchemeSpec
from enhancekit import hookimpl

@hookimpl
def enhancekit_backbones():
    yield BackboneSpec(name="orbit-backbone", summary="A network", target="nowhere:Net")

@hookimpl
def enhancekit_blocks():
    return [BlockSpec(name="orbit-block", role="residual", summary="A block", target="nowhere:B")]

@hookimpl
def enhancekit_losses():
    return (LossSpec(name="orbit-loss", summary="A loss", target="nowhere:Loss"),)

@hookimpl
def enhancekit_metrics():
    yield MetricSpec(name="orbit-metric", summary="A metric", target="nowhere:metric",
                     higher_is_better=False, protocol="RGB")

@hookimpl
def enhancekit_enhancers():
    yield EnhancerSpec(name="orbit-enhancer", summary="An enhancer", task="tone",
                       target="nowhere:enhance")

@hookimpl
def enhancekit_schemes():
    yield SchemeSpec(name="orbit-scheme", summary="A scheme", target="nowhere:load")
"""
CIRCLING = """
import enhancekit
from enhancekit import BlockSpec, hookimpl

@hookimpl
def enhancekit_blocks():
    for entry in enhancekit.blocks.list():
        yield BlockSpec(name=entry.spec.name + "-two", summary="s", role="residual", target="x:y")
"""
GOOD = [{"name": "good", "role": "residual", "target": "{code}:Good"}]
HEAD = "from enhancekit import BlockSpec, LossSpec, hookimpl\n"


def block(name, **more):
    fields = {"name": name, "role": "residual", "summary": "s", "target": "x:y", **more}
    return f"BlockSpec(**{fields!r})"


def hook(*body):
    return HEAD + "@hookimpl\ndef enhancekit_blocks():\n" + "".join(f"    {b}\n" for b in body)


# what a plugin does wrong, and what its error must say
WRONGS = {
    "raises on import": ("raise RuntimeError('no licence found')", "no licence found"),
    "misses a dependency": ("import not_installed_anywhere", "not_installed_anywhere"),
    "syntax error": ("def broken(:", "SyntaxError"),
    "exits on import": ("import sys\nsys.exit(0)", "SystemExit"),
    "hook raises": (hook("raise ZeroDivisionError('in the hook')"), "in the hook"),
    "raises after a first one": (
        hook(f"yield {block('early')}", "raise OSError('half way')"),
        "half way",
    ),
    "yields text": (hook("yield 'fast'"), "'fast' of type str instead of a BlockSpec"),
    "yields None": (hook("yield None"), "type NoneType instead of a BlockSpec"),
    "yields the class": (hook("yield BlockSpec"), "instead of a BlockSpec"),
    "yields another kind": (
        hook("yield LossSpec(name='early', summary='s', target='x:y')"),
        "LossSpec instead of a BlockSpec",
    ),
    "returns one spec": (hook(f"return {block('early')}"), "not iterable"),
    "returns a number": (hook("return 7"), "not iterable"),
    "bad name": (hook(f"yield {block('Not Good')}"), "'Not Good'"),
    "no hook": ("value = 1", "registers nothing"),
    "no marker": ("def enhancekit_blocks():\n    return []", "registers nothing"),
    "empty hook": (hook("return []"), "registers nothing"),
    "hook returns None": (hook("return None"), "registers nothing"),
    "same name twice": (
        hook(f"yield {block('early')}", f"yield {block('early')}"),
        "block 'early' twice",
    ),
    "alias is a name": (
        hook(f"yield {block('early')}", f"yield {block('other', aliases=('early',))}"),
        "block 'early' twice",
    ),
    "misspelt hook": (
        HEAD + "@hookimpl\ndef enhancekit_blocs():\n    return []",
        "enhancekit_blocs",
    ),
    "unknown argument": (
        HEAD + "@hookimpl\ndef enhancekit_blocks(width):\n    return []",
        "width",
    ),
}


def statuses(found, distribution="orbit-plugin"):
    return [s for s in found.statuses() if s.provider.distribution == distribution]


def status(found, distribution="orbit-plugin"):
    (one,) = statuses(found, distribution)
    return one


class TestFound:
    @pytest.mark.parametrize("kind", ["backbone", "block", "loss", "metric", "enhancer", "scheme"])
    def test_every_hook(self, make_plugin, kind):
        make_plugin(ALL_OF_THEM, version="3.1")
        plural = "losses" if kind == "loss" else f"{kind}s"
        registry = getattr(enhancekit, plural)
        for name in (f"orbit-{kind}", f"orbit:orbit-{kind}"):
            assert str(registry.get(name)) == f"{kind} orbit:orbit-{kind} (orbit-plugin 3.1)"
        assert f"orbit-{kind}" in registry.names()

    def test_status(self, make_plugin):
        make_plugin(ALL_OF_THEM, version="3.1")
        found = status(host())
        assert (found.provider.plugin, found.provider.version) == ("orbit", "3.1")
        assert (found.status, found.error, found.details) == ("ok", "", "")
        assert sorted(e.kind for e in found.entries) == [
            "backbone",
            "block",
            "enhancer",
            "loss",
            "metric",
            "scheme",
        ]

    def test_targets_are_not_imported(self, make_plugin):
        make_plugin(blocks=[{"name": "late", "role": "residual", "target": "{code}:Late"}])
        assert enhancekit.blocks.get("late").spec.summary == "a test's"
        assert "fake_orbit_plugin_code" not in sys.modules
        with pytest.raises(PluginError, match=r"block orbit:late \(orbit-plugin 1\.0\) names"):
            enhancekit.blocks.create("late")

    def test_core_comes_in_the_same_way(self, fresh_host):
        core = status(host(), "enhancekit")
        assert (core.provider.plugin, core.status) == ("builtin", "ok")
        assert enhancekit.enhancers.get("gamma") in core.entries
        assert "builtin" in entry_points(group="enhancekit").names

    def test_an_object_may_be_a_plugin(self, make_plugin):
        make_plugin(
            HEAD
            + "class Plugin:\n    @hookimpl\n    def enhancekit_blocks(self):\n"
            + f"        yield {block('early')}\nplugin = Plugin()\n",
            entry_points="[enhancekit]\norbit = fake_orbit_plugin:plugin\n",
        )
        assert enhancekit.blocks.get("early").qualified_name == "orbit:early"

    def test_two_plugins_of_one_distribution(self, make_plugin):
        make_plugin(
            hook(f"yield {block('early')}"),
            entry_points="[enhancekit]\n"
            "orbit = fake_orbit_plugin\norbit2 = fake_orbit_plugin_code\n",
            code=hook(f"yield {block('late')}"),
        )
        assert enhancekit.blocks.get("early").qualified_name == "orbit:early"
        assert enhancekit.blocks.get("late").qualified_name == "orbit2:late"

    def test_a_path_listed_twice_gives_a_plugin_once(self, make_plugin, monkeypatch):
        plugin = make_plugin(blocks=GOOD)
        monkeypatch.syspath_prepend(str(plugin.path))
        reset()
        assert status(host()).status == "ok"
        assert enhancekit.blocks.get("good").qualified_name == "orbit:good"

    def test_the_distribution_is_named_as_packaging_tools_do(self, make_plugin):
        make_plugin(blocks=GOOD, distribution="Orbit.Fast_Blocks")
        assert str(enhancekit.blocks.get("good").provider) == "orbit-fast-blocks 1.0"

    def test_reset_finds_what_was_installed_since(self, make_plugin):
        assert "good" not in enhancekit.blocks
        make_plugin(blocks=GOOD)
        assert "good" in enhancekit.blocks

    def test_threads_discover_once(self, make_plugin):
        make_plugin(
            "import time\nimport sys\ntime.sleep(0.05)\n"
            "sys.orbit_imports = getattr(sys, 'orbit_imports', 0) + 1\n"
            + hook(
                f"sys.orbit_hooks = getattr(sys, 'orbit_hooks', 0) + 1; return [{block('early')}]"
            )
        )
        found, seen = Host({}), []
        threads = [
            threading.Thread(target=lambda: seen.append(found.blocks.get("early")))
            for _ in range(6)
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(seen) == 6
            assert (sys.orbit_imports, sys.orbit_hooks) == (1, 1)
        finally:
            del sys.orbit_imports, sys.orbit_hooks


@pytest.mark.parametrize("wrong", WRONGS)
class TestFailing:
    def test_is_left_out_alone(self, make_plugin, wrong):
        source, cause = WRONGS[wrong]
        make_plugin(blocks=GOOD, name="good", distribution="good-plugin")
        make_plugin(source)
        with pytest.warns(PluginWarning, match=r"orbit \(orbit-plugin 1\.0\): ") as caught:
            found = host().statuses()
        assert len(caught) == 1
        failed = status(host())
        assert (failed.status, failed.entries) == ("failed", [])
        assert cause in failed.error
        assert "\n" not in failed.error
        assert "Traceback" in failed.details
        assert {s.status for s in found if s is not failed} == {"ok"}
        assert enhancekit.blocks.get("good").qualified_name == "good:good"
        assert "gamma" in enhancekit.enhancers
        assert "early" not in enhancekit.blocks

    def test_is_repeated_where_a_name_is_unknown(self, make_plugin, wrong):
        source, cause = WRONGS[wrong]
        make_plugin(source)
        with pytest.warns(PluginWarning):
            host().statuses()
        for registry in (enhancekit.blocks, enhancekit.enhancers):
            with pytest.raises(UnknownNameError) as info:
                registry.get("early-bird")
            assert "orbit (orbit-plugin 1.0): " in str(info.value)
            assert cause in str(info.value)


class TestFailureIsRemembered:
    SOURCE = "import sys\nsys.orbit_tries = getattr(sys, 'orbit_tries', 0) + 1\nraise OSError('no')"

    def test_tried_and_warned_of_once(self, make_plugin):
        make_plugin(self.SOURCE)
        try:
            with pytest.warns(PluginWarning, match="orbit"):
                host().statuses()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for _ in range(3):
                    assert "good" not in enhancekit.blocks
                    assert status(host()).status == "failed"
            assert sys.orbit_tries == 1
        finally:
            del sys.orbit_tries

    def test_forgotten_on_reset(self, make_plugin):
        plugin = make_plugin("raise OSError('no')")
        with pytest.warns(PluginWarning, match="orbit"):
            assert "early" not in enhancekit.blocks
        (plugin.path / f"{plugin.module}.py").write_text(
            hook(f"yield {block('early')}") + "# longer, so that no cache can be mistaken for it\n"
        )
        reset()
        assert "early" in enhancekit.blocks


class TestClash:
    @pytest.fixture
    def two(self, make_plugin):
        shared = {"name": "shared", "role": "residual", "target": "{code}:Block"}
        for name, version in (("one", "1.0"), ("two", "2.5")):
            make_plugin(
                blocks=[shared, {**shared, "name": f"only-{name}"}],
                code=f"class Block:\n    of = {name!r}\n",
                name=name,
                distribution=f"dist-{name}",
                version=version,
            )

    def test_bare_name_is_refused_with_both_named(self, two):
        with pytest.raises(AmbiguousNameError) as info:
            enhancekit.blocks.get("shared")
        assert "one:shared (dist-one 1.0)" in str(info.value)
        assert "two:shared (dist-two 2.5)" in str(info.value)

    @pytest.mark.parametrize("name", ["one", "two"])
    def test_qualified_names_work(self, two, name):
        assert enhancekit.blocks.create(f"{name}:shared").of == name

    def test_other_names_are_not_harmed(self, two):
        assert enhancekit.blocks.get("only-one").qualified_name == "one:only-one"
        assert {"one:shared", "two:shared", "only-one", "only-two"} <= {*enhancekit.blocks.names()}
        assert [s.status for s in host().statuses()] == ["ok"] * len(host().statuses())

    def test_same_name_of_two_kinds_is_no_clash(self, make_plugin):
        make_plugin(
            blocks=[{"name": "both", "role": "r", "target": "x:y"}],
            losses=[{"name": "both", "target": "x:y"}],
        )
        assert enhancekit.blocks.get("both").kind == "block"
        assert enhancekit.losses.get("both").kind == "loss"

    def test_two_plugins_of_one_name(self, make_plugin):
        make_plugin(blocks=GOOD, distribution="dist-one")
        make_plugin(blocks=[{**GOOD[0], "name": "better"}], distribution="dist-two")
        with pytest.warns(PluginWarning, match="orbit"):
            found = {s.provider.distribution: s for s in host().statuses()}
        ours = [found["dist-one"], found["dist-two"]]
        assert sorted(s.status for s in ours) == ["failed", "ok"]
        failed, working = sorted(ours, key=lambda s: s.status)
        # who came first must be named, or nobody knows which one to remove
        assert str(working.provider) in failed.error
        assert "gamma" in enhancekit.enhancers

    @pytest.mark.parametrize("disabled", ["dist-one", "dist-two"])
    def test_disabling_one_of_them_frees_the_name(self, make_plugin, monkeypatch, disabled):
        make_plugin(blocks=GOOD, distribution="dist-one")
        make_plugin(blocks=[{**GOOD[0], "name": "better"}], distribution="dist-two")
        monkeypatch.setenv("ENHANCEKIT_DISABLE_PLUGINS", disabled)
        found = {s.provider.distribution: s.status for s in Host().statuses()}
        assert found.pop(disabled) == "disabled"
        assert {found["dist-one" if disabled == "dist-two" else "dist-two"]} == {"ok"}

    def test_nobody_takes_the_name_of_the_core(self, make_plugin):
        make_plugin(blocks=GOOD, name="builtin")
        with pytest.warns(PluginWarning, match=r"builtin \(orbit-plugin 1\.0\)"):
            found = status(host())
        assert found.status == "failed"
        assert enhancekit.enhancers.get("gamma").provider.distribution == "enhancekit"


class TestMalformedEntryPoint:
    @pytest.mark.parametrize("action", ["default", "error", "ignore"])
    @pytest.mark.parametrize("text", ["two words", "fast-blocks:plugin", "a:b:c", ""])
    def test_is_a_failure_of_its_plugin_alone(self, make_plugin, text, action):
        make_plugin(blocks=GOOD, name="good", distribution="good-plugin")
        make_plugin(entry_points=f"[enhancekit]\norbit = {text}\n")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter(action)
            warnings.simplefilter("always", PluginWarning)
            found = host().statuses()
        assert "good" in enhancekit.blocks
        assert "gamma" in enhancekit.enhancers
        (failed,) = [s for s in found if s.status == "failed"]
        assert repr(text) in failed.error
        assert any(repr(text) in str(w.message) for w in caught)

    def test_names_plugin_and_distribution(self, make_plugin):
        make_plugin(entry_points="[enhancekit]\norbit = two words\n")
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.simplefilter("ignore", PluginWarning)
            (failed,) = [s for s in host().statuses() if s.status == "failed"]
        assert "orbit (orbit-plugin 1.0)" in failed.summary

    @pytest.mark.parametrize(
        "text",
        [
            "orbit = fake_orbit_plugin\n",
            "[enhancekit]\norbit = one\norbit = two\n",
            "[enhancekit]\n[enhancekit]\n",
            "[enhancekit\norbit = fake_orbit_plugin\n",
        ],
    )
    def test_unreadable_file_harms_no_other(self, make_plugin, text):
        make_plugin(blocks=GOOD, name="good", distribution="good-plugin")
        make_plugin(entry_points=text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert "good" in enhancekit.blocks
            assert "gamma" in enhancekit.enhancers

    @pytest.mark.parametrize("target", ["fake_orbit_plugin:nothing", "no_such_module"])
    def test_that_leads_nowhere(self, make_plugin, target):
        make_plugin(entry_points=f"[enhancekit]\norbit = {target}\n")
        with pytest.warns(PluginWarning, match=target.split(":")[-1]):
            assert status(host()).status == "failed"


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def _two(self, make_plugin):
        for name, distribution in (("one", "First.Blocks"), ("two", "second-blocks")):
            make_plugin(
                f"import sys\nsys.orbit_imported = getattr(sys, 'orbit_imported', '') + {name!r}\n",
                blocks=[{**GOOD[0], "name": f"of-{name}"}],
                name=name,
                distribution=distribution,
            )
        yield
        sys.__dict__.pop("orbit_imported", None)

    @pytest.mark.parametrize(
        ("variable", "value", "left"),
        [
            ("DISABLE", "one", "two"),
            ("DISABLE", "  one  ", "two"),
            ("DISABLE", "First.Blocks", "two"),
            ("DISABLE", "first-blocks", "two"),
            ("DISABLE", "FIRST_BLOCKS", "two"),
            ("DISABLE", "One", "two"),
            ("DISABLE", "second-blocks", "one"),
            ("DISABLE", "\tsecond_blocks ,", "one"),
            ("DISABLE", "one, two", ""),
            ("DISABLE", ",,one,,second.blocks,", ""),
            ("DISABLE", "", "one two"),
            ("DISABLE", " , ", "one two"),
            ("ALLOW", "one", "one"),
            ("ALLOW", " one ", "one"),
            ("ALLOW", "first.blocks", "one"),
            ("ALLOW", "Second_Blocks", "two"),
            ("ALLOW", "one,two", "one two"),
            ("ALLOW", "builtin", ""),
            ("ALLOW", "", "one two"),
            ("ALLOW", " ", "one two"),
        ],
    )
    def test_which_are_left(self, variable, value, left):
        name = {"DISABLE": "ENHANCEKIT_DISABLE_PLUGINS", "ALLOW": "ENHANCEKIT_PLUGINS"}[variable]
        found = Host({name: value})
        wanted = {"of-one": "one" in left, "of-two": "two" in left}
        assert {block: block in found.blocks for block in wanted} == wanted
        by_name = {s.provider.plugin: s.status for s in found.statuses()}
        for plugin in ("one", "two"):
            assert by_name[plugin] == ("ok" if plugin in left else "disabled")
            assert (plugin in getattr(sys, "orbit_imported", "")) == (plugin in left)
        assert by_name["builtin"] == "ok"

    def test_blocking_wins_over_allowing(self):
        found = Host({"ENHANCEKIT_PLUGINS": "one,two", "ENHANCEKIT_DISABLE_PLUGINS": "one"})
        assert "of-one" not in found.blocks
        assert "of-two" in found.blocks

    @pytest.mark.parametrize("name", ["ENHANCEKIT_DISABLE_PLUGINS", "ENHANCEKIT_PLUGINS"])
    def test_unknown_names_warn(self, name):
        with pytest.warns(PluginWarning) as caught:
            Host({name: "one, no-such-plugin"}).statuses()
        (message,) = [str(w.message) for w in caught]
        assert name in message
        assert "'no-such-plugin'" in message
        assert "'one'" not in message

    def test_the_process_environment_is_read(self, monkeypatch):
        assert "of-one" in enhancekit.blocks
        monkeypatch.setenv("ENHANCEKIT_DISABLE_PLUGINS", " First-Blocks ")
        reset()
        assert "of-one" not in enhancekit.blocks
        assert "of-two" in enhancekit.blocks

    def test_a_disabled_plugin_cannot_fail(self, make_plugin):
        make_plugin("raise OSError('no')")
        strict = {"ENHANCEKIT_STRICT_PLUGINS": "1", "ENHANCEKIT_DISABLE_PLUGINS": "orbit"}
        assert status(Host(strict)).status == "disabled"

    def test_strict_fails_loudly(self, make_plugin):
        make_plugin("raise OSError('no disk')")
        found = Host({"ENHANCEKIT_STRICT_PLUGINS": "1"})
        for _ in range(2):
            with pytest.raises(PluginError, match=r"orbit \(orbit-plugin 1\.0\): OSError: no disk"):
                found.enhancers.get("gamma")

    @pytest.mark.parametrize("value", ["", "0"])
    def test_not_strict(self, make_plugin, value):
        make_plugin("raise OSError('no disk')")
        with pytest.warns(PluginWarning, match="no disk"):
            assert "gamma" in Host({"ENHANCEKIT_STRICT_PLUGINS": value}).enhancers

    def test_strict_and_nothing_wrong(self):
        assert "of-one" in Host({"ENHANCEKIT_STRICT_PLUGINS": "1"}).blocks


def test_a_source_checkout_gives_its_version(tmp_path, monkeypatch):
    folder = tmp_path / "meteor_plugin.egg-info"
    folder.mkdir()
    folder.joinpath("PKG-INFO").write_text(
        "Metadata-Version: 2.1\nName: meteor-plugin\nVersion: 3.4\n"
    )
    folder.joinpath("entry_points.txt").write_text("[enhancekit]\nmeteor = meteor\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = [f.provider for f in discovery.find_plugins() if f.provider.plugin == "meteor"]
    assert [str(provider) for provider in found] == ["meteor-plugin 3.4"]


@pytest.mark.parametrize("group", ["console_scripts", "enhancekit"])
def test_metadata_that_are_no_utf_8(tmp_path, monkeypatch, cli, group):
    folder = tmp_path / "old_package.egg-info"
    folder.mkdir()
    told = "Metadata-Version: 2.1\nName: old-package\nVersion: 1.0\nAuthor: José\n"
    folder.joinpath("PKG-INFO").write_bytes(told.encode("latin-1"))
    folder.joinpath("entry_points.txt").write_text(f"[{group}]\nold = fresh:air\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = [f for f in discovery.find_plugins() if f.provider.plugin == "old"]
    assert len(found) == (group == "enhancekit")
    if found:
        assert "its metadata cannot be read" in found[0].error


def test_one_host_for_all_threads(monkeypatch):
    made = []

    class Slow(Host):
        def __init__(self):
            made.append(self)
            time.sleep(0.05)
            super().__init__()

    monkeypatch.setattr("enhancekit.plugins.Host", Slow)
    reset()
    with ThreadPoolExecutor(4) as pool:
        hosts = set(pool.map(lambda _: host(), range(4)))
    reset()
    assert hosts == set(made)
    assert len(made) == 1


def test_a_hook_that_asks_for_what_is_registered(make_plugin):
    make_plugin(CIRCLING)
    reset()
    with pytest.warns(PluginWarning, match="asks for what is registered while its hooks"):
        (found,) = [s for s in host().statuses() if s.provider.plugin == "orbit"]
    assert found.status == "failed"


def test_what_a_plugin_prints_stands_not_in_our_output(make_plugin, cli):
    make_plugin("print('hello')\n" + hook("print('again')", f"yield {block('one')}"))
    done = cli("list", "blocks", "--json")
    assert "one" in [b["name"].split(":")[-1] for b in json.loads(done.out)]
    assert done.err == "hello\nagain\n"
