"""What Pillow doesn't tell before it decodes: sizes, depths, formats, and damage to a PNG."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from enhancekit.errors import ImageError

__all__ = ["avif_bits", "check_png", "png_is_deep", "webp_size"]

_DRAWN = (b"tRNS", b"fcTL", b"fdAT")
"""Chunks of a PNG that decide its pixels, besides those that it calls critical."""
_BLOCK = 2**20


def webp_size(prefix: bytes) -> tuple[int, int]:
    """Return the width and height that the first 30 bytes of a WebP file state.

    Raises
    ------
    ValueError
        If they state none.

    Examples
    --------
    >>> webp_size(b"RIFF....WEBPVP8X........" + bytes([4, 0, 0, 2, 0, 0]))
    (5, 3)
    """
    kind, body = prefix[12:16], prefix[20:30]
    if kind == b"VP8X" and len(body) == 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8 " and len(body) == 10 and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        packed = int.from_bytes(body[1:5], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    raise ValueError("no size in the header")


def png_is_deep(prefix: bytes, *, keyed: bool) -> bool:
    """Tell by its first 26 bytes whether a PNG needs 16 bits in more than one channel.

    Parameters
    ----------
    prefix : bytes
        Of the file.
    keyed : bool
        Whether it has a transparent colour, which becomes alpha.

    Examples
    --------
    >>> png_is_deep(bytes(24) + bytes([16, 2]), keyed=False)
    True
    """
    return len(prefix) > 25 and prefix[24] == 16 and (prefix[25] != 0 or keyed)


def check_png(file: BinaryIO) -> None:
    """Compare the checksums of what decides a PNG's pixels, which Pillow doesn't.

    Where the file ends within a chunk it is left to the decoder, which may need no more.

    Parameters
    ----------
    file : binary file
        The whole file.

    Raises
    ------
    ImageError
        If one is wrong.
    """
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"IEND":
            return
        if not (name[:1].isupper() or name in _DRAWN):  # a small letter: not critical
            file.seek(length + 4, 1)
            continue
        start, found = file.tell() - 8, zlib.crc32(name)
        while length and (block := file.read(min(length, _BLOCK))):
            found = zlib.crc32(block, found)
            length -= len(block)
        stated = file.read(4)
        if len(stated) == 4 and found != int.from_bytes(stated, "big"):
            raise ImageError(
                f"damaged: the checksum of its chunk {name.decode('latin-1')!r} at byte {start:,} "
                "is wrong"
            )


def avif_bits(file: BinaryIO) -> int:
    """Return the bits per channel that the AV1 configurations of an AVIF file state.

    Parameters
    ----------
    file : binary file
        At its start.
    """
    bits = 8
    for payload in _boxes(file, (b"meta", b"moov")):
        at = payload.find(b"av1C")
        while at >= 0:
            flags = payload[at + 6] if len(payload) > at + 6 else 0
            if flags & 0x40:
                bits = max(bits, 12 if flags & 0x20 else 10)
            at = payload.find(b"av1C", at + 4)
    return bits


def _boxes(file: BinaryIO, wanted: tuple[bytes, ...]) -> list[bytes]:
    """Return the payloads of top-level boxes of the ISO base media format, by name."""
    found = []
    while len(head := file.read(8)) == 8:
        size, name = struct.unpack(">I4s", head)
        used = 8
        if size == 1:
            size, used = int.from_bytes(file.read(8), "big"), 16
        if name in wanted:
            found.append(file.read(size - used if size >= used else -1))
        if size < used:  # to the end of the file
            break
        if name not in wanted:
            file.seek(size - used, 1)
    return found
