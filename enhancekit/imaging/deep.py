"""16 bits a channel in colour or with alpha, for which Pillow has no mode, and their codec."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from enhancekit.errors import ImageError

__all__ = ["DEEP_MODES", "checked", "codecs", "read_png", "save_png", "text_chunks"]

DEEP_MODES = {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}
"""Their names, by the number of channels; Pillow has none."""


def codecs(what: str) -> ModuleType:
    """Return imagecodecs, which has no build for some systems.

    Raises
    ------
    ImageError
        If it is not installed; `what` needs it.
    """
    try:
        import imagecodecs
    except ImportError as error:
        raise ImageError(f"{what} needs imagecodecs; pip install imagecodecs ({error})") from error
    return imagecodecs


def read_png(data: bytes) -> NDArray[np.uint16]:
    """Decode a PNG of 16 bits, exactly; a transparent colour becomes alpha.

    Returns
    -------
    numpy.ndarray
        uint16, shape (H, W, C).

    Examples
    --------
    >>> import io
    >>> buffer = io.BytesIO()
    >>> save_png(np.full((1, 1, 3), 1000, np.uint16), buffer, {})
    >>> read_png(buffer.getvalue())
    array([[[1000, 1000, 1000]]], dtype=uint16)
    """
    return checked(codecs("16-bit colour").png_decode(data))


def checked(pixels: NDArray[Any]) -> NDArray[np.uint16]:
    """Return decoded pixels if they are 16 bits in colour or with alpha.

    Raises
    ------
    ImageError
        If a codec gave something else, such as fewer bits.

    Examples
    --------
    >>> checked(np.zeros((1, 1, 3), np.uint16)).shape
    (1, 1, 3)
    """
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in DEEP_MODES:
        raise ImageError(f"damaged: {pixels.dtype} of shape {pixels.shape} came out for 16 bits")
    return pixels


def save_png(pixels: NDArray[np.uint16], file: BinaryIO, kept: dict[str, Any]) -> None:
    """Encode as PNG with the metadata given."""
    data = codecs("16-bit colour").png_encode(np.ascontiguousarray(pixels))
    after_header = 8 + 25
    file.write(data[:after_header])
    if "icc_profile" in kept:
        _chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(kept["icc_profile"]))
    if "exif" in kept:
        _chunk(file, b"eXIf", kept["exif"].removeprefix(b"Exif\0\0"))
    for name, payload in text_chunks(kept):
        _chunk(file, name, payload)
    if "dpi" in kept:
        per_metre = (round(d / 0.0254) for d in kept["dpi"])
        _chunk(file, b"pHYs", struct.pack(">IIB", *per_metre, 1))
    file.write(data[after_header:])


def text_chunks(kept: dict[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    r"""Give name and payload of the chunks that hold XMP, texts and a JPEG's comment in a PNG.

    Examples
    --------
    >>> list(text_chunks({"text": {"Title": "Été"}}))
    [(b'tEXt', b'Title\x00\xc9t\xe9')]
    """
    if "xmp" in kept:
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + kept["xmp"]
    texts = dict(kept.get("text", {}))
    if "comment" in kept:
        texts.setdefault("Comment", _read_comment(kept["comment"]))
    for key, text in texts.items():
        keyword = key.encode("latin-1") + b"\0"
        told = [getattr(text, name, None) or "" for name in ("lang", "tkey")]
        if not any(told) and all(ord(character) < 256 for character in text):
            yield b"tEXt", keyword + text.encode("latin-1")
        else:
            yield b"iTXt", keyword + b"\0\0" + "\0".join((*told, text)).encode()


def _read_comment(comment: bytes) -> str:
    """Read a JPEG's comment, of which no standard says how it is written."""
    try:
        return comment.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return comment.decode("latin-1")


def _chunk(file: BinaryIO, name: bytes, payload: bytes) -> None:
    checksum = zlib.crc32(name + payload)
    file.write(struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", checksum))
