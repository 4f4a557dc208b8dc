"""Shared fixtures: pretended installs of plugins, the command line, and tiny pictures."""

from __future__ import annotations

import shutil
import sys
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from PIL import Image

from enhancekit import plugins

EXAMPLE = Path(__file__).parents[1] / "examples" / "third_party_block"
SPECS = {
    "backbones": "BackboneSpec",
    "blocks": "BlockSpec",
    "enhancers": "EnhancerSpec",
    "losses": "LossSpec",
    "metrics": "MetricSpec",
    "schemes": "SchemeSpec",
}


@dataclass(frozen=True)
class Installed:
    """A distribution that was pretended to be installed."""

    name: str
    distribution: str
    version: str
    module: str
    path: Path

    def __str__(self):
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Outcome:
    """What a run of the command line gave."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def enhancer_of():
    """Make an `Enhancer` of a function of whole tensors, a precision and controls."""
    import torch

    from enhancekit.inference.enhancer import Enhancer
    from enhancekit.inference.parts import Part
    from enhancekit.registry import Entry, Provider
    from enhancekit.specs import EnhancerSpec

    def make(run, precision=torch.float32, controls=None, scale=1):
        spec = EnhancerSpec(
            name="probe",
            summary="A probe",
            task="tone",
            target="math:sqrt",
            controls=controls or {},
            scale=scale,
        )
        entry = Entry(spec, Provider("acme", "acme-probe", "1.2"), "enhancer")
        return Enhancer(
            entry,
            lambda source, *how: iter([Part.whole(run(source.read(), *how[:2]))]),
            device=torch.device("cpu"),
            precision=precision,
        )

    return make


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in ("ENHANCEKIT_PLUGINS", "ENHANCEKIT_DISABLE_PLUGINS", "ENHANCEKIT_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "250")


@pytest.fixture
def fresh_host():
    """Let this test discover plugins anew, and the next one too."""
    plugins.reset()
    yield
    plugins.reset()


@pytest.fixture
def install(tmp_path, monkeypatch, fresh_host):
    """Put files and a dist-info on ``sys.path``, as pip would."""
    before = dict(sys.modules)

    def put(distribution, version, files, entry_points, metadata=""):
        site = tmp_path / "site" / f"{distribution}-{version}"
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{metadata}"
        )
        (info / "entry_points.txt").write_text(entry_points)
        for name, text in files.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text)
            top = name.split("/")[0].removesuffix(".py")
            for module in [m for m in sys.modules if m.split(".")[0] == top]:
                monkeypatch.delitem(sys.modules, module)
        monkeypatch.syspath_prepend(str(site))
        plugins.reset()
        return site

    yield put
    site = str(tmp_path / "site")
    for module in sys.modules.keys() - before.keys():
        if (getattr(sys.modules[module], "__file__", None) or "").startswith(site):
            del sys.modules[module]


@pytest.fixture(scope="module")
def browser():
    """Start a real browser; without one, or without Playwright, the test is skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as started:
        # no sandbox: CI runs as root, where Chromium has none; and no page but ours is opened
        options = ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
        found = started.chromium.launch(executable_path=path, args=options)
        yield found
        found.close()


@pytest.fixture
def make_plugin(install):
    """Write a plugin and pretend that it is installed; real discovery then finds it.

    ``source`` is the plugin's module. Instead of it, or besides, ``blocks=[{...}]`` and the like
    give the fields of the specs it registers; ``{code}`` in a target stands for a second module,
    whose text is ``code``. ``entry_points`` replaces the whole entry_points.txt; ``metadata`` are
    further lines of METADATA.
    """

    def make(
        source="",
        *,
        name="orbit",
        distribution="orbit-plugin",
        version="1.0",
        code="",
        entry_points=None,
        metadata="",
        **kinds,
    ):
        module = f"fake_{distribution.replace('-', '_').replace('.', '_')}"
        lines = [dedent(source)]
        if kinds:
            lines.append(f"from enhancekit import {', '.join(SPECS[k] for k in kinds)}, hookimpl")
        for kind, specs in kinds.items():
            lines += ["@hookimpl", f"def enhancekit_{kind}():"]
            for spec in specs:
                given = {"summary": "a test's", **spec}
                given["target"] = given.get("target", "").format(code=f"{module}_code")
                lines.append(f"    yield {SPECS[kind]}(**{given!r})")
        path = install(
            distribution,
            version,
            {f"{module}.py": "\n".join(lines), f"{module}_code.py": dedent(code)},
            f"[enhancekit]\n{name} = {module}\n" if entry_points is None else entry_points,
            metadata,
        )
        return Installed(name, distribution, version, module, path)

    return make


@pytest.fixture
def example_plugin(install):
    """Install a copy of examples/third_party_block."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["enhancekit"]
    ((name, module),) = points.items()
    package = module.split(".")[0]
    files = {f"{package}/{p.name}": p.read_text() for p in (EXAMPLE / package).glob("*.py")}
    path = install(project["name"], project["version"], files, f"[enhancekit]\n{name} = {module}\n")
    return Installed(name, project["name"], project["version"], module, path)


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in this process, through its real entry, errors and all."""
    from enhancekit.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["enhancekit", *map(str, arguments)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code or 0
        return Outcome(code, *capsys.readouterr())

    return run


def noise(height=16, width=20, seed=0, top=256):
    """Return an 8-bit RGB picture."""
    return np.random.default_rng(seed).integers(0, top, (height, width, 3), np.uint8)


@pytest.fixture
def dark(tmp_path):
    """Return the path of a small dark PNG."""
    path = tmp_path / "dark.png"
    Image.fromarray(noise(top=80)).save(path)
    return path


def write_pairs(folder, count=6, size=24):
    """Write tiny pairs: a smooth picture and a darker one, in low/ and high/; return the folder."""
    for side in ("low", "high"):
        (folder / side).mkdir(parents=True)
    ramp = np.linspace(0, 255, size)
    for i in range(count):
        high = np.stack(
            (
                np.add.outer(ramp, ramp) / 2,
                noise(size, size, i)[..., 0],
                0 * ramp + noise(size, size, i + 99)[..., 1],
            ),
            axis=2,
        ).astype(np.uint8)
        Image.fromarray(high).save(folder / "high" / f"{i}.png")
        Image.fromarray((high * 0.3).astype(np.uint8)).save(folder / "low" / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Return a folder of tiny pairs; scenes are named by the single digit of the stem."""
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def tiny_recipe(pairs):
    """Return changes that make a shipped recipe tiny; ``out`` is the folder of the run."""

    def changes(out, *more, options="{width = 4, counts = [1, 1], pack = 1}"):
        return [
            f"data.root='{pairs}'",
            "data.sources=[{input = 'low', target = 'high', scene = '^(\\d)'}]",
            "data.clean=[]",
            "data.held_out=0.5",
            "data.crop=16",
            "data.shrink=[1]",
            f"model.options={options}",
            f"run.out='{out}'",
            "run.steps=3",
            "run.batch=1",
            "run.context_batch=2",
            "run.precision='fp32'",
            "run.validate_every=100",
            "run.save_every=100",
            *more,
        ]

    return changes
