"""``enhancekit list``: everything registered, without importing torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import typer

from enhancekit.cli.choices import Json
from enhancekit.cli.output import print_json, print_table
from enhancekit.plugins import host

__all__ = ["list_names"]

Kind = Literal["enhancers", "backbones", "blocks", "losses", "metrics", "schemes", "all"]


def list_names(
    kind: Annotated[Kind, typer.Argument(help="What to list.")] = "enhancers",
    as_json: Json = False,
) -> None:
    """List what is registered."""
    kinds = get_args(Kind)[:-1] if kind == "all" else (kind,)
    found: dict[str, list[dict[str, Any]]] = {}
    for each in kinds:
        found[each] = [
            {
                "name": name,
                "qualified_name": entry.qualified_name,
                "plugin": entry.provider.plugin,
                "distribution": str(entry.provider),
                "summary": entry.spec.summary,
            }
            for name, entry in zip(
                getattr(host(), each).names(), getattr(host(), each).list(), strict=True
            )
        ]
    if as_json:
        print_json(found if kind == "all" else found[kind])
        return
    for each, rows in found.items():
        print_table(
            (each[:-2] if each == "losses" else each[:-1], "plugin", "summary"),
            [(r["name"], r["plugin"], r["summary"]) for r in rows],
        )
        if kind == "all":
            typer.echo("")
