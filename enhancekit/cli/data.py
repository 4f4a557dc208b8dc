"""``enhancekit data check``: what a folder of pairs holds, and what is wrong with it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from enhancekit.cli.choices import HeldOut, Json
from enhancekit.cli.output import print_json, print_table, progress

__all__ = ["app"]

app = typer.Typer(help="Look at training data.", no_args_is_help=True)
_SHOWN = 10


@app.callback()
def _group() -> None:
    """Look at training data."""


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Holds low/ and high/, or input/ and target/.")],
    scene: Annotated[str, typer.Option(help="As in the recipe.")] = "",
    held_out: HeldOut = 0.1,
    as_json: Json = False,
) -> None:
    """Count, and look for broken pairs, duplicates and leaks. Exit code 1 if a pair is broken."""
    from enhancekit.training.data_check import check_pairs
    from enhancekit.training.evaluation import chosen_pairs

    unpaired: list[str] = []
    pairs = chosen_pairs(folder, scene=scene, skipped=unpaired)
    with progress() as shown:
        task = shown.add_task("reading", total=len(pairs))
        report = check_pairs(pairs, held_out, lambda: shown.advance(task))
    report.broken[:0] = unpaired
    if as_json:
        print_json(asdict(report))
    else:
        sizes = ", ".join(f"{size} ({count})" for size, count in report.sizes.items())
        print_table(
            (str(folder), ""),
            [
                ("pairs", f"{report.pairs} of {report.scenes} scenes, {report.held_out} held out"),
                ("sizes", sizes),
                ("inputs", _brightness(report.input_mean)),
                ("references", _brightness(report.target_mean)),
                ("duplicates", f"{len(report.duplicates)} groups of equal references"),
                ("leaks", f"{len(report.leaks)} held-out and training pairs show one view"),
                ("broken", str(len(report.broken))),
            ],
        )
        details = [
            *(f"broken: {line}" for line in report.broken),
            *(f"equal references: {', '.join(names)}" for names in report.duplicates),
            *(f"leak: {held} (held out) and {trained}" for held, trained in report.leaks),
        ]
        for line in details[:_SHOWN]:
            typer.echo(line)
        if len(details) > _SHOWN:
            typer.echo(f"... and {len(details) - _SHOWN} more; --json lists all")
    if report.broken:
        raise typer.Exit(1)


def _brightness(spread: tuple[float, float, float]) -> str:
    return f"mean brightness from {spread[0]:.3f} to {spread[2]:.3f}, median {spread[1]:.3f}"
