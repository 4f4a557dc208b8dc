"""The container's recipe: pinned, not root, healthy, and in step with the command it runs.

There is no Docker where the tests run, so this reads it as a linter would.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

import pytest
import typer

from enhancekit.cli import app
from enhancekit.serve import Settings, create_app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "examples" / "serve" / "Dockerfile").read_text()


def instructions():
    """Return pairs of an instruction and its argument; comments gone, lines joined."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def of(name):
    return [argument for instruction, argument in instructions() if instruction == name]


LAST = instructions()[[i for i, (name, _) in enumerate(instructions()) if name == "FROM"][-1] :]


def test_bases_are_pinned():
    assert len(of("FROM")) == 2
    for base in of("FROM"):
        assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+( AS \w+)?", base), base


def test_it_does_not_run_as_root():
    names = [name for name, _ in LAST]
    user = dict(LAST)["USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "RUN" not in names, "what is built belongs to the first stage"


def test_installs_keep_to_the_constraints_and_leave_no_cache():
    installs = [run for run in of("RUN") if "pip install" in run]
    assert len(installs) == 2
    for install in installs:
        assert "-c constraints.txt" in install
        assert "--no-cache-dir" in install
    assert "whl/cpu torch" in installs[0]
    assert ".[heic,serve]" in installs[1]


def test_nothing_is_fetched_but_by_pip():
    assert of("ADD") == []
    assert not re.search(r"curl|wget|apt-get|latest|https?://(?!download\.pytorch\.org/|127)", TEXT)


def test_it_runs_a_command_that_exists():
    program, command, *arguments = json.loads(dict(LAST)["ENTRYPOINT"])
    assert program == "/venv/bin/enhancekit"
    serve = typer.main.get_command(app).commands[command]
    known = {option for parameter in serve.params for option in parameter.opts}
    assert set(arguments[::2]) <= known
    port = dict(zip(arguments[::2], arguments[1::2], strict=True))["--port"]
    assert dict(LAST)["EXPOSE"] == port
    (asked,) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)'", dict(LAST)["HEALTHCHECK"])
    assert asked[0] == port
    assert asked[1] in {r.path for r in create_app(Settings(enhancers=("gamma",))).routes}


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("constraints.txt", True),
        ("pyproject.toml", True),
        ("README.md", True),
        ("LICENSE", True),
        ("enhancekit/serve/page/page.js", True),
        ("plugins/mfnn/enhancekit_mfnn/weights/mfnn.safetensors", True),
        ("plugins/mfnn/tests/test_blocks.py", False),
        ("tests/conftest.py", False),
        (".git/HEAD", False),
        (".venv/bin/python", False),
        ("runs/a.pt", False),
    ],
)
def test_only_what_is_installed_is_sent(name, sent):
    found = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        path = PurePosixPath(name)
        places = [path, *path.parents][:-1]
        if any(place.match(pattern) for place in places if _level(pattern, place)):
            found = line.startswith("!")
    assert found == sent


def _level(pattern, place):
    """Docker's patterns are those of whole paths, where only ``**`` leads deeper."""
    return pattern.startswith("**/") or len(place.parts) == len(PurePosixPath(pattern).parts)
