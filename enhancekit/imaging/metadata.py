"""EXIF, XMP and the like: what describes a photograph, and which way up it is."""

from __future__ import annotations

import re
import struct
import warnings
from typing import Any

from numpy.typing import NDArray
from PIL import ExifTags, Image

from enhancekit.errors import ImageWarning

__all__ = ["described", "examined", "kept", "turned", "upright", "upright_info"]

_ORIENTATION = int(ExifTags.Base.Orientation)
_DESCRIPTIVE = {
    int(getattr(ExifTags.Base, name))
    for name in (
        *("ImageDescription", "DocumentName", "Make", "Model", "Software", "DateTime", "Artist"),
        *("HostComputer", "Copyright", "Rating", "RatingPercent"),
        *("XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject"),
    )
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)[2-8]")


def kept(info: dict[Any, Any]) -> dict[str, Any]:
    """Return what goes with the pixels from one file to the next.

    Examples
    --------
    >>> kept({"xmp": b"<x/>", "gamma": 0.45, "exif": b""})
    {'xmp': b'<x/>'}
    """
    found = {k: info[k] for k in ("icc_profile", "exif", "xmp") if _is_bytes(info.get(k))}
    dpi = info.get("dpi")
    # Pillow gives 1 for a TIFF that states none
    if isinstance(dpi, tuple) and len(dpi) == 2 and all(1 < float(d) < 1e5 for d in dpi):
        found["dpi"] = tuple(float(d) for d in dpi)
    return found


def _is_bytes(value: Any) -> bool:
    return isinstance(value, bytes) and bool(value)


def examined(picture: Image.Image, where: str) -> tuple[dict[Any, Any], int]:
    """Return a loaded picture's info, as of an upright one, and the orientation it has.

    EXIF that cannot be read is left out, with a warning that calls the picture `where`.

    Examples
    --------
    >>> examined(Image.new("L", (1, 1)), "an example")
    ({}, 1)
    """
    info = dict(picture.info)
    value = 1
    try:
        exif = picture.getexif()
        value = exif.get(_ORIENTATION, 1)
        if picture.format == "TIFF":
            info.update(described(exif))
        elif "exif" not in info and "Raw profile type exif" in info:
            info["exif"] = exif.tobytes()
    except Exception as error:  # noqa: BLE001 damaged EXIF raises many kinds, and the pixels are fine
        warnings.warn(
            f"{where}: its EXIF cannot be read and is left out ({type(error).__name__}: {error})",
            ImageWarning,
            stacklevel=2,
        )
        info.pop("exif", None)
    return upright_info(info), value if value in _TURNS else 1


def upright(picture: Image.Image, where: str) -> Image.Image:
    """Return a picture of its own that is the right way up and says so in its EXIF and XMP."""
    info, orientation = examined(picture, where)
    turn = _TURNS.get(orientation)
    done = picture.copy() if turn is None else picture.transpose(turn)
    done.info = info
    done.format = picture.format
    return done


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn an array (H, W, C) by an EXIF orientation.

    Examples
    --------
    >>> import numpy as np
    >>> turned(np.array([[[1], [2]], [[3], [4]]]), 6)[..., 0]
    array([[3, 1],
           [4, 2]])
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def upright_info(info: dict[Any, Any]) -> dict[Any, Any]:
    """Return a picture's info with the orientation in EXIF and XMP reset to upright."""
    changed = dict(info)
    if _is_bytes(info.get("exif")):
        changed["exif"] = _upright_exif(info["exif"])
    if _is_bytes(info.get("xmp")):
        changed["xmp"] = _XMP_ORIENTATION.sub(rb"\g<1>1", info["xmp"])
    return changed


def _upright_exif(exif: bytes) -> bytes:
    """Reset the tag where it stands: makers' notes hold offsets that a rewritten EXIF breaks."""
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = "<" if exif[start : start + 2] == b"II" else ">"
    try:
        first = start + struct.unpack_from(f"{order}I", exif, start + 4)[0]
        (count,) = struct.unpack_from(f"{order}H", exif, first)
        for place in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, place)
            if tag == _ORIENTATION:
                code = f"{order}{'I' if kind == 4 else 'H'}"
                if struct.unpack_from(code, exif, place + 8)[0] in _TURNS:
                    one = struct.pack(code, 1)
                    return exif[: place + 8] + one + exif[place + 8 + len(one) :]
    except struct.error:  # too short for what it says; then nothing in it turns a picture either
        pass
    return exif


def described(exif: Image.Exif) -> dict[str, bytes]:
    """Return EXIF of the part of a TIFF's directory that is about the photograph, not the file."""
    found = Image.Exif()
    for tag in _DESCRIPTIVE & exif.keys():
        found[tag] = exif[tag]
    any_entries = False
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if entries := exif.get_ifd(directory):
            found.get_ifd(directory).update(entries)
            any_entries = True
    return {"exif": found.tobytes()} if any_entries or len(found) else {}
