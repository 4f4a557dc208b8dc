"""``enhancekit info``: one enhancer, its plugin, its options and its weights' model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from enhancekit.cli.choices import Json
from enhancekit.cli.output import print_json, print_table
from enhancekit.plugins import host

__all__ = ["info"]


def info(
    name: Annotated[str, typer.Argument(help="An enhancer.")],
    weights: Annotated[
        Path | None, typer.Option(help="Show the card of these weights instead.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show an enhancer and the model card of its weights."""
    entry = host().enhancers.get(name)
    spec = entry.spec
    shown: dict[str, Any] = {
        "name": entry.qualified_name,
        "distribution": str(entry.provider),
        "summary": spec.summary,
        "task": spec.task,
        "code": spec.target or f"backbone {spec.backbone}",
        "config": dict(spec.config),
        "controls": {k: list(v) for k, v in spec.controls.items()},
        "card": None,
    }
    if weights is not None or spec.weights is not None:
        from enhancekit.weights import read_card, shipped

        path = weights if weights is not None else shipped(spec.weights)  # type: ignore[arg-type]
        card = read_card(path)
        shown["precision"] = _precision(card.parity_db)
        shown["card"] = {"file": str(path), **asdict(card)}
    if as_json:
        print_json(shown)
        return
    rows = [(key, _text(value)) for key, value in shown.items() if key != "card"]
    print_table(("enhancer", ""), rows)
    typer.echo("")
    if shown["card"]:
        print_table(("weights", ""), [(k, _text(v)) for k, v in shown["card"].items()])
    elif spec.backbone:
        typer.echo(f"No weights are shipped. Train some: {spec.train_hint or 'enhancekit train'}")


def _precision(parity_db: Mapping[str, float]) -> str:
    """Say what precision="auto" chooses on this machine, and why."""
    from enhancekit.inference.device import choose_device, choose_precision, precision_name

    device = choose_device("auto")
    dtype, reason = choose_precision("auto", device, parity_db)
    return f"{precision_name(dtype)} on {device}: {reason}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{k}: {_text(v)}" for k, v in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(v) for v in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
