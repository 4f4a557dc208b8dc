"""``enhancekit export``: an enhancer as one ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enhancekit.cli.choices import Options, Overwrite, Weights, given_options, refuse_existing

__all__ = ["export"]


def export(
    name: Annotated[str, typer.Argument(help="An enhancer.")],
    output: Annotated[Path, typer.Argument(help="The file to write, ending in .onnx.")],
    weights: Weights = None,
    option: Options = None,
    overwrite: Overwrite = "never",
) -> None:
    """Write an enhancer as an ONNX file, checked against torch."""
    from enhancekit.export import export as write

    refuse_existing(output, overwrite)
    off = write(name, output, weights=weights, options=given_options(option))
    typer.echo(f"{output}  (at most {off:.1g} from torch)")
