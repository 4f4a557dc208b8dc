"""What ``enhancekit new-plugin`` writes is a package whose own tests pass as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

import pytest

from enhancekit.errors import OptionError
from enhancekit.scaffold import KINDS, new_plugin
from enhancekit.testing import PluginCase, checks_of


def pretend_install(folder):
    """Write the metadata that pip would write, from pyproject.toml."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"License-Expression: {project['license']}",
        *(f"Requires-Dist: {needed}" for needed in project["dependencies"]),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n", "utf-8")
    points = "".join(f"{k} = {v}\n" for k, v in project["entry-points"]["enhancekit"].items())
    (info / "entry_points.txt").write_text(f"[enhancekit]\n{points}", "utf-8")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    parent = tmp_path_factory.mktemp("written")
    folders = {kind: new_plugin(f"try-{kind}", kind, parent) for kind in KINDS}
    for folder in folders.values():
        pretend_install(folder)
    return folders


def test_their_tests_pass_at_once(written):
    """One process for all five, because importing torch is what takes long."""
    path = os.pathsep.join(map(str, written.values()))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-rA", "--import-mode=importlib"),
            *("-p", "no:cacheprovider", "-c", os.devnull, "-W", "error"),
            *(str(folder / "tests") for folder in written.values()),
        ],
        env={**os.environ, "PYTHONPATH": path + os.pathsep + os.environ.get("PYTHONPATH", "")},
        cwd=written["block"].parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    passed = {line.partition("[")[2] for line in lines if line.startswith("PASSED")}
    for kind in KINDS:
        of_package = {f"try-{kind}-{check}]" for check in checks_of(PluginCase(f"try-{kind}"))}
        assert of_package - passed == {f"try-{kind}-weights_have_a_card]"}
        assert len([name for name in passed if name.startswith(f"try-{kind}:")]) >= 6


def test_they_are_formatted(written):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ruff", "format", "--isolated", "--line-length=100"),
            *("--check", *map(str, written.values())),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_to_fill_in(written, kind):
    files = [p for p in written[kind].rglob("*") if p.is_file()]
    assert {p.suffix for p in files} >= {".toml", ".md", ".py", ".typed"}
    assert not [p for p in files if "$" in p.read_text("utf-8")]


@pytest.mark.parametrize("name", ["Acme", "acme_blocks", "2fast", "-x", "a--b", "", "class", "a/b"])
def test_a_name_that_is_none(name, tmp_path):
    with pytest.raises(OptionError, match=r"is no name for a package; .*'acme-blocks'"):
        new_plugin(name, "block", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "whose"), [("torch", "torch"), ("json", "Python")])
def test_the_names_of_other_packages(name, whose, tmp_path):
    with pytest.raises(OptionError, match=f"{name} is a module of {whose}; choose another name"):
        new_plugin(name, "block", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["builtin", "enhancekit"])
def test_the_names_of_the_core(name, tmp_path):
    with pytest.raises(OptionError, match="the core's own name"):
        new_plugin(name, "block", tmp_path)


def test_the_names_of_other_plugins(tmp_path):
    with pytest.raises(OptionError, match=r"enhancekit-mfnn is installed already.*; choose"):
        new_plugin("enhancekit-mfnn", "block", tmp_path)
    with pytest.raises(OptionError, match=r"mfnn is installed already, by enhancekit-mfnn "):
        new_plugin("mfnn", "block", tmp_path)


def test_an_unknown_kind(tmp_path):
    with pytest.raises(OptionError, match="one of block, backbone, loss, metric, enhancer, not"):
        new_plugin("orbit", "hook", tmp_path)


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "orbit").mkdir()
    with pytest.raises(OptionError, match="exists already"):
        new_plugin("orbit", "block", tmp_path)
    assert list((tmp_path / "orbit").iterdir()) == []


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="cannot be written"):
        new_plugin("orbit", "block", tmp_path / "file" / "inside")


def test_the_command(cli, tmp_path):
    done = cli("new-plugin", "acme-loss", "--kind", "loss", "--in", tmp_path)
    assert done.code == 0
    assert (tmp_path / "acme-loss" / "acme_loss" / "losses.py").is_file()
    assert f"wrote {tmp_path / 'acme-loss'}" in done.out
    assert "pip install" in done.out


def test_the_command_refuses(cli, tmp_path):
    done = cli("new-plugin", "Acme", "--kind", "loss", "--in", tmp_path)
    assert done.code == 1
    assert done.err.startswith("error: 'Acme' is no name")
    assert cli("new-plugin", "orbit", "--kind", "hook", "--in", tmp_path).code == 2
