"""What a request asks for: the options of its query, and the formats it accepts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from enhancekit.errors import OptionError
from enhancekit.imaging.formats import SUFFIXES, Encoding, Format

__all__ = ["FORMATS", "MEDIA_TYPES", "OPTIONS", "Asked", "acceptable", "read_query"]

MEDIA_TYPES = {
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "HEIF": "image/heic",
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
}
FORMATS: dict[str, Format] = {f.name: f for f in SUFFIXES.values()}
"""By name; each has a media type above."""

OPTIONS = {
    "enhancer": "name from /v1/enhancers; the server's default if left out",
    "strength": "from 0, the picture as it came, to 1, the full effect",
    "mode": "exact, or fast: large pictures by way of a small copy; fine noise stays",
    "quality": "1 to 100; JPEG has 95, AVIF and HEIC 90; makes WebP lossy",
    "subsampling": "of colour in JPEG, AVIF and HEIC: 4:4:4 (none), 4:2:2 or 4:2:0",
    "lossless": "true refuses formats that lose something",
    "metadata": "keep, or strip: leave out EXIF, XMP, captions, comments and texts",
}
"""Options that every enhancer has; further ones are its controls."""

MODES = ("exact", "fast")
"""A request cannot ask for the eight times of "best"."""

_CHOICES = {
    "mode": MODES,
    "lossless": ("false", "true"),
}
"""Values of the options that `Encoding` does not check."""


_LOSSLESS = ("PNG", "WEBP", "TIFF")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for."""

    enhancer: str | None = None
    """Its name; ``None``: the default."""
    strength: float = 1.0
    mode: str = "exact"
    encoding: Encoding = field(default_factory=Encoding)
    controls: dict[str, float] = field(default_factory=dict)


def read_query(items: Iterable[tuple[str, str]]) -> Asked:
    """Read the options of a request.

    Parameters
    ----------
    items : iterable of (str, str)
        Names and values, as they stand in the address.

    Raises
    ------
    OptionError
        If an option is given twice, or its value is none it can have. Names that are no option
        are taken for controls of the enhancer, which refuses those it lacks.

    Examples
    --------
    >>> read_query([("enhancer", "gamma"), ("strength", "0.5"), ("exposure", "0.4")]).controls
    {'exposure': 0.4}
    """
    given: dict[str, str] = {}
    for name, value in items:
        if name in given:
            raise OptionError(f"{name} is given twice; give it once")
        given[name] = value
    for name, choices in _CHOICES.items():
        if name in given and given[name] not in choices:
            raise OptionError(f"{name} is {' or '.join(choices)}, not {given[name]!r}")
    quality = given.get("quality")
    if quality is not None and not (quality.isascii() and quality.isdigit() and len(quality) < 4):
        raise OptionError(f"quality is a whole number between 1 and 100, not {quality!r}")
    strength = given.get("strength", "1")
    return Asked(
        given.get("enhancer"),
        _number(strength, f"strength is a number, not {strength!r}"),
        given.get("mode", "exact"),
        Encoding(
            None if quality is None else int(quality),
            given.get("subsampling"),  # type: ignore[arg-type]
            given.get("lossless") == "true",
            given.get("metadata", "keep"),  # type: ignore[arg-type]
        ),
        {
            name: _number(
                text,
                f"{name}={text!r} is no option: there are {', '.join(sorted(OPTIONS))}, and "
                "controls of an enhancer, which take numbers; the header Accept chooses the format",
            )
            for name, text in given.items()
            if name not in OPTIONS
        },
    )


def _number(text: str, otherwise: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionError(otherwise) from None


def acceptable(accept: str, given: str) -> list[Format]:
    """Return the formats that a client accepts, best first.

    Parameters
    ----------
    accept : str
        The header's value; empty: anything.
    given : str
        Name of the format of what was uploaded. A wildcard stands for this one, or if just this
        is refused for those without loss; of those that are wanted equally it comes first.

    Returns
    -------
    list of Format
        Empty if none is.

    Examples
    --------
    >>> [f.name for f in acceptable("image/png;q=0.5, image/webp", "JPEG")]
    ['WEBP', 'PNG']
    >>> [f.name for f in acceptable("*/*", "JPEG")]
    ['JPEG']
    """
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    weights = dict(ranges)
    wanted: dict[str, float] = {}
    for name, media_type in MEDIA_TYPES.items():
        names = [media_type, "image/heif"] if name == "HEIF" else [media_type]
        if name == given:
            names += ["image/*", "*/*"]
        stated = [weights[n] for n in names if n in weights]
        if stated:
            wanted[name] = stated[0]
    order = sorted(
        (n for n, weight in wanted.items() if weight > 0),
        key=lambda n: (-wanted[n], n != given),
    )
    if not order and max(weights.get("image/*", 0.0), weights.get("*/*", 0.0)) > 0:
        order = [name for name in _LOSSLESS if name not in wanted]
    return [FORMATS[name] for name in order]


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (p.strip().lower() for p in part.split(";"))
    weight = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key == "q":
            try:
                weight = float(value)
            except ValueError:
                weight = 0.0
    return name, weight
