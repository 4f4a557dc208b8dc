"""``enhancekit new-plugin``: write an installable plugin whose tests pass at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from enhancekit.scaffold import new_plugin as write_plugin

__all__ = ["new_plugin"]


def new_plugin(
    name: Annotated[str, typer.Argument(help="Name of the package and plugin: acme-blocks.")],
    kind: Annotated[
        Literal["block", "backbone", "loss", "metric", "enhancer"],
        typer.Option(help="What it registers."),
    ],
    parent: Annotated[
        Path, typer.Option("--in", help="Folder in which the package's folder is made.")
    ] = Path(),
) -> None:
    """Write a new plugin: a package that can be installed, with tests that pass."""
    folder = write_plugin(name, kind, parent)
    typer.echo(f"wrote {folder}")
    typer.echo(f'next: cd {folder} && pip install -e ".[test]" && pytest')
