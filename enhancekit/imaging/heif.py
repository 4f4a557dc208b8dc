"""HEIC files, through the extra ``heic``."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any, BinaryIO

from PIL import Image

from enhancekit.errors import ImageError

__all__ = ["is_heif", "open_heif", "save_heif"]

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_FILM = re.compile(rb"mpvd.{4}ftyp", re.DOTALL)
_SUBSAMPLING = {"4:4:4": "444", "4:2:2": "422", "4:2:0": "420"}


def is_heif(prefix: bytes) -> bool:
    """Tell a HEIC file from AVIF, which is built alike, by its first 64 bytes.

    Examples
    --------
    >>> is_heif(b"....ftypmif1....mif1heic"), is_heif(b"....ftypmif1....mif1avif")
    (True, False)
    """
    if prefix[4:8] != b"ftyp":
        return False
    length = int.from_bytes(prefix[:4], "big")
    ends = min(len(prefix), length if 16 <= length <= 64 else 64)
    brands = {prefix[8:12], *(prefix[at : at + 4] for at in range(16, ends, 4))}
    return bool(brands & _BRANDS) and not brands & {b"avif", b"avis"}


def _library() -> ModuleType:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(
            f"HEIC needs pillow-heif; pip install 'enhancekit[heic]' ({error})"
        ) from error
    return pillow_heif


def open_heif(
    file: BinaryIO, check: Callable[[tuple[int, int]], None]
) -> tuple[Image.Image, int, list[str]]:
    """Decode a HEIC file, upright, after `check` has passed the size its header states.

    Returns
    -------
    PIL.Image.Image
        Its main picture.
    int
        How many it holds.
    list of str
        What it holds beside them that is not read.

    Raises
    ------
    ImageError
        If the extra is missing, or it is of more than 8 bits a channel.
    """
    opened = _library().open_heif(file, convert_hdr_to_8bit=False)
    check(opened.size)
    bits = int(opened.info.get("bit_depth", 8))
    if bits > 8:
        raise ImageError(f"{bits} bits a channel are not read from HEIC; convert it to 16-bit TIFF")
    picture: Image.Image = opened.to_pillow()
    picture.format = "HEIF"
    kinds = [kind for kind, found in opened.info.get("aux", {}).items() for _ in found]
    gain_maps = [kind for kind in kinds if "gainmap" in kind]
    file.seek(0)
    beside = (
        ("its gain map for HDR screens", gain_maps),
        ("its map of distances", opened.info.get("depth_images")),
        ("what it holds besides colours, masks say,", len(kinds) > len(gain_maps)),
        ("the film that a telephone put into it", _FILM.search(file.read())),
    )
    return picture, len(opened), [what for what, there in beside if there]


def save_heif(picture: Image.Image, file: BinaryIO, options: dict[str, Any]) -> None:
    """Encode as HEIC; `options` are quality, subsampling and metadata by Pillow's names."""
    chroma = _SUBSAMPLING[options.pop("subsampling")]
    bare = picture.copy()
    bare.info = {}  # the options say what is kept
    _library().from_pillow(bare).save(file, chroma=chroma, **options)
