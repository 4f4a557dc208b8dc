"""``enhancekit info``: one enhancer, its plugin, its options and its weights' model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enhancekit.cli.choices import Json
from enhancekit.cli.output import print_json, print_table
from enhancekit.plugins import host

if TYPE_CHECKING:
    from enhancekit.registry import Entry
    from enhancekit.specs import EnhancerSpec
    from enhancekit.weights import Card

__all__ = ["info"]


def info(
    name: Annotated[str, typer.Argument(help="An enhancer, or scheme:place as load takes it.")],
    weights: Annotated[
        Path | None, typer.Option(help="Show the card of these weights instead.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show an enhancer and the model card of its weights."""
    entry, card, file = _found(name, weights)
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
    if card is not None:
        shown["precision"] = _precision(card.parity_db)
        shown["card"] = {"file": file, **asdict(card)}
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


def _found(name: str, weights: Path | None) -> tuple[Entry[EnhancerSpec], Card | None, str]:
    """Find an enhancer, its card, and the file that stands in; loads it if it has a scheme."""
    if ":" in name:  # only then is there a reason to import torch
        from enhancekit.inference.loading import find_scheme, load

        if find_scheme(name):
            loaded = load(name, device="cpu", weights=weights)
            return loaded.entry, loaded.card, name
    entry = host().enhancers.get(name)
    if weights is None and entry.spec.weights is None:
        return entry, None, ""
    from enhancekit.weights import read_card, shipped

    path = weights if weights is not None else shipped(entry.spec.weights)  # type: ignore[arg-type]
    return entry, read_card(path), str(path)


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
