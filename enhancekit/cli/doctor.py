"""``enhancekit doctor``: what works here, what is missing, and how to get it."""

from __future__ import annotations

import warnings
from dataclasses import asdict

import typer

from enhancekit.cli.choices import Json
from enhancekit.cli.output import print_json, print_table

__all__ = ["doctor"]


def doctor(as_json: Json = False) -> None:
    """Show what works here, what is missing and how to get it; exit code 1 where anything fails."""
    from enhancekit.diagnosis import diagnose

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each stands in the table
        findings = diagnose()
    if as_json:
        print_json([asdict(f) for f in findings])
    else:
        rows = [
            (f.status, f.subject, f"{f.found}\n-> {f.remedy}" if f.remedy else f.found)
            for f in findings
        ]
        print_table(("", "subject", "found -> what to do"), rows)
    if any(f.status == "problem" for f in findings):
        raise typer.Exit(1)
