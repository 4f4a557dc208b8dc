"""Picture files in and out: limits before decoding, one kind of error, nothing lost unsaid."""

from __future__ import annotations

import io
import os
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from enhancekit.atomic import replacing
from enhancekit.errors import ImageError, ImageWarning
from enhancekit.imaging.deep import DEEP_MODES, read_png, save_png, text_chunks
from enhancekit.imaging.formats import FORMATS, MAX_PIXELS, SUFFIXES, Encoding, Format
from enhancekit.imaging.frames import Frames, animated, check_kind, save_animation, save_pages
from enhancekit.imaging.headers import avif_bits, png_is_deep, webp_size
from enhancekit.imaging.heif import is_heif, open_heif, save_heif
from enhancekit.imaging.metadata import examined, kept, resized_exif, turned, upright, upright_info
from enhancekit.imaging.modes import check_range, plain_mode
from enhancekit.imaging.tiff import TiffLayout, flat_tags, pages_of, read_tiff

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "DeepPicture",
    "Photograph",
    "Picture",
    "check_fits",
    "check_output",
    "decode",
    "decode_frames",
    "encode",
    "read_rgb8",
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as PNG or TIFF, with its metadata.

        Raises
        ------
        ImageError
            If the suffix is another one, or the file cannot be written.
        """
        write(self, path)

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

        Raises
        ------
        ImageError
            If the format cannot hold the picture, or the file cannot be written.
        Exception
            With options, whatever else Pillow raises.
        """
        known = isinstance(fp, (str, os.PathLike)) and Path(fp).suffix.lower() in SUFFIXES
        if known and format is None and not params:
            write(self, fp)
        else:
            path = Path(os.fspath(fp if isinstance(fp, (str, os.PathLike)) else _name_of_open(fp)))
            suffixes = Image.registered_extensions()
            name = (format or suffixes.get(path.suffix.lower(), "")).upper()
            metadata = _handed_on(self)
            if name == "JPEG":
                _check_lengths(path, metadata)
            super().save(fp, format, **{**_as_pillow_takes_it(name, metadata), **params})


Picture = Image.Image | DeepPicture
"""What a file is read as: 16 bits in colour or with alpha are a `DeepPicture`."""

_OPENERS = {
    "AVIF": AvifImagePlugin,
    "BMP": BmpImagePlugin,
    "JPEG": JpegImagePlugin,
    "PNG": PngImagePlugin,
    "TIFF": TiffImagePlugin,
    "WEBP": WebPImagePlugin,
}
"""Pillow's modules of the formats that are read; importing them registers what opens them."""

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
_SCANS = 200
"""A progressive JPEG has about ten, and its thumbnails have one each."""
_LONGEST = {"exif": 65533, "xmp": 65502, "iptc": 65506, "comment": 65533}
"""Bytes of metadata that fit a segment of a JPEG."""


def decode(source: str | os.PathLike[str] | bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture completely and turn it upright.

    Parameters
    ----------
    source : path-like or bytes
        A file, or the bytes of one: AVIF, BMP, HEIC, JPEG, PNG, TIFF or WebP.
    max_pixels : int
        Larger pictures, and files of more than eight bytes for each of these pixels, are refused
        before anything is decoded.

    Returns
    -------
    PIL.Image.Image or DeepPicture
        Loaded; its EXIF orientation applied and reset; ``icc_profile``, ``exif``, ``xmp``,
        ``iptc``, ``comment``, ``text`` and ``dpi``, as far as it has them, in ``info``. 16 bits a
        channel, other than plain grey, come as a `DeepPicture`. Of several frames or pages the
        first, with a warning.

    Raises
    ------
    ImageError
        If it is missing, too large, no picture, damaged, or of a kind whose reading would lose
        something.

    Examples
    --------
    >>> buffer = io.BytesIO()
    >>> Image.new("RGB", (4, 3)).save(buffer, "PNG")
    >>> decode(buffer.getvalue()).size
    (4, 3)
    """
    return _decoded(source, max_pixels, every=False).pictures[0]


def decode_frames(
    source: str | os.PathLike[str] | bytes, *, max_pixels: int = MAX_PIXELS
) -> Frames[Picture]:
    """Read all frames of an animation or all pages of a file, each as `decode` reads one.

    Parameters
    ----------
    source : path-like or bytes
        As for `decode`.
    max_pixels : int
        Of all of them together.

    Returns
    -------
    Frames
        Of a file of one picture, that one.

    Raises
    ------
    ImageError
        As for `decode`, or if it is HEIC of several pictures or an animation of 16 bits.

    Examples
    --------
    >>> buffer = io.BytesIO()
    >>> pages = [Image.new("L", (2, 3)), Image.new("RGB", (5, 4))]
    >>> pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    >>> [(p.mode, p.size) for p in decode_frames(buffer.getvalue()).pictures]
    [('L', (2, 3)), ('RGB', (5, 4))]
    """
    return _decoded(source, max_pixels, every=True)


def _decoded(
    source: str | os.PathLike[str] | bytes, max_pixels: int, *, every: bool
) -> Frames[Picture]:
    if isinstance(source, bytes):
        where = f"the {len(source)} bytes given"
        _check_bytes(len(source), where, max_pixels)
        return _decode(io.BytesIO(source), where, max_pixels, every=every)
    if isinstance(source, str) and "://" in source and not Path(source).exists():
        raise ImageError(f"{source} is an address, not a file; download it first")
    path = Path(source)
    try:
        _check_file(path, max_pixels)
        with path.open("rb") as file:
            return _decode(file, str(path), max_pixels, every=every)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path} cannot be read: {reason}") from error


def _check_file(path: Path, max_pixels: int) -> None:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path} is a folder, not a picture")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path} is a device or pipe, not a picture file")
    _check_bytes(status.st_size, str(path), max_pixels)


def _check_bytes(size: int, where: str, max_pixels: int) -> None:
    if size == 0:
        raise ImageError(f"{where}: empty, no picture in it")
    if size > 8 * max_pixels + 2**26:  # 16 bits in four channels, and room for metadata
        raise ImageError(
            f"{where}: a file of {size:,} bytes is more than {max_pixels:,} pixels can need; "
            "allow more with max_pixels (--max-pixels)"
        )


def _decode(file: BinaryIO, where: str, max_pixels: int, *, every: bool) -> Frames[Picture]:
    try:
        return _read(file, where, max_pixels, every=every)
    except ImageError as error:
        raise ImageError(f"{where}: {error}") from error.__cause__
    except ImageWarning:  # which the caller has made an error
        raise
    except Exception as error:  # codecs raise at least eight different kinds on broken files
        text = " ".join(str(error).split())
        raise ImageError(
            f"{where}: damaged or truncated: {type(error).__name__}: {text}"
        ) from error


def _read(file: BinaryIO, where: str, max_pixels: int, *, every: bool) -> Frames[Picture]:
    """Decode by the header: what Pillow reads exactly, by Pillow, and the rest here."""

    def check(size: tuple[int, int], frames: int = 1) -> None:
        _check_pixels(size, frames, max_pixels)

    prefix = file.read(64)
    file.seek(0)
    if is_heif(prefix):
        main, frames = open_heif(file, check)
        _one_frame(frames, "HEIF", where, every=every)
        return Frames((_finished(main, where),))
    name = _format_of_bytes(prefix)
    if name == "TIFF":
        return _read_tiff(file, where, check, every=every)
    size = (0, 0)
    if name == "WEBP":  # libwebp takes memory for the whole picture as soon as it is opened
        size = webp_size(prefix)
        check(size)
    elif name == "JPEG":
        file.seek(0)
        _check_jpeg(file.read(), where)
    elif name == "AVIF" and (bits := avif_bits(file)) > 8:
        raise ImageError(
            f"{bits} bits a channel are not read from AVIF; convert it to 16-bit PNG or TIFF"
        )
    file.seek(0)
    with _LIMIT.lifted(size):
        picture = Image.OPEN[name][0](file, "")  # Image.open would apply the limit of Pillow
        check(picture.size)
        frames = getattr(picture, "n_frames", 1)
        if every and frames > 1 and picture.format != "MPO":
            check(picture.size, frames)
            if png_is_deep(prefix, keyed=False) and name == "PNG":
                raise ImageError("animations of 16 bits a channel are not read")
            return animated(picture, lambda frame: _widened(_finished(frame, where), prefix))
        _one_frame(frames, picture.format, where, every=every)
        picture.load()
    if name == "PNG" and png_is_deep(prefix, keyed="transparency" in picture.info):
        file.seek(0)
        info, orientation = examined(picture, where)
        pixels = turned(read_png(file.read()), orientation)
        return Frames((DeepPicture(pixels, kept(info), "PNG", where),))
    return Frames((_widened(_finished(picture, where), prefix),))


def _check_pixels(size: tuple[int, int], frames: int, max_pixels: int) -> None:
    if size[0] * size[1] * frames > max_pixels:
        times = f"{frames:,} times " if frames > 1 else ""
        raise ImageError(
            f"{times}{size[0]:,} x {size[1]:,} are too many pixels; at most {max_pixels:,} are "
            "decoded, allow more with max_pixels (--max-pixels)"
        )


def _widened(picture: Image.Image, prefix: bytes) -> Image.Image:
    """Widen the grey that is transparent in a PNG of fewer than 8 bits, as Pillow does the rest."""
    if picture.format == "PNG" and picture.mode in ("1", "L") and "transparency" in picture.info:
        picture.info["transparency"] *= 255 // (2 ** prefix[24] - 1)
    return picture


def _read_tiff(
    file: BinaryIO, where: str, check: Callable[[tuple[int, int], int], None], *, every: bool
) -> Frames[Picture]:
    pages = pages_of(file) if every else [TiffLayout(file)]
    for page in pages:
        check((page.width, page.height), 1)
        check(page.tile, 1)
    check((sum(page.width * page.height for page in pages), 1), 1)
    if not every:
        _one_frame(2 if pages[0].directory.next else 1, "TIFF", where, every=False)
    pictures: list[Picture] = []
    shallow: TiffImagePlugin.TiffImageFile | None = None
    for number, page in enumerate(pages):
        page.tell_of_what_is_left_out(where)
        if page.deep:
            pictures.append(_deep_tiff(file, page, number, where))
            continue
        with _LIMIT.lifted((page.width, page.height)):
            if shallow is None:
                file.seek(0)
                shallow = TiffImagePlugin.TiffImageFile(file, "")
            shallow.seek(number)
            check(shallow.size, 1)
            shallow.load()
        pictures.append(_finished(shallow, where))
    return Frames(tuple(pictures))


def _check_jpeg(data: bytes, where: str) -> None:
    """Refuse a JPEG made to keep its reader busy, and tell of what none of it is kept."""
    scans = data.count(b"\xff\xda")
    if scans > _SCANS:
        raise ImageError(f"{scans:,} scans, of which each costs as much as a picture; refused")
    for mark, what in (
        (b"http://ns.adobe.com/xmp/extension/", "the part of its XMP that is longer than 64 KB"),
        (b"hdrgm:Version", "its gain map for HDR screens"),
    ):
        if mark in data:
            warnings.warn(f"{where}: {what} is not kept", ImageWarning, stacklevel=3)


class _Limit:
    """Pillow's limit, one for the whole process, lifted while pictures that passed ours are read.

    Pillow applies it inside its readers of TIFF and WebP, and warns from 89 megapixels on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._theirs: int | None = None

    @contextmanager
    def lifted(self, size: tuple[int, int]) -> Iterator[None]:
        """Lift it for a picture of this size, until the last that needs it is read."""
        with self._lock:
            if not self._users:
                self._theirs = Image.MAX_IMAGE_PIXELS
            needed = self._theirs is not None and size[0] * size[1] > self._theirs
            if needed:
                self._users += 1
                Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            if needed:
                with self._lock:
                    self._users -= 1
                    if not self._users:
                        Image.MAX_IMAGE_PIXELS = self._theirs


_LIMIT = _Limit()


def _format_of_bytes(prefix: bytes) -> str:
    for name in _OPENERS:
        accepted = Image.OPEN[name][1](prefix)  # type: ignore[misc]
        if isinstance(accepted, str):
            raise ImageError(f"{accepted}; install a Pillow that can read {name}")
        if accepted:
            return name
    raise ImageError(f"not a picture that can be read; read are {', '.join(FORMATS)}")


def _one_frame(frames: int, kind: str | None, where: str, *, every: bool) -> None:
    if frames == 1 or kind == "MPO":  # a JPEG whose further frames are previews
        return
    if every:
        raise ImageError(f"{kind} of {frames} pictures: all of them cannot be read, only the first")
    warnings.warn(
        f"{where}: has several frames or pages, of which only the first is read (--frames all "
        "takes all)",
        ImageWarning,
        stacklevel=2,
    )


def _deep_tiff(file: BinaryIO, layout: TiffLayout, number: int, where: str) -> DeepPicture:
    info, orientation = layout.info(file)
    pixels = turned(read_tiff(file, layout, number), orientation)
    return DeepPicture(pixels, kept(upright_info(info)), "TIFF", where)


def _finished(picture: Image.Image, where: str) -> Image.Image:
    plain_mode(picture)  # refuses what has no plain form
    done = upright(picture, where)
    done.format = "JPEG" if picture.format == "MPO" else picture.format
    done.filename = where  # type: ignore[attr-defined]  # as Pillow's own of a file have it
    if done.mode == "F":
        pixels = np.asarray(done)
        check_range(float(pixels.min()), float(pixels.max()))
    return done


def read_rgb8(path: Path) -> NDArray[np.uint8]:
    """Read an 8-bit picture as an RGB array (H, W, 3); grey is repeated, alpha is refused.

    Raises
    ------
    ImageError
        If it cannot be read or is not 8-bit grey or RGB.
    """
    picture = decode(path)
    if (
        isinstance(picture, DeepPicture)
        or picture.mode not in ("L", "P", "RGB")
        or "transparency" in picture.info
    ):
        alpha = " with transparency" if "transparency" in picture.info else ""
        raise ImageError(f"{path}: mode {picture.mode}{alpha} cannot be trained on; use 8-bit RGB")
    return np.array(picture.convert("RGB"))


def check_output(path: Path, encoding: Encoding = _DEFAULT) -> None:
    """Refuse a target that cannot be written, before any work is done.

    Raises
    ------
    ImageError
        If its suffix is unknown, or its folder is missing or not writable.
    OptionError
        If its format has no such option, or its suffix stands for another format.
    """
    encoding.options(encoding.kind(path))
    try:
        is_folder = path.is_dir()
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


def _name_of_open(file: Any) -> str:
    name = getattr(file, "name", "")  # Pillow chooses the format by it
    return name if isinstance(name, str) else ""


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
        found = {k: v for k, v in found.items() if k not in ("xmp", "text")} | {"pnginfo": chunks}
    elif name == "TIFF":
        # the part of EXIF that tells of the exposure crashes Pillow's writer when it compresses
        found = {k: v for k, v in found.items() if k in ("icc_profile", "dpi")}
        found["tiffinfo"] = flat_tags(metadata)
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
        lost = kept(one.info).keys() - {"dpi"} - set(kind.carries)
        if lost and encoding.metadata == "keep":
            named = ", ".join(_CALLED[name] for name in sorted(lost))
            warnings.warn(
                f"{path}: {kind.name} has no place for {named}, left out here",
                ImageWarning,
                stacklevel=3,
            )

    def save(file: BinaryIO) -> None:
        if kind.name == "TIFF":
            save_pages(frames, file, carried)
        else:
            _encode(frames, file, kind, options | carried[0])

    return save


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
