"""What the commands print: tables for people, JSON for machines, progress on standard error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from enhancekit.errors import OptionError
from enhancekit.plain import to_json

if TYPE_CHECKING:
    from rich.progress import Progress

_ENDLESS = 10_000

__all__ = ["print_json", "print_table", "progress", "settings"]


def print_json(value: Any) -> None:
    """Print a value as strict JSON."""
    typer.echo(to_json(value))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str = "",
    *,
    error: bool = False,
) -> None:
    """Print a table, on standard error if asked; narrow terminals alone wrap its cells."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    console = Console(stderr=error)
    if console.is_terminal:
        console.print(table)
        return
    console.width = _ENDLESS  # in a log or a pipe a name shall stand in one piece
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().splitlines()
    typer.echo("\n".join(line.rstrip() for line in lines), err=error)


def progress() -> Progress:
    """Return a progress display on standard error, silent unless that is a terminal.

    It shows how many are done, how many a second, and the time left.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.2g}/s" if speed else "", style="progress.data.speed")

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def settings(texts: Iterable[str], option: str) -> dict[str, Any]:
    """Read ``key=value`` options; values are JSON where they can be, else text.

    Examples
    --------
    >>> settings(["width=8", "block=acme:fast"], "--option")
    {'width': 8, 'block': 'acme:fast'}
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise OptionError(f"{option} takes key=value, not {text!r}")
        if key in found:
            raise OptionError(f"{option} {key} is given twice")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
