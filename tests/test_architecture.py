"""The house's rules: imports only go down, no torch below the third floor, no plugin by name."""

from __future__ import annotations

import ast
import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

import enhancekit
from enhancekit import hookspecs, plugins

PACKAGE = Path(enhancekit.__file__).parent
TESTS = Path(__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = {
    "_version": 0,
    "atomic": 0,
    "errors": 0,
    "plain": 0,
    "specs": 0,
    "hookspecs": 1,
    "registry": 1,
    "discovery": 2,
    "plugins": 2,
    "builtin": 3,
    "imaging": 3,
    "pages": 3,
    "scaffold": 3,
    "weights": 3,
    "inference": 4,
    "batch": 5,
    "diagnosis": 5,
    "export": 5,
    "hub": 5,
    "training": 5,
    "video": 5,
    "comparison": 6,
    "serve": 6,
    "testing": 6,
    "cli": 7,
    "__main__": 8,
}
ROOF = 9  # the package itself, whose public names reach everything
HOOKS = [name for name in vars(hookspecs) if name.startswith("enhancekit_")]


def module_of(path):
    """Return the dotted name of a file, and whether it is a package."""
    parts = ["enhancekit", *path.relative_to(PACKAGE).with_suffix("").parts]
    is_package = parts[-1] == "__init__"
    return ".".join(parts[:-1] if is_package else parts), is_package


MODULES = {module_of(path)[0] for path in FILES}


def imported(source, module, is_package=False):
    """Return every module that a file imports, at any level, under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.split(".")[
                    : None if is_package and node.level == 1 else -node.level + is_package
                ]
                base = ".".join([*up, base] if base else up)
            inside = {f"{base}.{alias.name}" for alias in node.names}
            found |= inside & MODULES
            if inside - MODULES:  # names of the module itself
                found.add(base)
    return found


def place(module):
    """Return the floor of a module of enhancekit, and the folder whose files are its siblings."""
    parts = module.split(".")
    if len(parts) == 1:
        return ROOF, ""
    return FLOORS[parts[1]], parts[1] if (PACKAGE / parts[1]).is_dir() else "."


def offences(source, module, is_package=False):
    """Return the imports that do not go down."""
    floor, folder = place(module)
    wrong = []
    for name in imported(source, module, is_package):
        if name.split(".")[0] == "enhancekit":
            there, other = place(name)
            if there > floor or (there == floor and other != folder):
                wrong.append(name)
        elif floor <= 2 and (name.split(".")[0].startswith("torch") or name.endswith(".torch")):
            wrong.append(name)
    return sorted(wrong)


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.parent != PACKAGE or p.name != "__init__.py"],  # the roof; see below
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_imports_only_go_down(path):
    module, is_package = module_of(path)
    assert module.split(".")[1] in FLOORS, f"give {module} a floor in this test"
    assert offences(path.read_text(), module, is_package) == []


@pytest.mark.parametrize(
    ("source", "module", "wrong"),
    [
        ("import enhancekit.cli", "enhancekit.registry", ["enhancekit.cli"]),
        (
            "def f():\n    from enhancekit import plugins",
            "enhancekit.specs",
            ["enhancekit.plugins"],
        ),
        ("from enhancekit import load", "enhancekit.cli.info", ["enhancekit"]),
        (
            "from ..inference import loading",
            "enhancekit.imaging.reading",
            ["enhancekit.inference.loading"],
        ),
        ("from . import plugins", "enhancekit.errors", ["enhancekit.plugins"]),
        (
            "from enhancekit.builtin.losses import SSIM",
            "enhancekit.imaging.reading",
            ["enhancekit.builtin.losses"],
        ),
        ("from enhancekit.weights import Card", "enhancekit.builtin.vgg", ["enhancekit.weights"]),
        ("def f():\n    import torch.nn", "enhancekit.plugins", ["torch.nn"]),
        ("if TYPE_CHECKING:\n    from torch import Tensor", "enhancekit.registry", ["torch"]),
        ("import safetensors.torch", "enhancekit.specs", ["safetensors.torch"]),
        ("import torch\nfrom enhancekit.errors import EnhanceKitError", "enhancekit.weights", []),
        ("from .losses import SSIM", "enhancekit.builtin.metrics", []),
        ("from enhancekit.errors import SpecError", "enhancekit.specs", []),
    ],
)
def test_the_rule_finds_offences(source, module, wrong):
    assert offences(source, module) == wrong


def test_no_two_files_import_each_other():
    graph = {}
    for path in FILES:
        module, is_package = module_of(path)
        if module != "enhancekit":
            graph[module] = imported(path.read_text(), module, is_package) & (MODULES - {module})
    finished = set()

    def visit(module, trail):
        assert module not in trail, f"a circle: {' -> '.join((*trail, module))}"
        if module not in finished:
            for below in sorted(graph.get(module, ())):
                visit(below, (*trail, module))
            finished.add(module)

    for module in graph:
        visit(module, ())
    assert len(finished) >= len(graph)


def test_package_itself_imports_little():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    at_once = {
        name
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in imported(ast.unparse(node), "enhancekit", is_package=True)
    }
    assert {n for n in at_once if n.startswith("enhancekit")} == {"enhancekit._version"}


def python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_brings_no_torch():
    loaded = python("import enhancekit, sys; print(*sys.modules)").split()
    assert "enhancekit" in loaded
    assert not {"torch", "numpy", "skimage", "PIL"} & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["list", "all"], "builtin"),
        (["list", "all", "--json"], "charbonnier"),
        (["plugins"], "enhancekit"),
        (["info", "gamma"], "builtin:gamma"),
    ],
)
def test_listing_brings_no_torch(arguments, shown):
    out = python(
        """if True:
        import sys
        from enhancekit.cli import main
        try:
            main()
        except SystemExit as error:
            assert not error.code, error.code
        print("loaded:", *sys.modules)
        """,
        *arguments,
    )
    listing, loaded = out.split("loaded:")
    assert shown in listing
    assert "enhancekit.builtin" in loaded.split()
    assert "torch" not in loaded.split()


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(PACKAGE.rglob("*")) if p.is_file() and "__pycache__" not in p.parts],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_core_never_names_a_plugin(path):
    lines = path.read_bytes().decode("utf-8", "replace").lower().splitlines()
    assert [f"{i}: {line}" for i, line in enumerate(lines, 1) if "mfnn" in line] == []


def test_every_hook_feeds_a_registry():
    assert len(HOOKS) == 6
    assert sorted(hook for hook, _ in plugins.KINDS.values()) == sorted(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_an_example_that_works(hook):
    doc = getattr(hookspecs, hook).__doc__
    assert doc
    examples = doctest.DocTestParser().get_examples(doc)
    scope = {}
    for example in examples:
        exec(example.source, scope)  # noqa: S102  our own documentation
    wanted = dict(plugins.KINDS.values())[hook]
    (given,) = scope[hook]()
    assert type(given) is wanted
    assert scope[hook].enhancekit_impl


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_says_which_version_brought_it(hook):
    (added,) = re.findall(r"\.\. versionadded:: (\S+)\n", getattr(hookspecs, hook).__doc__)
    assert Version(added) <= Version(enhancekit.__version__)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_tested(hook):
    others = [p for p in TESTS.glob("test_*.py") if p.name != Path(__file__).name]
    assert any(f"def {hook}(" in p.read_text() for p in others)


@pytest.mark.parametrize("name", enhancekit.__all__)
def test_public_names_resolve(name):
    assert getattr(enhancekit, name) is not None
    assert name in dir(enhancekit)


def test_every_lazy_name_is_public():
    assert set(enhancekit.__all__) == {*enhancekit._HOMES, *enhancekit._REGISTRIES, "__version__"}


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = enhancekit.lod
