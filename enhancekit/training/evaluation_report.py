"""Evaluations as files: CSV by picture, JSON, Markdown, and one self-contained HTML page."""

from __future__ import annotations

import csv
import hashlib
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from enhancekit.atomic import replacing
from enhancekit.errors import DataError
from enhancekit.inference.device import precision_name
from enhancekit.pages import data_address, document
from enhancekit.plain import to_json
from enhancekit.plugins import host
from enhancekit.training.evaluation import Evaluation, Sample

__all__ = ["Strip", "as_dict", "as_markdown", "measure", "write_report"]

Strip = dict[str, str]
"""Pictures of one pair as data addresses: ``"input"``, ``"reference"``, and each enhancer's."""

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1400px;padding:0 1rem;
color-scheme:light dark}table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #8884}
td:first-child,th:first-child{text-align:left}
.strip{display:flex;gap:.5rem;flex-wrap:wrap;margin:.3rem 0 1.6rem}figure{margin:0}
img{max-width:440px;display:block}figcaption{font-size:13px}
"""


_BAR = r"\|"
"""A bar within a cell of Markdown."""


def as_dict(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Return evaluations as plain values."""
    return [
        {
            "enhancer": e.enhancer.entry.qualified_name,
            "label": label,
            "distribution": str(e.enhancer.entry.provider),
            "controls": dict(e.controls),
            "options": dict(e.options),
            "mode": e.mode,
            "data": dict(e.data),
            "weights": None if e.weights is None else _file(e.weights),
            "precision": precision_name(e.enhancer.precision),
            "protocol": e.protocol.name,
            "pairs": len(e.rows),
            "scenes": len({row["scene"] for row in e.rows}),
            "metrics": {name: asdict(summary) for name, summary in e.summaries().items()},
            "pictures": e.rows,
        }
        for label, e in _labelled(evaluations)
    ]


def _file(path: Path) -> dict[str, str]:
    return {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _labelled(evaluations: Sequence[Evaluation]) -> list[tuple[str, Evaluation]]:
    """Give each evaluation a name that tells it from the others."""
    names: list[str] = []
    labels: list[str] = []
    for e in evaluations:
        given = [f"{name}={value}" for name, value in {**e.options, **e.controls}.items()]
        given += [] if e.mode == "exact" else [f"mode={e.mode}"]
        given += [] if e.weights is None else [str(e.weights)]
        provider = e.enhancer.entry.provider
        given += [str(provider)] if provider.plugin in host().schemes else []
        names.append(" ".join((e.enhancer.entry.qualified_name, *given)))
        count = names.count(names[-1])
        labels.append(f"{names[-1]} #{count}" if count > 1 else names[-1])
    return list(zip(labels, evaluations, strict=True))


def as_markdown(evaluations: Sequence[Evaluation]) -> str:
    """Return a table of means with their 95% intervals, and below it how they were computed."""
    head, *rows = _cells(evaluations)
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(c.replace('|', _BAR) for c in line)} |" for line in lines)
    return f"{table}\n\n{_note(evaluations)}\n"


def _cells(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """Return the table's rows, the head first."""
    first = evaluations[0].summaries()
    rows = [["enhancer", *(f"{n}, {s.unit}" if s.unit else n for n, s in first.items())]]
    for label, evaluation in _labelled(evaluations):
        row = [label]
        one = len({row["scene"] for row in evaluation.rows}) == 1  # which tells no spread
        for summary in evaluation.summaries().values():
            low, high = summary.interval
            digits = 2 if summary.unit == "dB" else 4
            mean = f"{summary.mean:.{digits}f}"
            row.append(mean if one else f"{mean} ({low:.{digits}f} to {high:.{digits}f})")
        rows.append(row)
    return rows


def _note(evaluations: Sequence[Evaluation]) -> str:
    first = evaluations[0]
    scenes = len({row["scene"] for row in first.rows})
    metrics = "; ".join(f"{column}: {how}" for column, how in first.notes().items())
    precisions = ", ".join(dict.fromkeys(precision_name(e.enhancer.precision) for e in evaluations))
    interval = ", 95% interval by scene in brackets" if scenes > 1 else ""
    return (
        f"Means over {len(first.rows)} pictures of {scenes} scenes{_which(first.data)}{interval}. "
        f"Computed in {precisions}. Protocol `{first.protocol.name}`: {first.protocol.text}. "
        f"{metrics}."
    )


def _which(data: Mapping[str, Any]) -> str:
    """Say which pairs they are, where that is known."""
    if not data:
        return ""
    made = f", inputs made: {data['make']}" if data["make"] else ""
    share = data["held_out"]
    split = "" if share is None else f", the share of {share:g} that is held out"
    scene = f", scenes by {data['scene']}" if data["scene"] else ""
    return f" of {data['folder']}{made}{split}{scene}"


def measure(sample: Sample, evaluations: Sequence[Evaluation], *, pictures: bool) -> Strip:
    """Add a sample to each evaluation; with `pictures`, return the thumbnails of all involved."""
    outputs = {label: e.add(sample) for label, e in _labelled(evaluations)}
    if not pictures:
        return {}
    given = sample.input
    if given.dtype != np.uint8:
        given = np.rint(given.clip(0, 1) * 255).astype(np.uint8)
    shown = {"input": given, **outputs, "reference": sample.reference}
    return {caption: data_address(picture, 440) for caption, picture in shown.items()}


def write_report(
    folder: Path, evaluations: Sequence[Evaluation], strips: dict[str, Strip], title: str
) -> None:
    """Write ``pictures.csv``, ``results.json``, ``results.md`` and ``report.html``.

    Parameters
    ----------
    folder : Path
        Made if missing.
    evaluations : sequence of Evaluation
        Of the same pairs under the same protocol.
    strips : dict of str to Strip
        Thumbnails by picture name.
    title : str
        Heading of the page.

    Raises
    ------
    DataError
        If the folder cannot be written.
    """
    results = to_json(as_dict(evaluations))
    files = {
        "pictures.csv": _csv(evaluations),
        "results.json": results,
        "results.md": as_markdown(evaluations),
        "report.html": _page(evaluations, strips, title),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with replacing(folder / name) as file:
                file.write(text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise DataError(f"the report cannot be written to {folder}: {error}") from error


def _csv(evaluations: Sequence[Evaluation]) -> str:
    buffer = io.StringIO()
    names = list(evaluations[0].rows[0])
    writer = csv.DictWriter(buffer, ["enhancer", *names])
    writer.writeheader()
    for label, evaluation in _labelled(evaluations):
        writer.writerows({"enhancer": label, **row} for row in evaluation.rows)
    return buffer.getvalue()


def _page(evaluations: Sequence[Evaluation], strips: dict[str, Strip], title: str) -> str:
    first = evaluations[0]
    metric, summary = next(iter(first.summaries().items()))
    order = sorted(first.rows, key=lambda r: r[metric], reverse=not summary.higher_is_better)
    figures = {
        label: {row["picture"]: row[metric] for row in e.rows}
        for label, e in _labelled(evaluations)
    }
    body = [f"<h1>{html.escape(title)}</h1>", _table(evaluations)]
    body.append(f"<p>Worst {html.escape(metric)} of the first enhancer on top.</p>")
    for row in order:
        name = row["picture"]
        shown = []
        for caption, address in strips.get(name, {}).items():
            value = f" {figures[caption][name]:.4g}" if caption in figures else ""
            label = html.escape(f"{caption}{value}")
            alternative = html.escape(f"{name}, {caption}")
            shown.append(
                f'<figure><img src="{address}" alt="{alternative}" loading="lazy">'
                f"<figcaption>{label}</figcaption></figure>"
            )
        body.append(f'<h2>{html.escape(name)}</h2><div class="strip">{"".join(shown)}</div>')
    return document(title, "".join(body), style=_STYLE)


def _table(evaluations: Sequence[Evaluation]) -> str:
    head, *rows = _cells(evaluations)
    cells = "".join(f"<th>{html.escape(c)}</th>" for c in head)
    lines = "".join(
        f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in row)}</tr>" for row in rows
    )
    return f"<table><tr>{cells}</tr>{lines}</table><p>{html.escape(_note(evaluations))}</p>"
