"""``enhancekit plugins``: what was found, what each gives, and why one failed."""

from __future__ import annotations

import warnings
from collections import Counter

import typer

from enhancekit.cli.choices import Json
from enhancekit.cli.output import print_json, print_table
from enhancekit.plugins import PluginStatus, PluginWarning, host

__all__ = ["plugins"]


def plugins(as_json: Json = False) -> None:
    """Show the plugins found, with the cause where one failed."""
    with warnings.catch_warnings():
        # these stand in the table, so they need not be warned of as well
        warnings.filterwarnings("ignore", "plugin left out", PluginWarning)
        warnings.filterwarnings("ignore", "plugin .*", DeprecationWarning)
        statuses = host().statuses()
    if as_json:
        print_json(
            [
                {
                    "name": s.provider.plugin,
                    "distribution": s.provider.distribution,
                    "version": s.provider.version,
                    "status": s.status,
                    "gives": [f"{e.kind} {e.spec.name}" for e in s.entries],
                    "error": s.error or None,
                    "clashes": s.clashes,
                    "deprecations": s.deprecations,
                    "details": s.details or None,
                }
                for s in statuses
            ]
        )
        return
    print_table(
        ("plugin", "distribution", "status", "gives"),
        [
            (
                s.provider.plugin,
                str(s.provider),
                s.status,
                s.error or "; ".join((_counted(s), *s.clashes, *s.deprecations)),
            )
            for s in statuses
        ],
    )
    if any(s.status == "failed" for s in statuses):
        typer.echo("\n`enhancekit plugins --json` gives the tracebacks.")


def _counted(status: PluginStatus) -> str:
    return ", ".join(
        f"{n} {k if n == 1 else 'losses' if k == 'loss' else k + 's'}"
        for k, n in Counter(e.kind for e in status.entries).items()
    )
