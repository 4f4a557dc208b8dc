"""Ten plugins, half of them broken: the others work, and each failure is told in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import pytest

import enhancekit
from enhancekit import __version__, hookspecs
from enhancekit.errors import AmbiguousNameError
from enhancekit.plugins import Host, host

HOOK = "from enhancekit import hookimpl\n@hookimpl\ndef enhancekit_blocks():\n    "


def block(name):
    return {"name": name, "role": "residual", "target": "{code}:Block"}


@pytest.fixture
def ten(make_plugin):
    """Install the ten."""
    code = "class Block:\n    pass\n"
    for i in range(4):
        make_plugin(blocks=[block(f"good-{i}")], name=f"good{i}", distribution=f"g{i}", code=code)
    make_plugin("import absent_thing", name="importing", distribution="d-import")
    make_plugin(
        HOOK + "try:\n        {}['licence']\n"
        "    except KeyError as error:\n        raise RuntimeError('no licence') from error",
        name="raising",
        distribution="d-raise",
    )
    make_plugin(HOOK + "return ['fast', 7]", name="rubbish", distribution="d-rubbish")
    for name in ("one", "two"):
        blocks = [block("shared"), block(f"only-{name}")]
        make_plugin(blocks=blocks, name=name, distribution=f"d-{name}", code=code)
    make_plugin(
        blocks=[block("future")],
        name="future",
        distribution="d-future",
        metadata="Requires-Dist: enhancekit (>=99)\n",
    )


CAUSES = {
    "importing": "ModuleNotFoundError: No module named 'absent_thing'",
    "raising": "RuntimeError: no licence (because of KeyError: 'licence')",
    "rubbish": "enhancekit_blocks gave 'fast' of type str instead of a BlockSpec",
    "future": f"it needs enhancekit >=99, but this is {__version__}; install versions that fit",
}
CLASHES = {
    "one": "block 'shared' is also registered by two (d-two 1.0); ask for 'one:shared'",
    "two": "block 'shared' is also registered by one (d-one 1.0); ask for 'two:shared'",
}


@pytest.mark.usefixtures("ten")
class TestTen:
    @pytest.mark.filterwarnings("ignore::enhancekit.plugins.PluginWarning")
    def test_everything_else_works(self):
        for name in ("good-0", "good-1", "good-2", "good-3", "only-one", "one:shared"):
            assert enhancekit.blocks.create(name) is not None
        with pytest.raises(AmbiguousNameError):
            enhancekit.blocks.get("shared")
        assert "gamma" in enhancekit.enhancers
        assert "future" not in enhancekit.blocks

    def test_each_is_told_in_one_line(self, cli):
        done = cli("plugins")
        assert (done.code, done.err) == (0, "")
        rows = {line.split()[0]: line for line in done.out.splitlines() if line}
        for name, cause in {**CAUSES, **CLASHES}.items():
            assert cause in rows[name]
        assert all("failed" in rows[name] for name in CAUSES)
        assert all(" ok " in rows[name] for name in CLASHES)
        assert all("1 block" in rows[f"good{i}"] for i in range(4))

    def test_json(self, cli):
        rows = {row["name"]: row for row in json.loads(cli("plugins", "--json").out)}
        for name, cause in CAUSES.items():
            assert rows[name]["status"] == "failed"
            assert cause in rows[name]["error"]
            assert rows[name]["gives"] == []
        for name, clash in CLASHES.items():
            assert (rows[name]["status"], rows[name]["error"]) == ("ok", None)
            assert rows[name]["clashes"] == [clash]
            assert rows[name]["gives"] == ["block shared", f"block only-{name}"]
        assert rows["good0"]["distribution"] == "g0"
        assert rows["good0"]["version"] == "1.0"


class TestRequirement:
    def status(self, make_plugin, line):
        make_plugin(blocks=[block("early")], metadata=f"Requires-Dist: {line}\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (found,) = [s for s in host().statuses() if s.provider.plugin == "orbit"]
        return found

    @pytest.mark.parametrize(
        "line",
        [
            "enhancekit",
            f"enhancekit>={__version__}",
            f"Enhancekit[train] (=={__version__})",
            "enhancekit>=99; extra == 'future'",
            "enhancekit>=99; python_version < '3'",
            "enhancekit-extras>=99",
            "other>=99",
        ],
    )
    def test_met(self, make_plugin, line):
        assert self.status(make_plugin, line).status == "ok"

    @pytest.mark.parametrize("line", ["enhancekit<0.0.1", "ENHANCEKIT>=99", "enhancekit (>=99)"])
    def test_unmet(self, make_plugin, line):
        found = self.status(make_plugin, line)
        assert found.status == "failed"
        assert f"but this is {__version__}; install versions that fit" in found.error
        assert "orbit-plugin" in found.error

    def test_unreadable(self, make_plugin):
        found = self.status(make_plugin, "enhancekit at least 0.1")
        assert found.status == "failed"
        assert "cannot be read; write e.g. 'enhancekit>=0.1" in found.error


class TestDeprecatedHook:
    """The path by which a hook goes: it works on, and says what to use instead."""

    @pytest.fixture(autouse=True)
    def _announced(self, monkeypatch, make_plugin):
        marked = {
            **hookspecs.enhancekit_blocks.enhancekit_spec,
            "warn_on_impl": DeprecationWarning("use enhancekit_parts, from 0.2 on"),
        }
        monkeypatch.setattr(hookspecs.enhancekit_blocks, "enhancekit_spec", marked)
        make_plugin(blocks=[block("early")])

    def test_it_still_works_and_warns(self):
        said = r"plugin orbit \(orbit-plugin 1\.0\): use enhancekit_parts, from 0\.2 on"
        with pytest.warns(DeprecationWarning, match=said):
            statuses = Host({"ENHANCEKIT_PLUGINS": "orbit"}).statuses()
        (found,) = [s for s in statuses if s.provider.plugin == "orbit"]
        assert found.status == "ok"
        assert [e.spec.name for e in found.entries] == ["early"]

    def test_it_stands_in_the_table(self, cli):
        done = cli("plugins")
        (row,) = [line for line in done.out.splitlines() if line.startswith("orbit")]
        assert "1 block; use enhancekit_parts, from 0.2 on" in row


@pytest.fixture
def fifty(make_plugin):
    """Install fifty plugins; return the folders they lie in."""
    return [
        make_plugin(
            blocks=[block(f"block-{i}")],
            name=f"many{i}",
            distribution=f"many-{i}",
            metadata="Requires-Dist: enhancekit>=0.0.1\n",
        ).path
        for i in range(50)
    ]


def test_listing_fifty_plugins_imports_no_torch(fifty):
    code = """if True:
        import sys
        from enhancekit.plugins import host
        print(sum(s.status == "ok" for s in host().statuses()), "torch" in sys.modules)
    """
    path = os.pathsep.join([*map(str, fifty), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    found, torch = done.stdout.split()
    assert int(found) >= 50
    assert torch == "False"
