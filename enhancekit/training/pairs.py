"""Pairs of pictures in two folders: found by stem, grouped into scenes, split by scene."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from enhancekit.errors import DataError, ImageError
from enhancekit.imaging.formats import SUFFIXES
from enhancekit.imaging.reading import read_rgb8

__all__ = [
    "Pair",
    "content",
    "find_pairs",
    "is_held_out",
    "pictures_in",
    "read_pair",
    "readable",
    "sound_pairs",
]


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Pair:
    """An input, its reference, and the scene both show."""

    name: str
    """Stem of the files."""
    input: Path
    """The picture to enhance."""
    target: Path
    """What it should become."""
    scene: str
    """Pairs of one scene never stand on both sides of a split."""


def pictures_in(folder: Path) -> dict[str, Path]:
    """Return the pictures of a folder by stem, in natural order; hidden files are none.

    Raises
    ------
    DataError
        If the folder is missing or empty, or two files share a stem.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    found: dict[str, Path] = {}
    files = [
        path
        for path in folder.iterdir()
        # macOS puts ._a.png beside a.png on foreign disks
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    for path in sorted(files, key=lambda p: _natural(p.name)):
        if path.stem in found:
            raise DataError(
                f"{folder} has both {found[path.stem].name} and {path.name}; pictures are "
                "paired by stem, so rename one"
            )
        found[path.stem] = path
    if not found:
        raise DataError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return found


def find_pairs(
    inputs: Path, targets: Path, scene: str = "", skipped: list[str] | None = None
) -> list[Pair]:
    """Pair two folders by file stem.

    Parameters
    ----------
    inputs, targets : Path
        The folders.
    scene : str
        Regular expression on the stem whose first group names the scene. Without it, the scene
        is the content of the reference file.
    skipped : list of str, optional
        Given, pictures without a partner are left out and named here, one line each.

    Raises
    ------
    DataError
        If a folder is missing, a picture has no partner, or the expression does not match.
    """
    lows, highs = pictures_in(inputs), pictures_in(targets)
    for alone, other in (
        (lows.keys() - highs.keys(), targets),
        (highs.keys() - lows.keys(), inputs),
    ):
        if alone and skipped is not None:
            skipped += [f"{s} has no partner in {other}" for s in sorted(alone, key=_natural)]
        elif alone:
            shown = ", ".join(sorted(alone, key=_natural)[:5])
            raise DataError(
                f"{len(alone)} pictures have no partner of the same stem in {other}: {shown}"
                + (" ..." if len(alone) > 5 else "")
            )
    return [Pair(s, lows[s], highs[s], _scene(s, highs[s], scene)) for s in lows if s in highs]


def read_pair(pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read both pictures of a pair, (H, W, 3).

    Raises
    ------
    DataError
        If one cannot be decoded, or their sizes differ.
    """
    try:
        low, high = read_rgb8(pair.input), read_rgb8(pair.target)
    except ImageError as error:
        raise DataError(f"the pair {pair.name!r} cannot be read: {error}") from error
    if low.shape != high.shape:
        raise DataError(
            f"the pair {pair.name!r} has two sizes: {pair.input} is "
            f"{low.shape[1]}x{low.shape[0]}, {pair.target} is {high.shape[1]}x{high.shape[0]}"
        )
    return low, high


def sound_pairs(pairs: Iterable[Pair], skipped: list[str] | None = None) -> list[Pair]:
    """Read all pairs once and return them; those that are broken are left out if asked.

    Parameters
    ----------
    pairs : iterable of Pair
        From `find_pairs`.
    skipped : list of str, optional
        Given, broken pairs are named here, one line each, instead of raising.

    Raises
    ------
    DataError
        If a pair cannot be used.
    """
    return _sound(pairs, read_pair, skipped)


def readable(paths: Iterable[Path], skipped: list[str]) -> list[Path]:
    """Return the pictures that can be read; the others are named in `skipped`."""
    return _sound(paths, read_rgb8, skipped)


def _sound(
    items: Iterable[Item], read: Callable[[Item], object], skipped: list[str] | None
) -> list[Item]:
    sound = []
    for item in items:
        try:
            read(item)
        except (DataError, ImageError) as error:
            if skipped is None:
                raise
            skipped.append(str(error))
        else:
            sound.append(item)
    return sound


def is_held_out(scene: str, share: float) -> bool:
    """Tell whether a scene belongs to the held-out share; the same on every machine.

    Examples
    --------
    >>> is_held_out("a", 0.0)
    False
    """
    number = int.from_bytes(hashlib.sha256(os.fsencode(scene)).digest()[:8], "big")
    return number < share * 2**64


def content(path: Path) -> str:
    """Return what tells a file's content, whatever it is called."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _scene(stem: str, target: Path, pattern: str) -> str:
    if not pattern:
        return content(target)
    try:
        match = re.search(pattern, stem)
        name = match[1] if match else None
    except (re.error, IndexError) as error:
        raise DataError(f"the scene pattern {pattern!r} needs one group: {error}") from error
    if name is None:
        raise DataError(f"the scene pattern {pattern!r} does not match {stem!r}")
    return name


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(t), "") if t.isdecimal() else (-1, t) for t in re.split(r"(\d+)", name)]
