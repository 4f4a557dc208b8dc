"""Pictures, and the files they become: nothing is lost unsaid, nothing written by halves."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from enhancekit.atomic import need_replaceable, replacing
from enhancekit.errors import ImageError, ImageWarning
from enhancekit.imaging.deep import DEEP_MODES, save_png, text_chunks
from enhancekit.imaging.formats import SUFFIXES, Encoding, Format
from enhancekit.imaging.frames import Frames, check_kind, save_animation, save_pages
from enhancekit.imaging.heif import save_heif
from enhancekit.imaging.metadata import kept, resized_exif, without_orientation
from enhancekit.imaging.modes import plain_mode
from enhancekit.imaging.tiff import flat_tags

__all__ = [
    "DeepPicture",
    "Photograph",
    "Picture",
    "check_fits",
    "check_output",
    "encode",
    "write",
]


@dataclass(frozen=True, slots=True, eq=False)
class DeepPicture:
    """A picture of 16 bits a channel: grey with alpha, RGB or RGBA.

    It has the parts of a PIL image that describe one, `numpy.asarray` gives its pixels, and `save`
    writes it. PIL images are what every other picture is read as.

    Examples
    --------
    >>> picture = DeepPicture(np.zeros((2, 5, 3), np.uint16))
    >>> picture.size, picture.mode, np.asarray(picture).dtype
    ((5, 2), 'RGB;16', dtype('uint16'))
    """

    pixels: NDArray[np.uint16]
    """Shape (H, W, C); C is 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)."""
    info: dict[Any, Any] = field(default_factory=dict)
    """``icc_profile``, ``exif``, ``xmp``, ``iptc`` (bytes), ``text`` (of a PNG) and ``dpi``."""
    format: str | None = None
    """Of the file it came from."""
    filename: str = field(default="", compare=False, repr=False)
    """Of the file it came from, for what is said of it."""

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in DEEP_MODES:
            raise ImageError(
                f"a DeepPicture is uint16 of shape (H, W, 2 to 4), not {pixels.dtype} of shape "
                f"{pixels.shape}"
            )

    @property
    def mode(self) -> str:
        """``LA;16``, ``RGB;16`` or ``RGBA;16``."""
        return DEEP_MODES[self.pixels.shape[2]]

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    def save(self, fp: Any, format: str | None = None) -> None:  # noqa: A002 as Pillow has it
        """Write it as PNG or TIFF, with its metadata.

        Parameters
        ----------
        fp : path-like or binary file
            Where to.
        format : str, optional
            ``"PNG"`` or ``"TIFF"``; by default the suffix of the name decides.

        Raises
        ------
        ImageError
            If the suffix is another one, or the file cannot be written.
        OptionError
            If the format is another one, or the suffix stands for another.
        """
        _save(self, fp, Encoding(format=format))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.pixels, dtype=dtype, copy=copy)


class Photograph(Image.Image):
    """A PIL image that is saved with what came with it: profile, EXIF, XMP, captions and the like.

    Pillow's own ``save`` leaves most of these out unless they are handed over once more, and then
    the colours of a picture with a profile are wrong.
    """

    @classmethod
    def of(cls, picture: Image.Image) -> Photograph:
        """Make a PIL image one, in its place; it has no more attributes than any other."""
        picture.__class__ = cls
        return picture  # type: ignore[return-value]

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002
        """Save as Pillow does, with the metadata; a path without options, as `write` does.

        HEIC, which Pillow lacks, takes the options of `Encoding`.

        Raises
        ------
        ImageError
            If the format cannot hold the picture, or the file cannot be written.
        Exception
            With options, whatever else Pillow raises.
        """
        path = _path_of(fp)
        kind = SUFFIXES.get(f".{format.lower()}" if format else path.suffix.lower())
        plainly = isinstance(fp, (str, os.PathLike)) and format is None and not params
        # of its own accord Pillow's writer of TIFF leaves out exposure and place
        whole_tiff = kind is SUFFIXES[".tif"] and not params
        whole_tiff &= SUFFIXES.get(path.suffix.lower(), kind) is kind
        if kind is not None and (plainly or whole_tiff or kind.name == "HEIF"):
            _save(self, fp, Encoding(format=format, **params))
        else:
            suffixes = Image.registered_extensions()
            name = (format or suffixes.get(path.suffix.lower(), "")).upper()
            metadata = _handed_on(self)
            if name == "JPEG":
                _check_lengths(path, metadata)
            _tell_of_lost(path, name, metadata)
            _tell_of_long_profile(path, name, {**metadata, **params})
            super().save(fp, format, **{**_as_pillow_takes_it(name, metadata), **params})


Picture = Image.Image | DeepPicture
"""What a file is read as: 16 bits in colour or with alpha are a `DeepPicture`."""

_CALLED = {
    "icc_profile": "a colour profile",
    "exif": "EXIF",
    "xmp": "XMP",
    "iptc": "IPTC captions",
    "comment": "a JPEG's comment",
    "text": "a PNG's texts",
}
"""How messages name metadata."""
_DEFAULT = Encoding()
_READABLE = 2**20
"""Bytes of a profile in a PNG from which on Pillow refuses the whole file."""
_LONGEST = {"exif": 65533, "xmp": 65502, "iptc": 65506, "comment": 65533}
"""Bytes of metadata that fit a segment of a JPEG."""


def check_output(path: Path, encoding: Encoding = _DEFAULT) -> None:
    """Refuse a target that cannot be written, before any work is done.

    Raises
    ------
    ImageError
        If its suffix is unknown, its folder is missing or not writable, or it is a device or pipe.
    OptionError
        If its format has no such option, or its suffix stands for another format.
    """
    encoding.options(encoding.kind(path))
    try:
        is_folder = path.is_dir()
        if not is_folder:
            need_replaceable(path)
    except OSError as error:  # a name that is too long, say
        raise ImageError(f"{path} cannot be written: {error.strerror or error}") from error
    if is_folder:
        raise ImageError(f"{path} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise ImageError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ImageError(f"{path} cannot be written: no permission to write in {path.parent}")


def check_fits(
    picture: Picture | Frames[Picture], path: Path, encoding: Encoding = _DEFAULT, *, scale: int = 1
) -> None:
    """Refuse a target whose format cannot hold the picture, before any work is done.

    Parameters
    ----------
    picture : PIL.Image.Image, DeepPicture or Frames
        As decoded.
    path : Path
        Its suffix decides the format, unless `encoding` does.
    encoding : Encoding
        How it will be written.
    scale : int
        How many times the result is larger than the picture.

    Raises
    ------
    ImageError
        If the format cannot hold its mode, size or metadata, or several pictures.

    Examples
    --------
    >>> check_fits(Image.new("RGB", (9000, 10)), Path("a.webp"), scale=2)
    Traceback (most recent call last):
    enhancekit.errors.ImageError: a.webp: WEBP holds at most 16,383 pixels a side, not 18,000 x 20
    """
    if isinstance(picture, Frames):
        _check_several(picture, path, encoding)
        for one in picture.pictures:
            check_fits(one, path, encoding, scale=scale)
        return
    mode = plain_mode(picture) if isinstance(picture, Image.Image) else picture.mode
    size = picture.width * scale, picture.height * scale
    kind = encoding.kind(path)
    _check_holds(path, kind, mode, size, _carried(picture, kind, encoding))


def _check_several(frames: Frames[Picture], path: Path, encoding: Encoding) -> None:
    try:
        check_kind(frames, encoding.kind(path))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def _check_holds(
    path: Path, kind: Format, mode: str, size: tuple[int, int], carried: dict[str, Any]
) -> None:
    if mode not in kind.modes:
        if mode == "L":
            raise ImageError(
                f"{path}: {kind.name} has no grey, so that the picture would come back as RGB; "
                "convert it to RGB first, or use another format"
            )
        able = ", ".join(s for s, f in sorted(SUFFIXES.items()) if mode in f.modes)
        raise ImageError(
            f"{path}: {kind.name} cannot hold a picture of mode {mode} without loss; "
            f"use {able or 'another mode'}"
        )
    if max(size) > kind.largest_side:
        raise ImageError(
            f"{path}: {kind.name} holds at most {kind.largest_side:,} pixels a side, "
            f"not {size[0]:,} x {size[1]:,}"
        )
    if kind.name == "JPEG":
        _check_lengths(path, carried)


def _check_lengths(path: Path, carried: dict[str, Any]) -> None:
    """Refuse metadata that are too long for a JPEG."""
    for name, longest in _LONGEST.items():
        if len(carried.get(name, b"")) > longest:
            raise ImageError(
                f"{path}: {len(carried[name]):,} bytes of {_CALLED[name]} do not fit a JPEG; "
                "use another format, or leave them out (--metadata strip)"
            )


def _path_of(file: Any) -> Path:
    """Return a path as one, and of an open file the one by which Pillow chooses the format."""
    name = file if isinstance(file, (str, os.PathLike)) else getattr(file, "name", "")
    return Path(name if isinstance(name, (str, os.PathLike)) else "")


def _handed_on(picture: Picture) -> dict[str, Any]:
    """Return the metadata that go with a picture, as they are true of it."""
    found = kept(picture.info)
    if "exif" in found:
        found["exif"] = resized_exif(found["exif"], picture.size)
    return found


def _carried(picture: Picture, kind: Format, encoding: Encoding) -> dict[str, Any]:
    found = _handed_on(picture)
    wanted = set(kind.carries)
    if encoding.metadata == "strip":
        wanted &= {"icc_profile", "dpi"}
    return {k: v for k, v in found.items() if k in wanted}


def _as_pillow_takes_it(name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return options for Pillow's writer of the format `name`, which has none for some metadata."""
    found = dict(metadata)
    if name == "PNG":
        chunks = PngImagePlugin.PngInfo()
        for kind, payload in text_chunks(found):
            chunks.add(kind, payload)
        found = {k: v for k, v in found.items() if k not in ("xmp", "text", "comment")}
        found["pnginfo"] = chunks
    elif name == "TIFF":
        # the part of EXIF that tells of the exposure crashes Pillow's writer when it compresses
        found = {k: v for k, v in found.items() if k in ("icc_profile", "dpi")}
        found["tiffinfo"] = flat_tags(metadata)
    elif name == "AVIF" and "exif" in found:
        found["exif"] = without_orientation(found["exif"])
    elif name == "JPEG" and "iptc" in found:
        captions = found.pop("iptc")
        resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(captions)) + captions
        segment = b"Photoshop 3.0\0" + resource + b"\0" * (len(captions) % 2)
        found["extra"] = b"\xff\xed" + struct.pack(">H", 2 + len(segment)) + segment
    return found


def write(
    picture: Picture | Frames[Picture],
    path: str | os.PathLike[str],
    encoding: Encoding = _DEFAULT,
    *,
    called: Path | None = None,
) -> None:
    """Write a picture with its metadata; the file appears complete or not at all.

    Parameters
    ----------
    picture : PIL.Image.Image, DeepPicture or Frames
        What to write.
    path : path-like
        The suffix decides the format, unless `encoding` does.
    encoding : Encoding
        Quality and the like; by default JPEG gets quality 95 without chroma subsampling, and WebP
        is lossless.
    called : Path, optional
        What errors and warnings call the file, if not by its path.

    Raises
    ------
    ImageError
        If the format cannot hold the picture, or the file cannot be written.
    OptionError
        If the format has no such option.
    """
    path = Path(path)
    check_output(path, encoding)
    save = _saver(picture, called or path, encoding)
    with _refusing(called or path), replacing(path) as file:
        save(file)


def encode(picture: Picture | Frames[Picture], name: Path, encoding: Encoding = _DEFAULT) -> bytes:
    r"""Return the bytes of the file that `write` would have written.

    Parameters
    ----------
    picture : PIL.Image.Image, DeepPicture or Frames
        What to encode.
    name : Path
        What errors and warnings call the result; its suffix decides the format, unless `encoding`
        does.
    encoding : Encoding
        As for `write`.

    Raises
    ------
    ImageError
        If the format cannot hold the picture.
    OptionError
        If the format has no such option.

    Examples
    --------
    >>> encode(Image.new("L", (2, 1)), Path("result.png"))[:4]
    b'\x89PNG'
    """
    save = _saver(picture, name, encoding)
    buffer = io.BytesIO()
    with _refusing(name):
        save(buffer)
    return buffer.getvalue()


def _save(picture: Picture, fp: Any, encoding: Encoding) -> None:
    """Write to a path, or into an open file."""
    path = _path_of(fp)
    if isinstance(fp, (str, os.PathLike)):
        write(picture, path, encoding)
    else:
        fp.write(encode(picture, path if path.name else Path("the open file"), encoding))


def _saver(
    picture: Picture | Frames[Picture], path: Path, encoding: Encoding
) -> Callable[[BinaryIO], None]:
    """Check that the format holds the picture, say what gets lost, and return what encodes it."""
    kind = encoding.kind(path)
    options = encoding.options(kind)
    frames = picture if isinstance(picture, Frames) else Frames((picture,))
    _check_several(frames, path, encoding)
    carried = [_carried(one, kind, encoding) for one in frames.pictures]
    for one, with_it in zip(frames.pictures, carried, strict=True):
        _check_holds(path, kind, one.mode, one.size, with_it)
        if encoding.metadata == "keep":
            _tell_of_lost(path, kind.name, kept(one.info))
    _tell_of_long_profile(path, kind.name, carried[0])

    def save(file: BinaryIO) -> None:
        if kind.name == "TIFF":
            save_pages(frames, file, carried)
        else:
            _encode(frames, file, kind, options | carried[0])

    return save


def _tell_of_lost(path: Path, name: str, metadata: dict[str, Any]) -> None:
    """Warn of the metadata that have no place in a format."""
    places = next((kind.carries for kind in SUFFIXES.values() if kind.name == name), ())
    if lost := metadata.keys() - {"dpi", *places}:
        named = ", ".join(_CALLED[each] for each in sorted(lost))
        warnings.warn(
            f"{path}: {name} has no place for {named}, left out here", ImageWarning, stacklevel=4
        )


def _tell_of_long_profile(path: Path, name: str, metadata: dict[str, Any]) -> None:
    """Warn of a colour profile with which others refuse the PNG."""
    length = len(metadata.get("icc_profile") or b"")
    if name == "PNG" and length > _READABLE:
        warnings.warn(
            f"{path}: programs that read PNG with Pillow do not open one with a colour profile of "
            f"{length:,} bytes; use TIFF for them",
            ImageWarning,
            stacklevel=4,
        )


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what codecs raise, OSError, ValueError, SyntaxError, struct.error ..., into one kind."""
    try:
        yield
    except Exception as error:
        raise ImageError(f"{path} cannot be written: {error}") from error


def _encode(frames: Frames[Picture], file: BinaryIO, kind: Format, options: dict[str, Any]) -> None:
    picture = frames.pictures[0]
    if isinstance(picture, DeepPicture) and len(frames.pictures) == 1:
        save_png(picture.pixels, file, {k: options[k] for k in kind.carries if k in options})
    elif kind.name == "HEIF" and isinstance(picture, Image.Image):
        save_heif(picture, file, options)
    else:
        options = _as_pillow_takes_it(kind.name, options)
        if kind.name == "AVIF" and picture.mode == "L":
            options.pop("subsampling")  # any but its own would make three channels of it
        save_animation(frames, file, kind, options)
