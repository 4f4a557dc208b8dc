"""EXIF, XMP, IPTC and the like: what describes a photograph, and which way up it is."""

from __future__ import annotations

import json
import re
import struct
import warnings
from functools import cache
from typing import Any

from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, TiffTags

from enhancekit.errors import ImageWarning
from enhancekit.imaging.deep import codecs

__all__ = [
    "IPTC_TAG",
    "SIDEWAYS",
    "as_stored",
    "captions",
    "described",
    "examined",
    "kept",
    "orientation_in",
    "resized_exif",
    "turned",
    "upright",
    "upright_info",
    "with_stated_profile",
    "without_orientation",
]

SIDEWAYS = (5, 6, 7, 8)
"""Orientations of pictures that lie on their side."""
_RESOLUTIONS = (int(ExifTags.Base.XResolution), int(ExifTags.Base.YResolution))
_COLOUR_SPACE = int(ExifTags.Base.ColorSpace)
_DESCRIPTION = int(ExifTags.Base.ImageDescription)
_ORIENTATION = int(ExifTags.Base.Orientation)
_PHOTOGRAPH = int(ExifTags.IFD.Exif)
_SIDES = (int(ExifTags.Base.ImageWidth), int(ExifTags.Base.ImageLength))
_PHOTOGRAPH_SIDES = (int(ExifTags.Base.ExifImageWidth), int(ExifTags.Base.ExifImageHeight))
_THUMBNAIL = {int(ExifTags.Base.JpegIFOffset), int(ExifTags.Base.JpegIFByteCount)}
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
IPTC_TAG = 33723
"""Of IPTC captions in a TIFF."""
_IPTC_RESOURCE = 0x0404
_EXIF_BEGINS = b"Exif\0\0"
_PROFILES = ("XML:com.adobe.xmp", "Raw profile type exif")
"""Texts of a PNG that are read as XMP or EXIF."""
_XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))[2-8]')
"""Where it is applied, as Pillow looks for it."""
_XMP_FILM = re.compile(rb'(Camera:(?:MotionPhoto|MicroVideo)(?:="|>))1')
"""Where a telephone says that a film follows the picture."""


def kept(info: dict[Any, Any]) -> dict[str, Any]:
    """Return what goes with the pixels from one file to the next.

    Examples
    --------
    >>> kept({"xmp": b"<x/>", "gamma": 0.45, "exif": b""})
    {'xmp': b'<x/>'}
    """
    names = ("icc_profile", "exif", "xmp", "iptc", "comment")
    found = {k: info[k] for k in names if _is_bytes(info.get(k))}
    if "exif" in found and not found["exif"].startswith(_EXIF_BEGINS):
        found["exif"] = _EXIF_BEGINS + found["exif"]  # WebP has it without, a JPEG not
    resources = info.get("photoshop")
    if isinstance(resources, dict) and _is_bytes(resources.get(_IPTC_RESOURCE)):
        found["iptc"] = resources[_IPTC_RESOURCE]
    if isinstance(info.get("text"), dict) and info["text"]:
        found["text"] = info["text"]
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
    if isinstance(info.get("xmp"), str):  # a PNG's text of that name, at which Pillow stops
        del info["xmp"]
    value = 1
    try:
        exif = _exif_of(picture, info)
        value = exif.get(_ORIENTATION, 1)
        if picture.mode in ("RGB", "RGBA", "P"):
            info = with_stated_profile(info, exif)
        if picture.format == "TIFF":
            info.update(described(exif))
        elif "exif" not in info and "Raw profile type exif" in info:
            # as Pillow just read it; written anew, it would no longer be the same bytes
            lines = info["Raw profile type exif"].split("\n")[3:]
            info["exif"] = bytes.fromhex("".join(lines))
    except Exception as error:  # noqa: BLE001 damaged EXIF raises many kinds, and the pixels are fine
        warnings.warn(
            f"{where}: its EXIF cannot be read and is left out ({type(error).__name__}: {error})",
            ImageWarning,
            stacklevel=2,
        )
        info.pop("exif", None)
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        info.update(captions(picture.tag_v2))
    # the later frames of an animation have the texts of the first
    if isinstance(picture, PngImagePlugin.PngImageFile) and picture.tell() == 0:
        known = {k for k, found in zip(_PROFILES, ("xmp", "exif"), strict=True) if found in info}
        info["text"] = {k: v for k, v in picture.text.items() if k not in known}
    value = value if value in _TURNS else 1
    return upright_info(info, value), value


def orientation_in(xmp: Any) -> int:
    """Return the orientation that XMP states, or 1.

    Examples
    --------
    >>> orientation_in(b'<x tiff:Orientation="6"/>'), orientation_in(None)
    (6, 1)
    """
    found = _XMP_ORIENTATION.search(xmp) if _is_bytes(xmp) else None
    return int(found[0][-1:]) if found else 1


def with_stated_profile(info: dict[Any, Any], exif: Image.Exif) -> dict[Any, Any]:
    """Add the profile of Adobe RGB where EXIF alone says so, as cameras do (DCF 2.0)."""
    space = exif.get_ifd(ExifTags.IFD.Exif).get(_COLOUR_SPACE)
    by_index = space == 0xFFFF and exif.get_ifd(ExifTags.IFD.Interop).get(1) == "R03"
    if info.get("icc_profile") or not (space == 2 or by_index):
        return info
    return {**info, "icc_profile": _adobe_rgb()}


@cache
def _adobe_rgb() -> bytes:
    """Return the profile, as of a fixed date, so that equal pictures give equal files."""
    profile = bytearray(codecs("Adobe RGB").cms_profile("adobergb"))
    struct.pack_into(">6H", profile, 24, 1998, 5, 1, 0, 0, 0)
    return bytes(profile)


def _exif_of(picture: Image.Image, info: dict[Any, Any]) -> Image.Exif:
    if "xmp" in picture.info and "xmp" not in info:
        picture = Image.new("L", (1, 1))
        picture.info = info
    return picture.getexif()


def upright(picture: Image.Image, where: str) -> Image.Image:
    """Return a picture of its own that is the right way up and says so in its EXIF and XMP."""
    info, orientation = examined(picture, where)
    turn = _TURNS.get(orientation)
    done = picture.copy() if turn is None else picture.transpose(turn)
    done.info = info
    done.format = picture.format
    # as Pillow's own of a file have it; warnings name it
    done.filename = getattr(picture, "filename", "")  # type: ignore[attr-defined]
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
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def upright_info(info: dict[Any, Any], orientation: int) -> dict[Any, Any]:
    """Return a picture's info with the orientation in EXIF and XMP reset to upright.

    Its resolutions change places where it lay on its side.

    A film, which no picture here has any more, is not claimed either.
    """
    changed = dict(info)
    sideways = orientation in SIDEWAYS
    if sideways and isinstance(info.get("dpi"), tuple):
        changed["dpi"] = info["dpi"][::-1]
    if _is_bytes(info.get("exif")):
        changed["exif"] = _upright_exif(info["exif"], sideways=sideways)
    if _is_bytes(info.get("xmp")):
        changed["xmp"] = _XMP_ORIENTATION.sub(rb"\g<1>1", info["xmp"])
        changed["xmp"] = _XMP_FILM.sub(rb"\g<1>0", changed["xmp"])
    return changed


class _Exif:
    """EXIF changed where it stands: makers' notes hold offsets that a rewritten EXIF breaks."""

    def __init__(self, exif: bytes) -> None:
        self.data = bytearray(exif)
        self.start = len(_EXIF_BEGINS) if exif.startswith(_EXIF_BEGINS) else 0
        self.order = "<" if exif[self.start : self.start + 2] == b"II" else ">"

    def whole(self, place: int, kind: int = 4) -> int:
        """Read a number of 32 bits, or of 16 if `kind` is not LONG."""
        code = f"{self.order}{'I' if kind == 4 else 'H'}"
        return int(struct.unpack_from(code, self.data, place)[0])

    def put(self, place: int, kind: int, value: int) -> None:
        """Write one."""
        struct.pack_into(f"{self.order}{'I' if kind == 4 else 'H'}", self.data, place, value)

    def directory(self, place: int) -> tuple[dict[int, tuple[int, int]], int]:
        """Return kind and place of the value of each tag, and where the next directory's place is.

        `place` is where the place of this one stands.
        """
        first = self.start + self.whole(place)
        count = self.whole(first, kind=3)
        places = range(first + 2, first + 2 + 12 * count, 12)
        tags = {self.whole(p, kind=3): (self.whole(p + 2, kind=3), p + 8) for p in places}
        return tags, first + 2 + 12 * count

    def drop(self, tag: int) -> None:
        """Leave a tag out of the main directory; what follows moves up, values stay in place."""
        first = self.start + self.whole(self.start + 4)
        count = self.whole(first, kind=3)
        end = first + 2 + 12 * count + 4
        for place in range(first + 2, end - 4, 12):
            if self.whole(place, kind=3) == tag:
                self.data[place:end] = self.data[place + 12 : end] + bytes(12)
                self.put(first, 3, count - 1)
                return

    def first(self) -> tuple[dict[int, tuple[int, int]], int]:
        """Return the main directory."""
        return self.directory(self.start + 4)


def _upright_exif(data: bytes, *, sideways: bool) -> bytes:
    """Reset the orientation, and drop the thumbnail, which shows the picture as it was."""
    exif = _Exif(data)
    try:
        tags, following = exif.first()
        kind, place = tags.get(_ORIENTATION, (0, 0))
        if place and exif.whole(place, kind) in _TURNS:
            exif.put(place, kind, 1)
        if sideways and all(tag in tags for tag in _RESOLUTIONS):
            across, along = (tags[tag][1] for tag in _RESOLUTIONS)  # where their values stand
            values = exif.whole(across), exif.whole(along)
            exif.put(across, 4, values[1])
            exif.put(along, 4, values[0])
        if exif.whole(following):
            thumbnail, _ = exif.directory(following)
            if thumbnail.keys() >= _THUMBNAIL:
                at, length = (exif.whole(thumbnail[tag][1]) for tag in sorted(_THUMBNAIL))
                end = min(exif.start + at + length, len(exif.data))
                exif.data[exif.start + at : end] = bytes(max(0, end - exif.start - at))
            exif.put(following, 4, 0)
    except struct.error:  # too short for what it says; then nothing in it turns a picture either
        pass
    return bytes(exif.data)


def resized_exif(data: bytes, size: tuple[int, int]) -> bytes:
    """Make the width and height that EXIF states, if it does, those of the picture.

    Examples
    --------
    >>> resized_exif(b"Exif", (3, 4))
    b'Exif'
    """
    exif = _Exif(data)
    try:
        tags, _ = exif.first()
        stated = [(tags, _SIDES)]  # some telephones state them here too
        if _PHOTOGRAPH in tags:
            stated.append((exif.directory(tags[_PHOTOGRAPH][1])[0], _PHOTOGRAPH_SIDES))
        for directory, sides in stated:
            for tag, length in zip(sides, size, strict=True):
                kind, place = directory.get(tag, (0, 0))
                if place:
                    exif.put(place, kind, length)
    except struct.error:  # damaged, or a side of more than 16 bits; the pixels say it themselves
        return data
    return bytes(exif.data)


def without_orientation(data: bytes) -> bytes:
    """Leave the orientation out of EXIF; Pillow writes EXIF that has one anew, and loses texts."""
    exif = _Exif(data)
    try:
        exif.drop(_ORIENTATION)
    except struct.error:  # damaged
        return data
    return bytes(exif.data)


class _Text(str):
    """A text of EXIF as Pillow reads it, in Latin-1, which gives back the bytes it was read from.

    Pillow writes it in ASCII, and would put question marks for the rest, be it Latin-1 or UTF-8.
    """

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        return super().encode("latin-1")


def as_stored(value: Any) -> Any:
    r"""Return a value of EXIF that Pillow writes as it read it.

    Examples
    --------
    >>> as_stored("Zoë").encode("ascii", "replace")
    b'Zo\xeb'
    """
    return _Text(value) if isinstance(value, str) else value


def captions(directory: TiffImagePlugin.ImageFileDirectory_v2) -> dict[str, bytes]:
    """Return the IPTC captions of a TIFF, whatever type of number their writer made of the bytes.

    Examples
    --------
    >>> captions(TiffImagePlugin.ImageFileDirectory_v2())
    {}
    """
    if IPTC_TAG not in directory:
        return {}
    directory.tagtype[IPTC_TAG] = TiffTags.UNDEFINED
    return {"iptc": bytes(directory[IPTC_TAG])}


def _without_shape(text: Any) -> Any:
    """Leave out what tifffile writes of an array's shape, which is about the file."""
    try:
        told = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return text
    if not isinstance(told, dict) or "shape" not in told:
        return text
    rest = {key: value for key, value in told.items() if key != "shape"}
    return json.dumps(rest) if rest else None


def described(exif: Image.Exif) -> dict[str, bytes]:
    """Return EXIF of the part of a TIFF's directory that is about the photograph, not the file."""
    found = Image.Exif()
    for tag in _DESCRIPTIVE & exif.keys():
        value = _without_shape(exif[tag]) if tag == _DESCRIPTION else exif[tag]
        if value is not None:
            found[tag] = as_stored(value)
    any_entries = False
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if entries := exif.get_ifd(directory):
            found.get_ifd(directory).update({k: as_stored(v) for k, v in entries.items()})
            any_entries = True
    return {"exif": found.tobytes()} if any_entries or len(found) else {}
