"""``enhancekit evaluate``: figures of one enhancer on pairs of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from enhancekit.cli.choices import Device, Json, Options, Precision, Tile, Weights, tile_value
from enhancekit.cli.output import print_json, print_table, progress, settings

__all__ = ["evaluate"]


def evaluate(  # noqa: PLR0917
    name: Annotated[str, typer.Argument(help="An enhancer.")],
    data: Annotated[
        Path, typer.Option(help="Folder holding low/ and high/, or input/ and target/.")
    ],
    split: Annotated[
        Literal["all", "held-out"],
        typer.Option(help="All pairs, or the scenes that `train` holds out."),
    ] = "all",
    held_out: Annotated[float, typer.Option(help="Share held out, as in the recipe.")] = 0.1,
    scene: Annotated[
        str, typer.Option(help="Regular expression whose group names the scene, as in the recipe.")
    ] = "",
    metric: Annotated[
        list[str] | None, typer.Option(help="Metrics; may be repeated. Default: psnr, ssim.")
    ] = None,
    weights: Weights = None,
    option: Options = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Tile = "auto",
    as_json: Json = False,
) -> None:
    """Measure an enhancer on pairs of pictures."""
    from enhancekit.inference.loading import load
    from enhancekit.training.evaluation import Evaluation, chosen_pairs

    pairs = chosen_pairs(data, scene=scene, held_out=held_out if split == "held-out" else None)
    loaded = load(
        name,
        device=device,
        precision=precision,
        tile=tile_value(tile),
        weights=weights,
        **settings(option or (), "--option"),
    )
    evaluation = Evaluation(loaded, metric or ["psnr", "ssim"])
    with progress() as shown:
        for pair in shown.track(pairs, description=name):
            evaluation.add(pair)
    result = evaluation.result()
    if as_json:
        print_json(result)
        return
    protocol = {m: d["protocol"] for m, d in result["metrics"].items()}
    print_table(
        ("metric", "mean", "worst", "protocol"),
        [
            (
                m,
                f"{d['mean']:.4f} {d['unit']}",
                f"{d['worst']:.4f} ({d['worst_picture']})",
                protocol[m],
            )
            for m, d in result["metrics"].items()
        ],
        title=f"{loaded.entry.qualified_name} on {len(pairs)} pairs of {data} ({split})",
    )
