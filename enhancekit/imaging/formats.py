"""What each picture format can hold, and how a picture is to be encoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from enhancekit.errors import ImageError, OptionError

__all__ = ["FORMATS", "MAX_PIXELS", "SUFFIXES", "Encoding", "Format", "format_of"]

MAX_PIXELS = 200_000_000
"""Largest picture that is decoded unless more is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format as far as writing is concerned.

    Examples
    --------
    >>> format_of(Path("a.webp")).largest_side
    16383
    """

    name: str
    """By Pillow."""
    suffixes: tuple[str, ...]
    modes: tuple[str, ...]
    """Modes held without loss of depth, colour or alpha; ``;16`` marks 16 bits a channel."""
    largest_side: int
    carries: tuple[str, ...]
    """Metadata it has a place for."""
    quality: int | None = None
    """What is used where none is asked for; ``None``: the format is lossless unless asked."""
    lossy: bool = False
    """Whether it has a lossy form, to which quality belongs."""
    lossless: bool = True
    """Whether it has a lossless form."""
    subsampling: bool = False
    """Whether its lossy form lets the subsampling of colour be chosen."""


_WRITTEN = (
    Format(
        name="AVIF",
        suffixes=(".avif",),
        modes=("L", "RGB", "RGBA"),
        largest_side=32768,
        carries=("icc_profile", "exif", "xmp"),
        quality=90,
        lossy=True,
        lossless=False,  # colours come back up to three levels off at the best quality
        subsampling=True,
    ),
    Format(
        name="BMP", suffixes=(".bmp",), modes=("L", "RGB"), largest_side=2**31 - 1, carries=("dpi",)
    ),
    Format(
        name="HEIF",
        suffixes=(".heic", ".heif"),
        modes=("L", "RGB", "RGBA"),
        largest_side=16384,
        carries=("icc_profile", "exif", "xmp"),
        quality=90,
        lossy=True,
        lossless=False,
        subsampling=True,
    ),
    Format(
        name="JPEG",
        suffixes=(".jpeg", ".jpg"),
        modes=("L", "RGB"),
        largest_side=65500,
        carries=("icc_profile", "exif", "xmp", "dpi", "iptc", "comment"),
        quality=95,
        lossy=True,
        lossless=False,
        subsampling=True,
    ),
    Format(
        name="PNG",
        suffixes=(".png",),
        modes=("L", "LA", "RGB", "RGBA", "I;16", "LA;16", "RGB;16", "RGBA;16"),
        largest_side=2**31 - 1,
        carries=("icc_profile", "exif", "xmp", "dpi", "text", "comment"),
    ),
    Format(
        name="TIFF",
        suffixes=(".tif", ".tiff"),
        modes=("L", "LA", "RGB", "RGBA", "I;16", "LA;16", "RGB;16", "RGBA;16", "F"),
        largest_side=2**31 - 1,
        carries=("icc_profile", "exif", "xmp", "dpi", "iptc"),
    ),
    Format(
        name="WEBP",
        suffixes=(".webp",),
        modes=("RGB", "RGBA"),
        largest_side=16383,
        carries=("icc_profile", "exif", "xmp"),
        lossy=True,
    ),
)
FORMATS = tuple(f.name for f in _WRITTEN)
"""The only formats that are read, by Pillow's names; HEIF needs the extra ``heic``."""

SUFFIXES = {suffix: f for f in _WRITTEN for suffix in f.suffixes}
"""Format of each suffix, in lower case."""


def format_of(path: Path) -> Format:
    """Return the format that a file's suffix stands for.

    Raises
    ------
    ImageError
        If it is none that is written.

    Examples
    --------
    >>> format_of(Path("a.JPG")).name
    'JPEG'
    """
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise ImageError(
            f"{path}: cannot write {path.suffix or 'a file without a suffix'}; written are "
            + ", ".join(sorted(SUFFIXES))
        ) from None


@dataclass(frozen=True, slots=True)
class Encoding:
    """How pictures are written.

    Raises
    ------
    OptionError
        If a value is none that is known, or the format none that is written.

    Examples
    --------
    >>> Encoding(quality=80).options(format_of(Path("a.jpg")))
    {'quality': 80, 'subsampling': '4:4:4'}
    """

    quality: int | None = None
    """From 1 to 100, for JPEG (95 by default), AVIF and HEIC (90), and WebP, which it makes lossy;
    the other formats lose nothing and refuse it."""
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] | None = None
    """Of colour in JPEG, AVIF and HEIC; 4:4:4, none, by default."""
    lossless: bool = False
    """Whether to refuse formats that would lose something."""
    metadata: Literal["keep", "strip"] = "keep"
    """``strip`` leaves out EXIF, XMP, captions, comments and texts; the resolution stays, and the
    colour profile, without which colours mean nothing."""
    format: str | None = None
    """Suffix without its dot, e.g. ``"png"``; by default the suffix of each output decides."""

    def __post_init__(self) -> None:
        for name, known in (
            ("metadata", ("keep", "strip")),
            ("subsampling", (None, "4:4:4", "4:2:2", "4:2:0")),
        ):
            if (value := getattr(self, name)) not in known:
                allowed = ", ".join(filter(None, known))
                raise OptionError(f"{name} is one of {allowed}, not {value!r}")
        whole = isinstance(self.quality, int) and not isinstance(self.quality, bool)
        if self.quality is not None and not (whole and 1 <= self.quality <= 100):
            raise OptionError(f"quality lies between 1 and 100, not {self.quality!r}")
        if self.format is not None and f".{self.format.lower()}" not in SUFFIXES:
            raise OptionError(
                f"format {self.format!r} is none of {', '.join(sorted(s[1:] for s in SUFFIXES))}"
            )

    def kind(self, path: Path) -> Format:
        """Return the format that a file is written in.

        Raises
        ------
        ImageError
            If its suffix decides, and stands for none that is written.
        OptionError
            If it stands for another format than the one asked for.
        """
        if self.format is None:
            return format_of(path)
        wanted = SUFFIXES[f".{self.format.lower()}"]
        if SUFFIXES.get(path.suffix.lower(), wanted) is not wanted:
            raise OptionError(
                f"{path} would not be {wanted.name} by its suffix; name it otherwise, or leave "
                f"the format {self.format!r} out"
            )
        return wanted

    def renamed(self, name: str) -> str:
        """Return an input's file name with the suffix of the format asked for, if any.

        Examples
        --------
        >>> Encoding(format="jpg").renamed("a/b.png"), Encoding(format="jpg").renamed("c.JPEG")
        ('a/b.jpg', 'c.JPEG')
        """
        path = PurePosixPath(name)
        if self.format is None or not path.name:
            return name
        suffix = f".{self.format.lower()}"
        if SUFFIXES.get(path.suffix.lower()) is SUFFIXES[suffix]:
            return name
        return path.with_suffix(suffix).as_posix()

    def options(self, kind: Format) -> dict[str, Any]:
        """Return what the format's encoder is told.

        Raises
        ------
        OptionError
            If an option does not belong to the format.
        """
        if self.lossless and self.quality is not None:
            raise OptionError("a lossless picture has no quality; leave one of the two out")
        if self.lossless and not kind.lossless:
            able = ", ".join(f.name for f in _WRITTEN if f.lossless)
            raise OptionError(f"{kind.name} cannot be written without loss; use {able}")
        if self.quality is not None and not kind.lossy:
            able = ", ".join(f.name for f in _WRITTEN if f.lossy)
            raise OptionError(f"{kind.name} has no quality; {able} have")
        if self.subsampling is not None and not kind.subsampling:
            able = ", ".join(f.name for f in _WRITTEN if f.subsampling)
            raise OptionError(f"{kind.name} has no choice of subsampling; {able} have")
        found: dict[str, Any] = {}
        if kind.lossy:
            quality = self.quality or kind.quality
            # "exact": colours that alpha hides are changed otherwise
            found |= {"lossless": True, "exact": True} if quality is None else {"quality": quality}
        if kind.subsampling:
            found["subsampling"] = self.subsampling or "4:4:4"
        return found
