"""Picture files in: limits before decoding, one kind of error, nothing lost unsaid."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from enhancekit.errors import ImageError, ImageWarning
from enhancekit.imaging.colour import profile_of
from enhancekit.imaging.deep import read_png
from enhancekit.imaging.formats import FORMATS, MAX_PIXELS
from enhancekit.imaging.frames import Frames, animated
from enhancekit.imaging.headers import avif_bits, check_png, png_is_deep, webp_size
from enhancekit.imaging.heif import is_heif, open_heif
from enhancekit.imaging.metadata import (
    SIDEWAYS,
    examined,
    kept,
    turned,
    upright,
    upright_info,
)
from enhancekit.imaging.modes import check_range, plain_mode
from enhancekit.imaging.pictures import DeepPicture, Picture
from enhancekit.imaging.tiff import TiffLayout, pages_of, read_tiff

__all__ = ["decode", "decode_frames", "read_rgb8"]

_OPENERS = {
    "AVIF": AvifImagePlugin,
    "BMP": BmpImagePlugin,
    "JPEG": JpegImagePlugin,
    "PNG": PngImagePlugin,
    "TIFF": TiffImagePlugin,
    "WEBP": WebPImagePlugin,
}
"""Pillow's modules of the formats that are read; importing them registers what opens them."""

_SCANS = 200
"""A progressive JPEG has about ten."""

_LONGEST = 6 * 2**20
"""Bytes of a PNG's colour profile or compressed text; no printer's profile known is longer."""

_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
"""Markers of a JPEG that have a length, and its end."""

_GAIN_MAPS = (b"hdrgm:Version", b"urn:iso:std:iso:ts:21496", b"aux:hdrgainmap")
"""Adobe's, ISO's and Apple's mark of one."""

_MP_ENTRIES = 0xB002
"""Of the list of the pictures in a JPEG."""

_PATHS = re.compile(rb"8BIM(?:\x07[\xd0-\xff]|[\x08-\x0a].|\x0b[\x00-\xb5])", re.DOTALL)
"""Photoshop's resources 2000 to 2997, each a path drawn over the picture."""

_FILM = re.compile(rb"\0\0\0.ftyp", re.DOTALL)
"""The first box of one."""


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
        if "MAX_TEXT_" in text:  # Pillow's limits
            raise ImageError(
                f"{where}: its colour profile or texts are too long; read from a PNG are at most "
                f"{_LONGEST:,} bytes of each that is compressed, and 64 MB of texts in all, so "
                "save it without them, or as TIFF"
            ) from error
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
        main, frames, left_out = open_heif(file, check)
        _one_frame(frames, "HEIF", where, every=every)
        _tell_of_what_is_lost(where, left_out)
        return Frames((_finished(main, where),))
    name = _format_of_bytes(prefix)
    if name == "TIFF":
        return _read_tiff(file, where, check, every=every)
    # libwebp takes memory for the whole picture as soon as it is opened
    size = webp_size(prefix) if name == "WEBP" else (0, 0)
    check(size)
    _check_contents(file, name, where)
    file.seek(0)
    with _PIXELS.lifted(size[0] * size[1]), _TEXTS.lifted(_LONGEST if name == "PNG" else 0):
        picture = Image.OPEN[name][0](file, "")  # Image.open would apply the limit of Pillow
        check(picture.size)
        frames = getattr(picture, "n_frames", 1)
        if every and frames > 1 and picture.format != "MPO":
            check(picture.size, frames)
            if png_is_deep(prefix, keyed=False) and name == "PNG":
                raise ImageError("animations of 16 bits a channel are not read")
            return animated(picture, lambda frame: _widened(_finished(frame, where), prefix))
        _one_frame(frames, picture.format, where, every=every)
        if isinstance(picture, MpoImagePlugin.MpoImageFile):
            _tell_of_further_pictures(picture, file, where)
        picture.load()
    if name == "PNG" and png_is_deep(prefix, keyed="transparency" in picture.info):
        file.seek(0)
        info, orientation = examined(picture, where)
        pixels = turned(read_png(file.read()), orientation)
        return Frames((DeepPicture(pixels, kept(info), "PNG", where),))
    return Frames((_widened(_finished(picture, where), prefix),))


def _check_contents(file: BinaryIO, name: str, where: str) -> None:
    """Refuse or tell of what Pillow would pass over in silence."""
    if name == "PNG":
        check_png(file)
    elif name == "JPEG":
        _check_jpeg(file.read(), where)
    elif name == "AVIF" and (bits := avif_bits(file)) > 8:
        raise ImageError(
            f"{bits} bits a channel are not read from AVIF; convert it to 16-bit PNG or TIFF"
        )


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
    pages[0].refuse_raw()
    if not every:
        _one_frame(2 if pages[0].directory.next else 1, "TIFF", where, every=False)
    pictures: list[Picture] = []
    shallow: TiffImagePlugin.TiffImageFile | None = None
    for number, page in enumerate(pages):
        if page.deep:
            pictures.append(_deep_tiff(file, page, number, where))
        else:
            with _PIXELS.lifted(page.width * page.height):
                try:
                    shallow = _at_page(number, shallow, file)
                except SyntaxError as error:
                    if "unknown pixel mode" not in str(error):
                        raise
                    raise page.unread() from error
                check(shallow.size, 1)
                shallow.load()
                if palette := page.palette():
                    shallow.putpalette(palette)
            if page.orientation in SIDEWAYS and "dpi" in shallow.info:  # Pillow has turned it
                shallow.info["dpi"] = shallow.info["dpi"][::-1]
            pictures.append(_finished(shallow, where))
        page.tell_of_what_is_left_out(where)
    return Frames(tuple(pictures))


def _at_page(
    number: int, opened: TiffImagePlugin.TiffImageFile | None, file: BinaryIO
) -> TiffImagePlugin.TiffImageFile:
    """Let Pillow open the file, or turn to another page of it."""
    if opened is None:
        file.seek(0)
        opened = TiffImagePlugin.TiffImageFile(file, "")
    if number != opened.tell():
        for name in ("icc_profile", "dpi", "resolution"):
            opened.info.pop(name, None)  # of the page before, which this one may lack
        opened.seek(number)
    return opened


def _scans(data: bytes) -> tuple[int, int]:
    """Count a JPEG's scans, and tell where it ends; what follows is not its own."""
    found, place = 0, 2
    while (mark := _MARKER.search(data, place)) and mark[1] != b"\xd9":
        found += mark[1] == b"\xda"
        place = mark.end() + int.from_bytes(data[mark.end() : mark.end() + 2], "big")
    return found, mark.end() if mark else len(data)


def _check_jpeg(data: bytes, where: str) -> None:
    """Refuse a JPEG made to keep its reader busy, and tell of what none of it is kept."""
    scans, end = _scans(data)
    if scans > _SCANS:
        raise ImageError(f"{scans:,} scans, of which each costs as much as a picture; refused")
    beside = (
        (
            "the part of its XMP that is longer than 64 KB",
            b"http://ns.adobe.com/xmp/extension/" in data,
        ),
        ("its gain map for HDR screens", _has_gain_map(data)),
        ("what Photoshop cuts it out by, its clipping path,", _PATHS.search(data)),
        ("the film that a telephone put after its end", _FILM.search(data, end)),
    )
    _tell_of_what_is_lost(where, [what for what, there in beside if there])


def _tell_of_what_is_lost(where: str, found: list[str]) -> None:
    for what in found:
        warnings.warn(f"{where}: {what} is not kept", ImageWarning, stacklevel=3)


def _has_gain_map(data: bytes) -> bool:
    return any(mark in data for mark in _GAIN_MAPS)


def _tell_of_further_pictures(
    picture: MpoImagePlugin.MpoImageFile, file: BinaryIO, where: str
) -> None:
    """Warn of pictures in a JPEG that are no previews of its first, as the other eye's view."""
    entries = (picture.mpinfo or {}).get(_MP_ENTRIES, ())
    kinds = [entry["Attribute"]["MPType"] for entry in entries[1:]]
    left_out = [kind for kind in kinds if not kind.startswith("Large Thumbnail")]
    file.seek(0)
    if "Undefined" in left_out and _has_gain_map(file.read()):
        left_out.remove("Undefined")  # told of as a gain map
    if left_out:
        warnings.warn(
            f"{where}: further pictures in it that are no previews, {len(left_out)} of them, are "
            "not kept",
            ImageWarning,
            stacklevel=3,
        )


class _Limit:
    """A limit of Pillow, one for the whole process, lifted while pictures that need it are read.

    Parameters
    ----------
    module : module
        Of Pillow.
    name : str
        What it calls the limit.
    ours : int, optional
        What it is lifted to; by default there is none then.
    """

    def __init__(self, module: ModuleType, name: str, ours: int | None = None) -> None:
        self._module, self._name, self._ours = module, name, ours
        self._lock = threading.Lock()
        self._users = 0
        self._theirs: int | None = None

    @contextmanager
    def lifted(self, wanted: int) -> Iterator[None]:
        """Lift it, if it is less than what is wanted, until the last that needs it is read."""
        with self._lock:
            if not self._users:
                self._theirs = getattr(self._module, self._name)
            needed = self._theirs is not None and wanted > self._theirs
            if needed:
                self._users += 1
                setattr(self._module, self._name, self._ours)
        try:
            yield
        finally:
            if needed:
                with self._lock:
                    self._users -= 1
                    if not self._users:
                        setattr(self._module, self._name, self._theirs)


# applied inside the readers of TIFF and WebP; of 89 megapixels and more Pillow warns
_PIXELS = _Limit(Image, "MAX_IMAGE_PIXELS")
# 1 MB, which profiles of printers exceed
_TEXTS = _Limit(PngImagePlugin, "MAX_TEXT_CHUNK", _LONGEST)


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
        f"{where}: has several frames or pages, of which only the first is read "
        "(`enhancekit enhance --frames all` takes all)",
        ImageWarning,
        stacklevel=2,
    )


def _deep_tiff(file: BinaryIO, layout: TiffLayout, number: int, where: str) -> DeepPicture:
    info, orientation = layout.info(file)
    pixels = turned(read_tiff(file, layout, number), orientation)
    return DeepPicture(pixels, kept(upright_info(info, orientation)), "TIFF", where)


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
        If it cannot be read, is not 8-bit grey or RGB, or has another profile than sRGB.
    """
    picture = decode(path)
    if (
        isinstance(picture, DeepPicture)
        or picture.mode not in ("L", "P", "RGB")
        or "transparency" in picture.info
    ):
        alpha = " with transparency" if "transparency" in picture.info else ""
        raise ImageError(
            f"{path}: mode {picture.mode}{alpha}; training and evaluation take 8-bit RGB or grey, "
            "so convert it"
        )
    if profile_of(picture.info.get("icc_profile"), len(picture.getbands()), str(path)):
        raise ImageError(
            f"{path}: its colour profile is not sRGB; training and evaluation take pixels as they "
            "stand, so convert it to sRGB"
        )
    return np.array(picture.convert("RGB"))
