"""Several pictures in one file: the frames of an animation, or pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np
from PIL import Image

from enhancekit.errors import ImageError
from enhancekit.imaging.formats import Format
from enhancekit.imaging.tiff import save_tiff

__all__ = ["Frames", "animated", "check_kind", "save_animation", "save_pages"]

Kind = TypeVar("Kind")

_ANIMATED = {"AVIF": (".avif",), "PNG": (".png",), "WEBP": (".webp",)}
_PAGES = {"TIFF": (".tif", ".tiff")}


@dataclass(frozen=True, slots=True)
class Frames(Generic[Kind]):
    """All pictures of a file.

    Examples
    --------
    >>> Frames((Image.new("L", (1, 1)),)).pictures[0].size
    (1, 1)
    """

    pictures: tuple[Kind, ...]
    """In their order; frames are whole pictures, whatever of them the file stores."""
    durations: tuple[int, ...] | None = None
    """Milliseconds that each frame is shown; ``None``: they are pages, or there is but one."""
    loop: int | None = None
    """How often an animation is shown, 0 for ever; ``None`` if the file doesn't say."""
    default_image: bool = False
    """Whether the first frame of a PNG is no part of the animation, but shown in its stead."""


def animated(picture: Image.Image, finish: Any) -> Frames[Any]:
    """Decode all frames of an opened animation; `finish` is called on each of them."""
    pictures, durations = [], []
    for number in range(getattr(picture, "n_frames", 1)):
        picture.seek(number)
        picture.load()
        pictures.append(finish(picture))
        durations.append(round(picture.info.get("duration", 0)))
    if len(pictures) == 1:
        return Frames(tuple(pictures))
    default = bool(picture.info.get("default_image", False))
    return Frames(tuple(pictures), tuple(durations), picture.info.get("loop"), default)


def check_kind(frames: Frames[Any], kind: Format) -> None:
    """Refuse a format that does not hold several pictures of this kind.

    Raises
    ------
    ImageError
        Naming those that do.

    Examples
    --------
    >>> from pathlib import Path
    >>> from enhancekit.imaging.formats import format_of
    >>> pages = Frames((Image.new("L", (1, 1)),) * 2)
    >>> check_kind(pages, format_of(Path("a.jpg")))
    Traceback (most recent call last):
    enhancekit.errors.ImageError: JPEG does not hold 2 pages; use .tif, .tiff
    """
    if len(frames.pictures) == 1:
        return
    able = _PAGES if frames.durations is None else _ANIMATED
    if kind.name not in able:
        what = "pages" if frames.durations is None else "frames of an animation"
        suffixes = ", ".join(suffix for group in able.values() for suffix in group)
        raise ImageError(f"{kind.name} does not hold {len(frames.pictures)} {what}; use {suffixes}")


def save_animation(
    frames: Frames[Any], file: BinaryIO, kind: Format, options: dict[str, Any]
) -> None:
    """Encode one picture, or an animation with its durations and how often it is shown.

    Raises
    ------
    ImageError
        If its frames have 16 bits a channel.
    """
    if not all(isinstance(picture, Image.Image) for picture in frames.pictures):
        raise ImageError("animations of 16 bits a channel are not written")
    first, *others = _alike(list(frames.pictures))
    if others:
        shown = list(frames.durations or ())
        options = options | {"save_all": True, "append_images": others, "duration": shown}
        if kind.name == "PNG" and frames.default_image:
            options |= {"default_image": True, "duration": shown[1:]}
        if kind.name != "AVIF" and frames.loop is not None:  # AVIF has no place for it
            options["loop"] = frames.loop
    first.save(file, format=kind.name, **options)


def _alike(pictures: list[Image.Image]) -> list[Image.Image]:
    """Return copies without metadata, of one mode, which the frames of a file share."""
    modes = {picture.mode for picture in pictures}
    mode = modes.pop() if len(modes) == 1 else "RGBA"
    done = []
    for picture in pictures:
        bare = picture.copy() if picture.mode == mode else picture.convert(mode)
        bare.info = {}  # the options say what is kept
        done.append(bare)
    return done


def save_pages(frames: Frames[Any], file: BinaryIO, carried: list[dict[str, Any]]) -> None:
    """Encode pages as TIFF, each with its own metadata."""
    link = None
    for picture, kept in zip(frames.pictures, carried, strict=True):
        link = save_tiff(np.asarray(picture), file, kept, link=link)
