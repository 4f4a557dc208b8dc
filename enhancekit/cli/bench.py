"""``enhancekit bench``: the speed of enhancers as one table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from enhancekit.cli.choices import Json
from enhancekit.cli.output import print_json, print_table
from enhancekit.errors import OptionError
from enhancekit.plugins import host

__all__ = ["bench"]


def bench(
    names: Annotated[
        list[str], typer.Argument(help="Enhancers; file:PATH or onnx:PATH, too.", metavar="NAME...")
    ],
    size: Annotated[
        list[str] | None, typer.Option(help="HEIGHTxWIDTH or 12MP; may be repeated.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="auto, fp32, ...; may be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Timed rounds, after one untimed.", min=1)] = 5,
    as_json: Json = False,
) -> None:
    """Compare the speed of enhancers with reference points, in one run."""
    try:
        import pytest_benchmark  # noqa: F401

        from enhancekit.inference.loading import find_scheme
        from enhancekit.testing.options import read_size
    except ModuleNotFoundError as error:
        raise OptionError(
            f"measuring speed needs {error.name}; install it with: pip install 'enhancekit[bench]'"
        ) from error
    for name in names:
        if not find_scheme(name):
            host().enhancers.get(name)
    for text in size or ():
        read_size(text)
    asked = [f"--enhancer={name}" for name in names]
    asked += [f"--size={s}" for s in size or ()]
    asked += [f"--precision={p}" for p in precision or ()]
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        command = [sys.executable, "-m", "pytest", "-p", "enhancekit.testing.options"]
        command += ["--pyargs", "enhancekit.testing.benchmarks", "--benchmark-only", "-q"]
        command += [f"--rounds={rounds}", f"--benchmark-json={results}", *asked]
        command += ["-p", "no:cacheprovider", f"--rootdir={folder}", "-c", os.devnull]
        # OpenMP's spinning makes timings a hundred times too long beside another busy process
        env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, env=env
        )
        if done.returncode or not results.exists():
            raise OptionError(f"the speed suite failed: {_cause(done.stdout + done.stderr)}")
        measured = json.loads(results.read_text("utf-8"))["benchmarks"]
    if as_json:
        print_json([_plain(m) for m in measured])
        return
    for group in dict.fromkeys(m["group"] for m in measured):
        own = [m for m in measured if m["group"] == group]
        unit = next(m["stats"]["min"] for m in own if m["name"].startswith("test_yardstick"))
        rows = [_row(m, unit) for m in sorted(own, key=lambda m: float(m["stats"]["min"]))]
        columns = ("what", "ms, least", "yardsticks", "MP/s", "peak MiB", "multiply-adds/px")
        print_table(columns, rows, title=group)
    typer.echo("yardstick: ten 3x3 convolutions of 64 channels with ReLU, 256x256, fp32, = 1")


def _plain(measured: dict[str, Any]) -> dict[str, Any]:
    keys = ("min", "mean", "stddev", "rounds")
    return {
        "name": measured["name"].removeprefix("test_"),
        "size": measured["group"],
        **{key: measured["stats"][key] for key in keys},
        **measured["extra_info"],
    }


def _row(measured: dict[str, Any], unit: float) -> tuple[str, ...]:
    found, least = measured["extra_info"], float(measured["stats"]["min"])
    adds = found.get("multiply_adds_per_pixel")
    yard = "yardstick" in measured["name"]
    return (
        measured["name"].removeprefix("test_"),
        f"{least * 1e3:.1f}",
        f"{least / unit:.2f}",
        "" if yard else f"{found['megapixels_per_second']:.2f}",
        f"{found['peak_mib']:.0f}",
        f"{adds:,}" if adds else "",
    )


def _cause(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E ", "ERROR", "error"))]
    return (errors or lines or ["it printed nothing"])[-1]
