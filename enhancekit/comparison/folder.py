"""`compare_folder`: what several enhancers make of each picture of a folder."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from enhancekit.batch.listing import find_inputs
from enhancekit.comparison.measures import Measures, difference, measured, thumbnail
from enhancekit.errors import EnhanceKitError, FolderError, OptionError
from enhancekit.imaging.convert import open_image
from enhancekit.imaging.formats import MAX_PIXELS
from enhancekit.imaging.reading import decode
from enhancekit.inference.enhancer import Enhancer
from enhancekit.pages import data_address

__all__ = ["INPUT", "Compared", "Failed", "Version", "compare_folder"]

INPUT = "input"
"""Name of the version that nobody enhanced."""
QUALITY = 90


@dataclass(frozen=True, slots=True)
class Version:
    """A picture as it came, or as one enhancer made it."""

    name: str
    """``"input"``, or the enhancer's qualified name."""
    size: tuple[int, int]
    """Width and height."""
    seconds: float | None
    """How long enhancing took; ``None`` for the input."""
    measures: Measures
    address: str
    """The picture for a page, as a data address."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A picture in all its versions."""

    name: str
    """Path in the folder."""
    versions: tuple[Version, ...]
    """The input first, then the enhancers in their order."""
    disagreement: float
    """Mean colour difference (CIE76) of the two enhancers furthest apart; of one enhancer, from
    the input."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A picture that could not be read, or that an enhancer failed at."""

    name: str
    """Path in the folder."""
    error: str
    """Why."""


def compare_folder(
    folder: str | os.PathLike[str],
    enhancers: Sequence[Enhancer],
    *,
    strength: float = 1.0,
    recursive: bool = False,
    include: Sequence[str] = (),
    side: int = 1200,
    max_pixels: int = MAX_PIXELS,
) -> tuple[int, Iterator[Compared | Failed]]:
    """Enhance each picture of a folder with each enhancer, and measure what comes out.

    Parameters
    ----------
    folder : path-like
        Where the pictures lie.
    enhancers : sequence of Enhancer
        Different ones.
    strength : float
        As for `Enhancer.enhance`.
    recursive, include
        As for `enhancekit.batch.enhance_folder`.
    side : int
        Longer side, in pixels, of the pictures for the page.
    max_pixels : int
        Larger pictures fail.

    Returns
    -------
    count : int
        How many pictures there are.
    results : iterator of Compared or Failed
        One for each, by name.

    Raises
    ------
    FolderError
        If the folder is missing or holds no such pictures.
    OptionError
        If an enhancer is named twice, or none is.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FolderError(f"{folder} is no folder that can be read")
    names = _labels(enhancers)
    if not names:
        raise OptionError("name an enhancer to compare with the pictures as they came")
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise OptionError(f"{', '.join(sorted(twice))} is named twice; name each enhancer once")
    found = find_inputs(folder, recursive=recursive, include=include, skip=Path())
    for enhancer in enhancers:
        enhancer.run(torch.zeros(1, 3, 64, 64))  # what is done once shall not count for the first

    def results() -> Iterator[Compared | Failed]:
        for name in found:
            try:
                yield _compared(
                    folder / name,
                    name,
                    dict(zip(names, enhancers, strict=True)),
                    strength=strength,
                    side=side,
                    max_pixels=max_pixels,
                )
            except OptionError:
                raise  # it would be the same for every picture
            except EnhanceKitError as error:
                yield Failed(name, str(error).removeprefix(f"{folder / name}: "))

    return len(found), results()


def _labels(enhancers: Sequence[Enhancer]) -> list[str]:
    """Name each; two files of weights for the same network by their paths, too."""
    entries = [e.entry for e in enhancers]
    names = [entry.qualified_name for entry in entries]
    return [
        name if names.count(name) == 1 else f"{name} ({entry.provider})"
        for name, entry in zip(names, entries, strict=True)
    ]


def _compared(
    path: Path,
    name: str,
    enhancers: Mapping[str, Enhancer],
    *,
    strength: float,
    side: int,
    max_pixels: int,
) -> Compared:
    picture: Any = decode(path, max_pixels=max_pixels)
    version, thumb = _version(INPUT, picture, None, side)
    versions, thumbs = [version], [thumb]
    for label, enhancer in enhancers.items():
        begun = time.perf_counter()
        # what enlarges has no weaker form, and says so for any other strength
        result = enhancer.enhance(picture, strength=strength)
        seconds = time.perf_counter() - begun
        version, thumb = _version(label, result, seconds, side)
        versions.append(version)
        thumbs.append(thumb)
    pairs = itertools.combinations(thumbs[1:] if len(thumbs) > 2 else thumbs, 2)
    return Compared(name, tuple(versions), max(difference(a, b) for a, b in pairs))


def _version(
    name: str, picture: Any, seconds: float | None, side: int
) -> tuple[Version, Image.Image]:
    pixels: NDArray[np.float32] = open_image(picture).read()[0].permute(1, 2, 0).numpy()
    shown = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    size = picture.width, picture.height
    address = data_address(shown, side, QUALITY)
    return Version(name, size, seconds, measured(pixels), address), thumbnail(shown)
