"""``enhancekit evaluate``: figures of enhancers on pairs of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from enhancekit.cli.choices import (
    Control,
    Device,
    Json,
    Mode,
    Options,
    Precision,
    Tile,
    given_options,
    tile_value,
)
from enhancekit.cli.output import print_json, progress, settings
from enhancekit.errors import DataError, OptionError

__all__ = ["evaluate"]


def evaluate(  # noqa: PLR0917
    names: Annotated[list[str], typer.Argument(help="Enhancers.", metavar="NAME...")],
    data: Annotated[
        Path,
        typer.Option(help="Folder holding low/ and high/, or input/ and target/; see --make."),
    ],
    make: Annotated[
        str,
        typer.Option(
            help="The folder holds references alone, and inputs are made: gaussian:25, poisson:30, "
            "camera, dark, bicubic-x2, bicubic-x3 or bicubic-x4."
        ),
    ] = "",
    protocol: Annotated[
        str, typer.Option(help="rgb, lol, y-border2, y-border3 or y-border4.")
    ] = "rgb",
    split: Annotated[
        Literal["all", "held-out"],
        typer.Option(help="All pairs, or the scenes that `train` holds out."),
    ] = "all",
    held_out: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share held out; what the weights' cards say, else 0.1."),
    ] = None,
    scene: Annotated[
        str, typer.Option(help="Regular expression whose group names the scene, as in the recipe.")
    ] = "",
    metric: Annotated[
        list[str] | None, typer.Option(help="Instead of the protocol's; may be repeated.")
    ] = None,
    gt_mean: Annotated[
        bool,
        typer.Option("--gt-mean", help="Also give figures scaled to the reference's mean."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for CSV, JSON, Markdown and an HTML page."),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(help="Weights of your own; once for each enhancer, in their order."),
    ] = None,
    option: Options = None,
    control: Control = None,
    mode: Mode = "exact",
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Tile = "auto",
    as_json: Json = False,
) -> None:
    """Measure enhancers on pairs of pictures."""
    from enhancekit.inference.loading import load
    from enhancekit.training import evaluation_report as report
    from enhancekit.training.evaluation import (
        Evaluation,
        chosen_pairs,
        held_out_share,
        read_sample,
    )
    from enhancekit.training.protocols import find_protocol

    if len(names) > 1 and (option or control):
        raise OptionError("--option and --control belong to one enhancer; evaluate it alone")
    if weights and len(weights) != len(names):
        raise OptionError("--weights stands once for each enhancer, in their order")
    if held_out is not None and split == "all":
        raise OptionError("--held-out is the share of --split held-out; give both, or neither")
    if make and scene:
        raise OptionError("--scene groups pairs; with --make each picture is a scene of its own")
    controls = settings(control or (), "--control")
    options = given_options(option)
    own: list[Path | None] = [*weights] if weights else [None] * len(names)
    chosen = find_protocol(protocol)
    how = {"device": device, "precision": precision, "tile": tile_value(tile), **options}
    enhancers = [load(name, weights=path, **how) for name, path in zip(names, own, strict=True)]
    share = None
    if split == "held-out":
        share = held_out_share(held_out, None if make else scene, enhancers)
    pairs = chosen_pairs(data, scene=scene, held_out=share, made=bool(make))
    evaluations = [
        Evaluation(
            enhancer,
            chosen,
            metric or (),
            gt_mean,
            controls,
            options,
            path,
            mode,
            {"folder": str(data), "make": make, "held_out": share, "scene": scene},
        )
        for enhancer, path in zip(enhancers, own, strict=True)
    ]
    if output and output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; a report needs a folder")
    with progress() as shown:
        task = shown.add_task("evaluating", total=len(pairs))
        strips = {}
        for pair in pairs:
            sample = read_sample(pair, make)
            strips[pair.name] = report.measure(sample, evaluations, pictures=output is not None)
            shown.advance(task)
    if output:
        title = " ".join((", ".join(names), "on", data.name, make, *(control or ())))
        report.write_report(output, evaluations, strips, title.rstrip())
    if as_json:
        print_json(report.as_dict(evaluations))
        return
    typer.echo(report.as_markdown(evaluations))
