"""``enhancekit video``: a video in, a better video out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enhancekit.cli.choices import (
    Control,
    Device,
    Engine,
    Enhancer,
    Exposure,
    Mode,
    Options,
    Overwrite,
    Precision,
    Strength,
    Tile,
    Weights,
    default_enhancer,
    given_controls,
    given_options,
    refuse_existing,
    tile_value,
)
from enhancekit.cli.output import progress
from enhancekit.errors import OptionError

__all__ = ["video"]


def video(  # noqa: PLR0917
    source: Annotated[Path, typer.Argument(help="A video.", metavar="IN")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file: .mp4, .mov, .mkv or .webm.")
    ],
    enhancer: Enhancer = "",
    strength: Strength = 1.0,
    control: Control = None,
    exposure: Exposure = None,
    mode: Mode = "exact",
    smoothing: Annotated[
        float, typer.Option(help="Seconds over which the gain is smoothed; 0: not at all.")
    ] = 1.0,
    crf: Annotated[int, typer.Option(help="Quality of the encoder; 0 is best.")] = 18,
    option: Options = None,
    weights: Weights = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Tile = "auto",
    engine: Engine = "auto",
    overwrite: Overwrite = "never",
) -> None:
    """Enhance a video; sound and metadata are copied."""
    try:
        from enhancekit.video import enhance_video
    except ModuleNotFoundError as error:
        raise OptionError(
            f"video needs {error.name}; install it with: pip install 'enhancekit[video]'"
        ) from error
    from enhancekit.inference.loading import load

    refuse_existing(output, overwrite)
    name = enhancer or default_enhancer()
    loaded = load(
        name,
        device=device,
        precision=precision,
        tile=tile_value(tile),
        engine=engine,
        weights=weights,
        **given_options(option),
    )
    with progress() as shown:
        task = shown.add_task(name, total=None)
        count = enhance_video(
            source,
            output,
            loaded,
            strength=strength,
            mode=mode,
            controls=given_controls(control, exposure),
            smoothing=smoothing,
            crf=crf,
            on_frame=lambda done, total: shown.update(task, completed=done, total=total),
        )
    typer.echo(f"{output}  ({count} frames)")
