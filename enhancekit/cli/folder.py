"""``enhancekit enhance FOLDER``: what `enhancekit.batch.enhance_folder` does, shown as it goes."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import typer

from enhancekit.cli.output import print_json, print_table, progress
from enhancekit.errors import OptionError

__all__ = ["enhance_folder"]


def enhance_folder(folder: Path, output: Path, name: str, *, as_json: bool, **asked: Any) -> None:
    """Enhance a folder, and say at the end what failed; `asked` goes to the function as it is.

    Raises
    ------
    typer.Exit
        With code 3 if some pictures failed, 1 if all did.
    """
    from enhancekit.batch import Ray, Shard
    from enhancekit.batch import enhance_folder as enhanced
    from enhancekit.batch.listing import left_out

    counts: Counter[str] = Counter()
    failed: list[tuple[str, str]] = []
    total = 0
    if "shard" in asked:
        asked["shard"] = Shard.parse(asked["shard"])
    address, workers = asked.pop("ray", None), asked.pop("workers", None)
    if address is not None:
        asked["ray"] = Ray(address, workers)
    elif workers is not None:
        raise OptionError("--workers goes with --ray; without it, --jobs is what you mean")
    results = enhanced(folder, output, name, **asked)
    try:
        # Ray prints of its workers' ends on standard output, which is for what we say
        with (
            contextlib.redirect_stdout(sys.stderr),
            contextlib.closing(results),  # type: ignore[type-var]
            progress() as shown,
        ):
            task = shown.add_task(name, total=None)
            for result in results:
                counts[result.status] += 1
                total = result.total
                here = counts["kept"] + counts["stale"]
                # what is kept costs no time, and would spoil the rate and the time left
                shown.update(task, total=total - here, completed=counts.total() - here)
                if result.error is not None:
                    failed.append((str(result.input), result.error))
    finally:
        recursive, include = asked.get("recursive", False), asked.get("include", ())
        left = left_out(folder, recursive=recursive, include=include, skip=output.resolve())
        _report(counts, failed, total, output, left, as_json=as_json)
    if failed:
        raise typer.Exit(1 if len(failed) == total else 3)


def _report(
    counts: Counter[str],
    failed: list[tuple[str, str]],
    total: int,
    output: Path,
    left_out: dict[str, int],
    *,
    as_json: bool,
) -> None:
    if as_json:
        print_json(
            {
                "output": str(output),
                "total": total,
                **{status: counts[status] for status in ("done", "kept", "stale", "failed")},
                "failures": [{"input": source, "error": error} for source, error in failed],
                "left_out": left_out,
            }
        )
        return
    if failed:
        rows = [(source, why.removeprefix(f"{source}: ")) for source, why in failed]
        print_table(("failed", "why"), rows, error=True)
    said = [f"{counts['done']} done", f"{counts['kept']} kept"]
    if counts["stale"]:
        said.append(
            f"{counts['stale']} kept that are stale (of another input or other settings; "
            "--overwrite stale replaces them)"
        )
    said.append(f"{len(failed)} failed")
    if left := total - counts.total():
        said.append(f"{left} not begun, or finished while stopping; the same command goes on")
    typer.echo(f"{output}: {', '.join(said)}")
    subfolders = left_out.pop("subfolders", 0)
    named = [f"{count} {suffix}, which is not read" for suffix, count in left_out.items()]
    if subfolders:
        named.append(f"the pictures of {subfolders} subfolder(s), which --recursive does")
    if named:
        typer.echo(f"left out: {'; '.join(named)}")
