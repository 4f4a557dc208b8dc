"""Picture files in and out through Pillow, refusing by name what would lose something."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from enhancekit.atomic import replacing
from enhancekit.errors import ImageError

__all__ = ["FORMATS", "check_output", "decode", "read_rgb8", "write"]

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""Formats that are read, by Pillow's names."""

_BITS_PER_SAMPLE = 258
_DESCRIPTIVE = {
    int(getattr(ExifTags.Base, name))
    for name in ("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist", "Copyright")
}
_WRITTEN = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
_MODES = {
    "BMP": ("L", "RGB"),
    "JPEG": ("L", "RGB"),
    "PNG": ("L", "LA", "RGB", "RGBA", "I;16"),
    "TIFF": ("L", "LA", "RGB", "RGBA", "I;16", "F"),
    "WEBP": ("RGB", "RGBA"),
}
_SAVE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_deflate"},
}


def decode(source: str | os.PathLike[str] | bytes) -> Image.Image:
    """Read a picture completely and turn it upright.

    Parameters
    ----------
    source : path-like or bytes
        A file, or the bytes of one: BMP, JPEG, PNG, TIFF or WebP.

    Returns
    -------
    PIL.Image.Image
        Loaded; its EXIF orientation applied and removed; ICC profile and EXIF in ``info``.

    Raises
    ------
    ImageError
        If it is missing, no picture, truncated, or of a kind whose reading would lose something
        (animations, several pages, 16 bits in more than one channel).
    """
    if isinstance(source, bytes):
        return _decode(source, f"the {len(source)} bytes given")
    path = Path(source)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise ImageError(f"{path} is a folder, not a picture") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
    return _decode(data, str(path))


def _decode(data: bytes, where: str) -> Image.Image:
    if not data:
        raise ImageError(f"{where}: empty, no picture in it")
    _refuse_deep_png(data, where)
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        _refuse_frames(picture, where)
        _refuse_deep_tiff(picture, where)
        picture.load()
        upright = _upright(picture)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(
            f"{where}: not a picture that can be read; read are {', '.join(FORMATS)} "
            "(16 bits a channel: one channel only)"
        ) from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{where}: too many pixels: {error}") from None
    except Exception as error:  # codecs raise at least eight different kinds on broken files
        raise ImageError(
            f"{where}: damaged or truncated: {type(error).__name__}: {error}"
        ) from error
    upright.format = picture.format
    return upright


def _refuse_deep_png(data: bytes, where: str) -> None:
    """Pillow reads 16-bit colour PNG as 8 bit in silence, so the header is asked first."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 25 and data[24] == 16 and data[25] != 0:
        raise _too_deep(where, "PNG")


def _refuse_deep_tiff(picture: Image.Image, where: str) -> None:
    """Pillow reads 16-bit colour TIFF as 8 bit in silence, too."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        bits = picture.tag_v2.get(_BITS_PER_SAMPLE, (1,))
        if len(bits) > 1 and max(bits) > 8:
            raise _too_deep(where, "TIFF")


def _too_deep(where: str, kind: str) -> ImageError:
    return ImageError(
        f"{where}: 16 bits a channel in colour or with alpha are not read from {kind} yet; pass "
        "the pixels as a uint16 array, which keeps every bit"
    )


def _upright(picture: Image.Image) -> Image.Image:
    """Turn a loaded picture by its EXIF orientation; EXIF that cannot be read is dropped."""
    try:
        exif = picture.getexif()
        if picture.format == "TIFF" and (kept := _descriptive(exif)):
            picture.info["exif"] = kept.tobytes()
        return ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001 damaged EXIF raises many kinds and says nothing of the pixels
        plain = picture.copy()
        plain.info.pop("exif", None)
        return plain


def _descriptive(exif: Image.Exif) -> Image.Exif:
    """Return the part of a TIFF's directory that describes the photograph, not the file."""
    kept = Image.Exif()
    for tag in _DESCRIPTIVE & exif.keys():
        kept[tag] = exif[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if found := exif.get_ifd(directory):
            kept.get_ifd(directory).update(found)
    return kept


def _refuse_frames(picture: Image.Image, where: str) -> None:
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # a JPEG whose further frames are previews
        raise ImageError(
            f"{where}: has {frames} frames or pages; only single pictures are supported yet, "
            "so split it first"
        )


def read_rgb8(path: Path) -> NDArray[np.uint8]:
    """Read an 8-bit picture as an RGB array (H, W, 3); grey is repeated, alpha is refused.

    Raises
    ------
    ImageError
        If it cannot be read or is not 8-bit grey or RGB.
    """
    picture = decode(path)
    if picture.mode not in ("L", "P", "RGB") or "transparency" in picture.info:
        alpha = " with transparency" if "transparency" in picture.info else ""
        raise ImageError(f"{path}: mode {picture.mode}{alpha} cannot be trained on; use 8-bit RGB")
    return np.array(picture.convert("RGB"))


def check_output(path: Path) -> None:
    """Refuse a target that cannot be written, before any work is done.

    Raises
    ------
    ImageError
        If its suffix is unknown, or its folder is missing or not writable.
    """
    if path.suffix.lower() not in _WRITTEN:
        raise ImageError(
            f"{path}: cannot write {path.suffix or 'a file without a suffix'}; written are "
            + ", ".join(sorted(_WRITTEN))
        )
    if path.is_dir():
        raise ImageError(f"{path} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise ImageError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ImageError(f"{path} cannot be written: no permission to write in {path.parent}")


def write(picture: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a picture with its ICC profile and EXIF; the file appears complete or not at all.

    Parameters
    ----------
    picture : PIL.Image.Image
        What to write.
    path : path-like
        The suffix decides the format. JPEG gets quality 95 without chroma subsampling, WebP is
        lossless.

    Raises
    ------
    ImageError
        If the format cannot hold the picture's mode, or the file cannot be written.
    """
    path = Path(path)
    check_output(path)
    kind = _WRITTEN[path.suffix.lower()]
    if picture.mode not in _MODES[kind]:
        able = ", ".join(s for s, k in sorted(_WRITTEN.items()) if picture.mode in _MODES[k])
        raise ImageError(
            f"{path}: {kind} cannot hold a picture of mode {picture.mode} without loss; "
            f"use {able or 'another mode'}"
        )
    kept = {k: picture.info[k] for k in ("icc_profile", "exif") if picture.info.get(k)}
    if kind == "BMP":
        kept = {}  # the format has no place for them
    try:
        with replacing(path) as file:
            picture.save(file, format=kind, **_SAVE.get(kind, {}), **kept)
    except Exception as error:  # codecs raise OSError, ValueError, SyntaxError, struct.error ...
        raise ImageError(f"{path} cannot be written: {error}") from error
