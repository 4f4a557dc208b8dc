"""What the pages that enhancekit writes and serves have in common: pictures, frame and viewer."""

from __future__ import annotations

import base64
import html
import io
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["asset", "data_address", "document"]


def asset(name: str, package: str = "enhancekit.pages") -> str:
    """Return the text of a file of a package, e.g. ``"viewer.js"`` of this one."""
    return (resources.files(package) / name).read_text("utf-8")


def data_address(picture: NDArray[np.uint8], side: int, quality: int = 88) -> str:
    """Return a picture as JPEG in a data address, so that a page needs no file beside it.

    Parameters
    ----------
    picture : numpy.ndarray
        uint8, shape (H, W) or (H, W, 3).
    side : int
        Pixels of its longer side, at most.
    quality : int
        Of the JPEG.

    Examples
    --------
    >>> data_address(np.zeros((4, 4, 3), np.uint8), 440)[:32]
    'data:image/jpeg;base64,/9j/4AAQS'
    """
    small = Image.fromarray(picture)
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def document(title: str, body: str, *, style: str, script: str = "") -> str:
    """Return a page that stands alone: it loads nothing, and its policy forbids it to.

    Parameters
    ----------
    title : str
        Plain text.
    body, style, script : str
        HTML, CSS and a JavaScript module.

    Examples
    --------
    >>> document("<1>", "<p>x</p>", style="")[-67:]
    '<title>&lt;1&gt;</title><style></style><body><p>x</p></body></html>'
    """
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    )
    code = f'<script type="module">{script}</script>' if script else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{html.escape(title)}</title><style>{style}</style>"
        f"<body>{body}{code}</body></html>"
    )
