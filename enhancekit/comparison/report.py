"""A comparison as one self-contained page, the most disputed picture on top."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from enhancekit.atomic import replacing
from enhancekit.comparison.folder import Compared, Failed, Version
from enhancekit.errors import FolderError
from enhancekit.pages import asset, document
from enhancekit.plain import to_json

__all__ = ["as_dict", "write_report"]

_COLUMNS: tuple[tuple[str, str, Callable[[Version], float | None], str], ...] = (
    ("time, s", "seconds that enhancing took", lambda v: v.seconds, ".2f"),
    ("brightness", "mean luma, 0 to 1", lambda v: v.measures.brightness, ".3f"),
    ("black, %", "pixels whose channels are all 0", lambda v: v.measures.black * 100, ".2f"),
    ("white, %", "pixels of which a channel is full", lambda v: v.measures.white * 100, ".2f"),
    ("noise", "estimated sigma in 1/255; texture counts", lambda v: v.measures.noise, ".1f"),
    ("cast", "mean colour's distance from grey in CIELAB", lambda v: v.measures.cast, ".1f"),
)


def as_dict(results: Sequence[Compared | Failed]) -> dict[str, Any]:
    """Return a comparison as plain values, most disputed first."""
    return {
        "pictures": [
            {
                "name": c.name,
                "disagreement": c.disagreement,
                "versions": [
                    {
                        "name": v.name,
                        "width": v.size[0],
                        "height": v.size[1],
                        "seconds": v.seconds,
                        **asdict(v.measures),
                    }
                    for v in c.versions
                ],
            }
            for c in _sorted(results)
        ],
        "failed": [asdict(f) for f in results if isinstance(f, Failed)],
    }


def write_report(path: Path, results: Sequence[Compared | Failed], title: str) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    results : sequence of Compared or Failed
        What `compare_folder` gave.
    title : str
        Heading.

    Raises
    ------
    FolderError
        If it cannot be written.
    """
    try:
        with replacing(path) as file:
            file.write(_page(results, title).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise FolderError(f"{path} cannot be written: {error.strerror or error}") from error


def _sorted(results: Sequence[Compared | Failed]) -> list[Compared]:
    compared = [r for r in results if isinstance(r, Compared)]
    return sorted(compared, key=lambda c: (-c.disagreement, c.name))


def _page(results: Sequence[Compared | Failed], title: str) -> str:
    compared = _sorted(results)
    failed = [r for r in results if isinstance(r, Failed)]
    body = [f"<header><h1>{html.escape(title)}</h1>"]
    if compared:
        count = f"{len(compared)} picture{'s' if len(compared) > 1 else ''}"
        body.append(
            f"<p>{count}, those on top first on which the enhancers disagree most. "
            "Drag the divider, or move it with the arrow keys; zoom with Ctrl and the wheel, with "
            "plus and minus, or by a double click.</p>"
        )
        body.append(_means(compared))
    body.append("</header>")
    if failed:
        rows = "".join(
            f"<tr><td>{html.escape(f.name)}</td><td>{html.escape(f.error)}</td></tr>"
            for f in failed
        )
        body.append(f'<section class="failed"><h2>Not compared</h2><table>{rows}</table></section>')
    body += [_section(c, number) for number, c in enumerate(compared)]
    style = asset("viewer.css") + asset("report.css", __package__)
    script = asset("viewer.js").replace("export class", "class") + asset("report.js", __package__)
    return document(title, "".join(body), style=style, script=script)


def _means(compared: Sequence[Compared]) -> str:
    rows = []
    for versions in zip(*(c.versions for c in compared), strict=True):
        cells = []
        for _, _, value, digits in _COLUMNS:
            known = [v for v in map(value, versions) if v is not None]
            cells.append(format(fmean(known), digits) if known else "")
        rows.append((versions[0].name, cells))
    return _table("Means", rows)


def _section(compared: Compared, number: int) -> str:
    rows = []
    for version in compared.versions:
        cells = []
        for _, _, value, digits in _COLUMNS:
            found = value(version)
            cells.append("" if found is None else format(found, digits))
        rows.append((version.name, cells))
    width, height = compared.versions[0].size
    pictures = to_json(
        [{"name": v.name, "address": v.address} for v in compared.versions],
        indent=None,
    ).replace("<", "\\u003c")
    name = html.escape(compared.name)
    return (
        f'<section class="picture" aria-labelledby="name-{number}">'
        f'<h2 id="name-{number}">{name}</h2>'
        f'<p class="fine">{width} &times; {height}; disagreement {compared.disagreement:.1f}</p>'
        '<div class="choices">'
        f"{_choice('Left', compared, -2)}{_choice('Right', compared, -1)}"
        '<div class="zoom" role="toolbar" aria-label="View">'
        '<button type="button" data-do="out" aria-label="Zoom out">&minus;</button>'
        "<output>100%</output>"
        '<button type="button" data-do="in" aria-label="Zoom in">+</button>'
        '<button type="button" data-do="fit">Fit</button>'
        '<button type="button" data-do="full">1:1</button></div></div>'
        f'<div class="view" tabindex="0" role="group" aria-label="{name}, two versions">'
        '<div class="pane before"><img alt="" draggable="false"></div>'
        '<div class="pane after"><img class="over" alt="" draggable="false"></div>'
        '<input type="range" class="unseen" min="0" max="100" value="50" '
        'aria-label="Divider between left and right">'
        '<div class="divider" aria-hidden="true"><span></span></div></div>'
        f"{_table('', rows)}"
        f'<script type="application/json">{pictures}</script></section>'
    )


def _choice(label: str, compared: Compared, chosen: int) -> str:
    preset = compared.versions[:3][chosen]  # the first two enhancers, or the input and the one
    options = "".join(
        f"<option{' selected' if v is preset else ''}>{html.escape(v.name)}</option>"
        for v in compared.versions
    )
    return f"<label>{label} <select>{options}</select></label>"


def _table(caption: str, rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    heads = "".join(
        f'<th scope="col" title="{html.escape(text)}">{html.escape(name)}</th>'
        for name, text, _, _ in _COLUMNS
    )
    lines = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, cells in rows
    )
    head = f"<caption>{caption}</caption>" if caption else ""
    return f'<div class="scroll"><table>{head}<tr><td></td>{heads}</tr>{lines}</table></div>'
