"""``enhancekit compare``: enhancers side by side on pictures without references, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enhancekit.cli.choices import (
    Device,
    Json,
    MaxPixels,
    Overwrite,
    Precision,
    Strength,
    Tile,
    refuse_existing,
    tile_value,
)
from enhancekit.cli.output import print_json, progress
from enhancekit.errors import FolderError
from enhancekit.imaging.formats import MAX_PIXELS

__all__ = ["compare"]


def compare(  # noqa: PLR0917
    folder: Annotated[Path, typer.Argument(help="A folder of pictures.", metavar="DIR")],
    enhancer: Annotated[
        list[str],
        typer.Option(
            "--enhancer", "-e", help="Name from `enhancekit list`, or file:PATH; may be repeated."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page, an .html file.")],
    strength: Strength = 1.0,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Compare the subfolders' pictures, too.")
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(help="Only names like this, e.g. '*.jpg'; may be repeated."),
    ] = None,
    side: Annotated[
        int, typer.Option(help="Longer side of the page's pictures, in pixels.", min=64)
    ] = 1200,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Tile = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: Overwrite = "never",
    as_json: Json = False,
) -> None:
    """Compare enhancers on the pictures of a folder, those they disagree on first."""
    from enhancekit.comparison import Failed, as_dict, compare_folder, write_report
    from enhancekit.inference.loading import load

    if output.suffix.lower() not in {".html", ".htm"}:
        raise FolderError(f"{output} is a page, whose name ends in .html")
    if not output.parent.is_dir():
        raise FolderError(f"{output} cannot be written: there is no folder {output.parent}")
    refuse_existing(output, overwrite)
    enhancers = [
        load(name, device=device, precision=precision, tile=tile_value(tile)) for name in enhancer
    ]
    count, results = compare_folder(
        folder,
        enhancers,
        strength=strength,
        recursive=recursive,
        include=include or (),
        side=side,
        max_pixels=max_pixels,
    )
    found = []
    with progress() as shown:
        task = shown.add_task("comparing", total=count)
        for result in results:
            found.append(result)
            shown.advance(task)
            if isinstance(result, Failed):
                typer.echo(f"error: {result.name}: {result.error}", err=True)
    names = " and ".join(e.entry.qualified_name for e in enhancers)
    write_report(output, found, f"{names} on {folder.resolve().name}")
    if as_json:
        print_json(as_dict(found))
    else:
        typer.echo(str(output))
    failed = sum(isinstance(result, Failed) for result in found)
    if failed:
        raise typer.Exit(1 if failed == len(found) else 3)
