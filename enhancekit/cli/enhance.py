"""``enhancekit enhance``: pictures in, better pictures out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from enhancekit.cli.choices import (
    Control,
    Device,
    Engine,
    Enhancer,
    Exposure,
    Json,
    Lossless,
    MaxPixels,
    Metadata,
    Mode,
    Options,
    Precision,
    Quality,
    Strength,
    Subsampling,
    Tile,
    Weights,
    default_enhancer,
    given_controls,
    given_options,
    tile_value,
)
from enhancekit.cli.folder import enhance_folder
from enhancekit.cli.output import print_json, progress
from enhancekit.errors import ImageError, OptionError
from enhancekit.imaging.formats import MAX_PIXELS, SUFFIXES, Encoding

__all__ = ["enhance"]


def enhance(  # noqa: PLR0917
    inputs: Annotated[
        list[Path],
        typer.Argument(
            # what cannot be read is told of by name, and doesn't stop the others
            help="Pictures, or one folder of them.",
            metavar="IN...",
            readable=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="A file, or a folder for several pictures, made if missing.",
            readable=False,
        ),
    ],
    enhancer: Enhancer = "",
    strength: Strength = 1.0,
    control: Control = None,
    exposure: Exposure = None,
    mode: Mode = "exact",
    option: Options = None,
    weights: Weights = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Tile = "auto",
    engine: Engine = "auto",
    overwrite: Annotated[
        Literal["never", "always", "stale"],
        typer.Option(
            help="Where the output exists: refuse (of a folder: keep it), replace it, or, of a "
            "folder, replace it if its input or the settings changed."
        ),
    ] = "never",
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="Of the outputs, e.g. png, instead of the one their names say."
        ),
    ] = None,
    quality: Quality = None,
    subsampling: Subsampling = None,
    lossless: Lossless = False,
    metadata: Metadata = "keep",
    max_pixels: MaxPixels = MAX_PIXELS,
    frames: Annotated[
        Literal["first", "all"],
        typer.Option(help="Of animations and files of several pages: the first picture, or all."),
    ] = "first",
    as_json: Json = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Do the folder's subfolders, too.")
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(help="Of a folder: only names like this, e.g. '*.jpg'; may be repeated."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Of a folder: pictures in hand at once; 3 by default.", min=1)
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Of a folder: only the i-th of n parts, written i/n.")
    ] = None,
    keep_going: Annotated[
        bool | None,
        typer.Option(
            "--keep-going/--no-keep-going", help="Of a folder: go on after a failure (the default)."
        ),
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds after which a picture is given up.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Of a folder: share it out among processes of Ray: local, auto, or the address "
            "of a cluster.",
            metavar="ADDRESS",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="With --ray: how many; by default one for each GPU or every four CPUs.", min=1
        ),
    ] = None,
) -> None:
    """Enhance pictures."""
    if engine == "ray":
        raise OptionError("Ray computes no networks, it shares folders out; use --ray local")
    encoding = Encoding(quality, subsampling, lossless, metadata, file_format)
    controls = given_controls(control, exposure)
    asked = _given(
        recursive=recursive or None,
        include=include or None,
        jobs=jobs,
        shard=shard,
        keep_going=keep_going,
        ray=ray,
        workers=workers,
    )
    how: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "tile": tile_value(tile),
        "weights": weights,
        "engine": engine,
        "options": given_options(option),
        "strength": strength,
        "mode": mode,
        "controls": controls,
        "encoding": encoding,
        "max_pixels": max_pixels,
        "frames": frames,
    }
    name = enhancer or default_enhancer()
    if len(inputs) == 1 and _is_folder(inputs[0]):
        enhance_folder(
            inputs[0],
            output,
            name,
            time_limit=time_limit,
            overwrite=overwrite,
            as_json=as_json,
            **how,
            **asked,
        )
        return
    if asked or overwrite == "stale":
        unfit = next(iter(asked), "overwrite stale").replace("_", "-")
        raise OptionError(f"--{unfit} is for one folder of pictures, not for files by name")
    from enhancekit.batch.files import enhance_files
    from enhancekit.batch.work import Plan

    targets = _writable(inputs, output, encoding, replace=overwrite == "always")
    plan = Plan(enhancer=name, **how)
    loaded = plan.load()
    loaded.check(strength=strength, mode=mode, **controls)
    done: list[dict[str, Any]] = []
    try:
        with progress() as shown:
            task = shown.add_task(plan.enhancer, total=len(inputs))
            pairs = zip(inputs, targets, strict=True)
            for job, error, seconds in enhance_files(pairs, plan, loaded, time_limit=time_limit):
                report: dict[str, Any] = {"input": str(job.source), "output": None, "error": error}
                if error is None and job.size is not None:
                    width, height = job.size
                    report |= {"output": str(job.target), "width": width, "height": height}
                else:
                    typer.echo(f"error: {error}", err=True)
                done.append(report | {"seconds": round(seconds, 3)})
                shown.advance(task)
    finally:  # interrupted, it says what it has done
        _report(loaded.entry.qualified_name, done, as_json=as_json)
    failed = sum(report["error"] is not None for report in done)
    if failed:
        raise typer.Exit(1 if failed == len(done) else 3)


def _report(name: str, done: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json({"enhancer": name, "pictures": done})
        return
    for report in done:
        if report["output"]:
            typer.echo(f"{report['output']}  ({report['seconds']:.1f} s)")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long; reading the file says so
        return False


def _given(**options: Any) -> dict[str, Any]:
    """Leave out what was not given, so that defaults stand in one place."""
    return {name: value for name, value in options.items() if value is not None}


def _writable(inputs: list[Path], output: Path, encoding: Encoding, *, replace: bool) -> list[Path]:
    """Return where each result goes, refusing what cannot be written before any work is done."""
    from enhancekit.imaging.pictures import check_output

    try:
        targets = _targets(inputs, output, encoding)
        for source, target in zip(inputs, targets, strict=True):
            try:
                check_output(target, encoding)
            except ImageError:
                if len(inputs) == 1 and not source.exists():  # perhaps a mistyped folder's name
                    raise ImageError(f"{source} does not exist") from None
                raise
            if not replace and os.path.lexists(target):
                raise ImageError(f"{target} exists already; pass --overwrite always to replace it")
    except OSError as error:  # a name too long, a loop of links, a folder that may not be entered
        raise ImageError(f"{error.filename or output}: {error.strerror or error}") from error
    return targets


def _targets(inputs: list[Path], output: Path, encoding: Encoding) -> list[Path]:
    if folder := next((source for source in inputs if _is_folder(source)), None):
        raise ImageError(f"{folder} is a folder, which goes alone: one folder, or pictures")
    # a pattern may match one picture today and two tomorrow
    is_file = bool(output.suffix or encoding.format or output.exists())
    if len(inputs) == 1 and not output.is_dir() and (is_file or not inputs[0].is_file()):
        targets = [output]
    else:
        if not output.is_dir():
            if output.exists() or output.suffix.lower() in SUFFIXES:  # more likely a slip
                raise ImageError(f"{output} is no folder, which several pictures need")
            output.mkdir()
        targets = [output / encoding.renamed(source.name) for source in inputs]
    if len(set(targets)) < len(targets):
        raise ImageError(f"two of the inputs share a name and would both become one in {output}")
    for source, target in zip(inputs, targets, strict=True):
        if source.exists() and target.exists() and source.samefile(target):
            raise ImageError(f"{source} would overwrite itself; choose another output")
    return targets
