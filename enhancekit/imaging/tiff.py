"""TIFF: its layout by the header, 16-bit colour in, and everything out."""

from __future__ import annotations

import logging
import math
import struct
import warnings
import zlib
from collections.abc import Set as AbstractSet
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffTags
from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

from enhancekit.errors import ImageError, ImageWarning
from enhancekit.imaging.deep import checked, codecs
from enhancekit.imaging.metadata import (
    IPTC_TAG,
    as_stored,
    captions,
    described,
    orientation_in,
    with_stated_profile,
)

__all__ = ["TiffLayout", "flat_tags", "pages_of", "read_tiff", "save_tiff"]

# tifffile tells of damage by its log as well as by exceptions; the latter are enough here
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_OFFSETS, _COUNTS, _XMP, _ICC = 273, 279, 700, 34675
_BELOW, _DNG_VERSION = 330, 50706
_STRIP = 2**20
"""Bytes of a strip before it is compressed, about."""
_COMPRESSIONS = {1, 5, 8, 32773, 32946, 34925, 50000}
"""None, LZW, Deflate (two numbers), PackBits, LZMA, Zstandard: the lossless ones in use."""
_WEBP = 50001
_SHALLOW_COMPRESSIONS = COMPRESSION_INFO.keys() - {_WEBP}
"""Those that Pillow reads, too; WebP it reads on few systems."""
_UNREAD = {
    34712: "JPEG 2000",
    34887: "LERC",
    34933: "PNG",
    _WEBP: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
"""Compressions that are not."""

_OTHERS = {
    33550: "GeoTIFF",
    33922: "GeoTIFF",
    34264: "GeoTIFF",
    34377: "Photoshop",
    34735: "GeoTIFF",
    37724: "Photoshop",
    42112: "GDAL",
    42113: "GDAL",
    50838: "ImageJ",
    50839: "ImageJ",
}
"""Tags of programs, which nothing here knows."""


class TiffLayout:
    """How a page of a TIFF stores its pixels, by its header alone.

    Parameters
    ----------
    file : binary file
        The whole file.
    start : int, optional
        Where the page's directory stands; by default the first one.
    """

    def __init__(self, file: BinaryIO, start: int | None = None) -> None:
        file.seek(0)
        head = file.read(8)
        if head[2:3] == b"\x2b":
            head += file.read(8)
        self.directory = ImageFileDirectory_v2(head)
        self.start = self.directory.next if start is None else start
        file.seek(self.start)
        self.directory.load(file)
        self.width, self.height = (int(self.directory[tag]) for tag in (256, 257))
        self.bits = self._values(258, (1,))
        self.photometric = int(self.directory.get(262, 0))
        self.kinds = set(self._values(339, (1,)))
        self.extra = self._values(338, ())
        self.compression = int(self.directory.get(259, 1))
        self.planes = int(self.directory.get(284, 1)) == 2
        self.tile = (int(self.directory.get(322, 1)), int(self.directory.get(323, 1)))

    def _values(self, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
        found = self.directory.get(tag, default)
        return tuple(int(v) for v in found) if isinstance(found, tuple) else (int(found),)

    @property
    def deep(self) -> bool:
        """Whether it is 16-bit colour or 16-bit grey with alpha.

        Raises
        ------
        ImageError
            If its samples are of a depth or kind that nothing here reads exactly.
        """
        said = self._said
        if self.bits == (32,) and self.photometric == 0:
            raise self.unread()
        if self.bits == (8, 8) and self.planes:
            raise ImageError(
                f"{said}, grey and alpha one after the other, are not read from TIFF; save it with "
                "both side by side"
            )
        if max(self.bits) <= 8 or (self.bits == (32,) and self.kinds == {3}):
            self._check_compression(_SHALLOW_COMPRESSIONS)
            return False
        if set(self.bits) != {16} or self.kinds != {1}:
            raise ImageError(
                f"{said} ({'/'.join(_KINDS.get(k, '?') for k in sorted(self.kinds))}) are not read "
                "from TIFF; 8 and 16 bits and 32-bit float grey are, so convert it first"
            )
        if len(self.bits) == 1 and self.photometric == 1:
            self._check_compression(_SHALLOW_COMPRESSIONS)
            return False
        colours = {1: 1, 2: 3}.get(self.photometric)
        if colours is None or len(self.bits) not in (colours, colours + 1):
            raise ImageError(
                f"{said}, {_COLOURS.get(self.photometric, 'of another kind')}, are not read from "
                "TIFF; grey and RGB with or without alpha are, so convert it first"
            )
        if len(self.bits) > colours and self.extra not in ((), (2,)):
            kind = "is premultiplied" if self.extra == (1,) else "has no stated meaning"
            raise ImageError(
                f"{said}, whose extra channel {kind}, are not read from TIFF; "
                "save it with unassociated alpha"
            )
        self._check_compression(_COMPRESSIONS)
        return True

    @property
    def _said(self) -> str:
        return f"samples of {', '.join(map(str, self.bits))} bits"

    def _check_compression(self, known: AbstractSet[int]) -> None:
        if self.compression not in known:
            named = _UNREAD.get(self.compression, f"number {self.compression}")
            raise ImageError(
                f"{self._said} in compression {named} are not read from TIFF; save it with LZW, "
                "Deflate or none"
            )

    def refuse_raw(self) -> None:
        """Refuse a camera's raw data, of which Pillow would give the preview.

        Raises
        ------
        ImageError
            If it is such a file: DNG, or one whose first picture is small and has others below it.
        """
        is_preview = int(self.directory.get(254, 0)) & 1 and _BELOW in self.directory
        if is_preview or _DNG_VERSION in self.directory:
            raise ImageError(
                "a camera's raw data, of which only the preview could be read; develop it first, "
                "to TIFF of 16 bits, say"
            )

    def palette(self) -> list[int] | None:
        """Return the colours of a palette that old programs wrote with 8 bits instead of 16."""
        found = self.directory.get(320) if self.photometric == 3 else None
        if not found or not 0 < max(found) < 256:
            return None
        count = len(found) // 3
        return [int(found[i + channel * count]) for i in range(count) for channel in range(3)]

    def unread(self) -> ImageError:
        """Return the error for channels that Pillow has no mode for."""
        extra = " with extra channels" if self.extra else ""
        return ImageError(
            f"{self._said}, {_COLOURS.get(self.photometric, 'of another kind')}{extra}, are not "
            "read from TIFF; grey, RGB and CMYK are, and grey and RGB with alpha before any other "
            "channel, so convert it first"
        )

    def tell_of_what_is_left_out(self, where: str) -> None:
        """Warn of channels without a stated meaning, and of tags of others, as of maps."""
        colours = {2: 3, 5: 4, 6: 3, 8: 3}.get(self.photometric, 1)
        samples = int(self.directory.get(277, 1))
        alpha = 1 if self.extra[:1] != (0,) else 0
        if samples > colours + alpha and max(self.bits) <= 8:
            warnings.warn(
                f"{where}: {samples - colours - alpha} of its {samples} channels have no meaning "
                "here and are left out",
                ImageWarning,
                stacklevel=2,
            )
        if _BELOW in self.directory:
            warnings.warn(
                f"{where}: what lies below its pages (SubIFDs), small copies perhaps, is left out",
                ImageWarning,
                stacklevel=2,
            )
        others = sorted(tag for tag in self.directory if tag in _OTHERS)
        if others:
            named = ", ".join(f"{tag} ({_OTHERS[tag]})" for tag in others)
            warnings.warn(f"{where}: its tags {named} are left out", ImageWarning, stacklevel=2)

    @property
    def orientation(self) -> int:
        """Which way up it is, by its tag or by its XMP."""
        return int(self.directory.get(274) or orientation_in(self.directory.get(_XMP)))

    def info(self, file: BinaryIO) -> tuple[dict[Any, Any], int]:
        """Return the metadata as PIL names them, and the orientation."""
        found: dict[Any, Any] = {
            "icc_profile": self.directory.get(_ICC),
            "xmp": self.directory.get(_XMP),
        }
        unit = {2: 1.0, 3: 2.54}.get(int(self.directory.get(296, 2)))
        if unit and 282 in self.directory and 283 in self.directory:
            found["dpi"] = tuple(float(self.directory[tag]) * unit for tag in (282, 283))
        exif = Image.Exif()
        file.seek(0)
        head = file.read(4)
        # all told: left to find the first page itself, Pillow reads a header of 8 bytes
        exif.endian, exif.bigtiff = "<" if head[:2] == b"II" else ">", 43 in head[2:]
        exif.load_from_fp(file, self.start)
        told = with_stated_profile({**found, **described(exif)}, exif)
        return {**told, **captions(self.directory)}, self.orientation


def pages_of(file: BinaryIO) -> list[TiffLayout]:
    """Return the layouts of all pages.

    Raises
    ------
    ImageError
        If they follow each other in a circle.
    """
    pages = [TiffLayout(file)]
    seen = {pages[0].start}
    while following := pages[-1].directory.next:
        if following in seen:
            raise ImageError("damaged: its pages follow each other in a circle")
        seen.add(following)
        pages.append(TiffLayout(file, following))
    return pages


_KINDS = {1: "unsigned", 2: "signed", 3: "float"}
_COLOURS = {0: "white is zero", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab"}


def read_tiff(file: BinaryIO, layout: TiffLayout, number: int = 0) -> NDArray[np.uint16]:
    """Decode a page of a TIFF that is deep, exactly; `number` counts from 0.

    Returns
    -------
    numpy.ndarray
        uint16, shape (H, W, C).

    Raises
    ------
    Exception
        Whatever the codec raises on a damaged file.
    """
    codecs("16-bit colour")  # which tifffile would miss only in the middle
    import tifffile

    file.seek(0)
    with tifffile.TiffFile(file) as opened:
        page = opened.pages[number].aspage()
        wanted = (layout.height, layout.width, len(layout.bits))
        if page.dtype != np.uint16:
            raise ValueError(f"pixels of {page.dtype}")
        if len(page.dataoffsets) != math.prod(page.chunked) or min(page.databytecounts) <= 0:
            raise ValueError("strips or tiles are missing")  # tifffile would give zeros for them
        pixels = page.asarray(maxworkers=1)
        if page.planarconfig == 2 and pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, 2)
        return checked(pixels.reshape(wanted))


def save_tiff(
    pixels: NDArray[Any], file: BinaryIO, kept: dict[str, Any], *, link: int | None = None
) -> int:
    """Encode as TIFF (Deflate with a predictor) with the metadata given.

    Pillow's own writer loses or refuses the part of EXIF that tells of the exposure as soon as it
    compresses, and has no 16 bits in colour.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (H, W) or (H, W, C), C from 2 (grey, alpha) to 4; uint8, uint16, or float32 grey.
    file : binary file
        Empty, or after other pages.
    kept : dict
        ``icc_profile``, ``exif``, ``xmp``, ``iptc`` and ``dpi``, where there are any.
    link : int, optional
        What this gave for the page before.

    Returns
    -------
    int
        Where the file says that a page follows.

    Examples
    --------
    >>> import io
    >>> buffer = io.BytesIO()
    >>> _ = save_tiff(np.array([[[1, 700, 65535]]], np.uint16), buffer, {})
    >>> _ = buffer.seek(0)
    >>> read_tiff(buffer, TiffLayout(buffer))
    array([[[    1,   700, 65535]]], dtype=uint16)
    """
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    real = pixels.dtype.kind == "f"
    rows = max(1, _STRIP // (pixels.itemsize * width * channels))
    strips = [_strip(pixels[y : y + rows]) for y in range(0, height, rows)]
    if file.tell() + sum(map(len, strips)) >= 2**32 - 2**24:
        raise ImageError("more than 4 GB, which a TIFF cannot hold; use PNG")
    directory = ImageFileDirectory_v2(prefix=b"II")
    _describe(directory, kept)
    directory.tagtype[_OFFSETS] = directory.tagtype[_COUNTS] = TiffTags.LONG
    for tag, value in {
        256: width,
        257: height,
        258: (8 * pixels.itemsize,) * channels,
        259: 8,  # Deflate
        262: 2 if channels > 2 else 1,
        # Pillow's directory adds to the offsets what it takes up itself
        _OFFSETS: tuple(np.cumsum([0, *map(len, strips[:-1])]).tolist()),
        277: channels,
        278: rows,
        _COUNTS: tuple(map(len, strips)),
        284: 1,  # channels side by side
        317: 1 if real else 2,
        339: (3 if real else 1,) * channels,
    }.items():
        directory[tag] = value
    if channels in (2, 4):
        directory[338] = (2,)  # alpha, not premultiplied
    if link is not None:
        file.write(b"\0" * (file.tell() % 2))  # directories stand at even places
        start = file.tell()
        file.seek(link)
        file.write(struct.pack("<I", start))
        file.seek(start)
    start = file.tell() or len(b"II*\0") + 4
    directory.save(file)
    file.writelines(strips)
    return start + 2 + 12 * len(directory)


def flat_tags(kept: dict[str, Any]) -> ImageFileDirectory_v2:
    """Return metadata as tags of a TIFF's main directory alone, as Pillow's writer takes them.

    Examples
    --------
    >>> dict(flat_tags({"xmp": b"<x/>"}))
    {700: b'<x/>'}
    """
    directory = ImageFileDirectory_v2(prefix=b"II")
    _describe(directory, {k: v for k, v in kept.items() if k in ("exif", "xmp", "iptc")})
    below = [tag for tag in directory if isinstance(directory[tag], dict)]
    for tag in below:
        del directory[tag]
    if below:
        warnings.warn(
            "exposure and place in EXIF are left out of a TIFF that is saved with options; save it "
            "without",
            ImageWarning,
            stacklevel=4,
        )
    return directory


def _describe(directory: ImageFileDirectory_v2, kept: dict[str, Any]) -> None:
    if "exif" in kept:
        exif, photograph = Image.Exif(), Image.Exif()
        try:
            exif.load(kept["exif"])
            # without what is about another file's pixels
            photograph.load(described(exif).get("exif", b""))
            for tag in photograph:
                entries = photograph.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else None
                if entries is None:
                    directory[tag] = as_stored(photograph[tag])
                else:
                    directory[tag] = {k: as_stored(v) for k, v in entries.items()}
        except Exception as error:  # noqa: BLE001 damaged EXIF raises many kinds
            for tag in list(directory):
                del directory[tag]
            warnings.warn(
                f"the EXIF is damaged and left out of a TIFF ({type(error).__name__}: {error})",
                ImageWarning,
                stacklevel=2,
            )
    if "dpi" in kept:
        directory[282], directory[283] = kept["dpi"]
        directory[296] = 2
    for name, tag, kind in (
        ("icc_profile", _ICC, TiffTags.UNDEFINED),
        ("xmp", _XMP, TiffTags.BYTE),
        ("iptc", IPTC_TAG, TiffTags.UNDEFINED),
    ):
        if name in kept:
            directory.tagtype[tag] = kind
            directory[tag] = kept[name]


def _strip(rows: NDArray[Any]) -> bytes:
    """Compress rows; whole numbers as differences from the pixel to the left, predictor 2."""
    changes = rows.astype(rows.dtype.newbyteorder("<"))
    if rows.dtype.kind == "u":
        changes[:, 1:] -= rows[:, :-1]
    return zlib.compress(changes.tobytes(), 6)
