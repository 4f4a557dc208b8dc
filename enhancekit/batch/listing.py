"""Which files of a folder are to be done, and where the result of each may go."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from enhancekit.errors import FolderError, ImageError, OptionError
from enhancekit.imaging.formats import SUFFIXES

__all__ = ["Shard", "find_inputs", "left_out", "safe_target"]


_UNREAD = frozenset(
    {
        *(".gif", ".jp2", ".jxl", ".psd", ".svg", ".tga", ".exr", ".hdr", ".pbm", ".pgm", ".ppm"),
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf"),
        *(".raw", ".rw2", ".sr2", ".srw", ".x3f"),
    }
)
"""Pictures, of cameras too, that nothing here reads."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several equal parts of a folder, e.g. for one task of a job array.

    Parameters
    ----------
    index : int
        Which part, from 1.
    count : int
        How many parts there are.

    Raises
    ------
    OptionError
        If `index` does not lie between 1 and `count`.

    Examples
    --------
    >>> names = ["a.jpg", "b.jpg", "c.jpg"]
    >>> parts = [[n for n in names if Shard(i, 2).owns(n)] for i in (1, 2)]
    >>> sorted(parts[0] + parts[1]) == names
    True
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise OptionError(
                f"a shard is i/n with i from 1 to n, e.g. 1/4, not {self.index}/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``.

        Raises
        ------
        OptionError
            If it is something else.

        Examples
        --------
        >>> Shard.parse("2/8")
        Shard(index=2, count=8)
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if not found:
            raise OptionError(f"a shard is i/n with i from 1 to n, e.g. 1/4, not {text!r}")
        return cls(int(found[1]), int(found[2]))

    def owns(self, relative: str) -> bool:
        """Tell whether a file belongs to this part; decided by its name alone.

        Thus parts stay disjoint and complete while files are added between their starts.
        """
        digest = hashlib.sha256(os.fsencode(relative)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1


def find_inputs(folder: Path, *, recursive: bool, include: Sequence[str], skip: Path) -> list[str]:
    """List the files to be done, as paths relative to `folder` with ``/``, sorted.

    Parameters
    ----------
    folder : Path
        Where to look.
    recursive : bool
        Look in its subfolders, too; links to folders, and folders with the results of an earlier
        run, are not entered, with a warning.
    include : sequence of str
        Shell patterns of which one must match, in either case; against the name, or against the
        relative path if the pattern has a ``/``. Empty: every suffix of a format that is read.
    skip : Path
        Resolved folder that is not entered: the output.

    Returns
    -------
    list of str
        Names that start with a dot are left out, as a shell does.

    Raises
    ------
    FolderError
        If a folder cannot be listed, or there are no such files.
    OptionError
        If `include` is text instead of a list.
    """
    if isinstance(include, str):
        raise OptionError(f"include is a list of patterns, not {include!r}; write [{include!r}]")
    patterns = [pattern.lower() for pattern in include] or [f"*{s}" for s in SUFFIXES]
    found: list[str] = []

    def refuse(error: OSError) -> None:
        said = f"{error.filename} cannot be listed: {error.strerror or error}"
        if Path(error.filename) == folder:
            raise FolderError(said)
        warnings.warn(f"{said}; its pictures are left out", stacklevel=2)

    for place, folders, names in os.walk(folder, onerror=refuse):
        below = _subfolders(place, folders, skip) if recursive else []
        folders[:] = [path.name for path in below if _is_entered(path)]
        shown = [Path(place, name) for name in names if not name.startswith(".")]
        relative = [path.relative_to(folder).as_posix() for path in shown]
        found += [name for name in relative if _matches(name, patterns)]
    return sorted(found) or _refuse_nothing(folder, include, recursive=recursive)


def left_out(
    folder: Path, *, recursive: bool, include: Sequence[str], skip: Path
) -> dict[str, int]:
    """Count the pictures that nothing here reads, by suffix, and the subfolders not looked into.

    Parameters
    ----------
    folder, recursive, include, skip
        As for `find_inputs`; with `include`, the files left out are those that were not meant.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "a.CR2").touch()
    >>> (folder / "2024").mkdir()
    >>> left_out(folder, recursive=False, include=[], skip=Path("out"))
    {'.cr2': 1, 'subfolders': 1}
    """
    found: Counter[str] = Counter()
    for place, folders, names in os.walk(folder):
        below = _subfolders(place, folders, skip)
        if not include:
            suffixes = [Path(name).suffix.lower() for name in names if not name.startswith(".")]
            found.update(sorted(suffix for suffix in suffixes if suffix in _UNREAD))
        folders[:] = [path.name for path in below if recursive]
        if below and not recursive:
            found["subfolders"] = len(below)
    return dict(found)


def _subfolders(place: str, names: Sequence[str], skip: Path) -> list[Path]:
    """Return those that are not hidden, nor the output."""
    paths = [Path(place, name) for name in sorted(names) if not name.startswith(".")]
    return [path for path in paths if path.resolve() != skip]


def _is_entered(path: Path) -> bool:
    if path.is_symlink():
        warnings.warn(f"{path} is a link to a folder and is not followed", stacklevel=4)
        return False
    if (path / "manifest.jsonl").exists() or any(path.glob("manifest-*-of-*.jsonl")):
        warnings.warn(f"{path} holds results of an earlier run, left out", stacklevel=4)
        return False
    return True


def _refuse_nothing(folder: Path, include: Sequence[str], *, recursive: bool) -> NoReturn:
    raise FolderError(
        f"{folder} holds no pictures"
        + (f" that match {' or '.join(include)}" if include else "")
        + ("" if recursive else "; its subfolders are done with recursive (--recursive)")
    )


def _matches(relative: str, patterns: Sequence[str]) -> bool:
    path = relative.lower()
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(path if "/" in p else name, p) for p in patterns)


def safe_target(root: Path, relative: str) -> Path:
    """Return the path of an output, refusing one that leads out of the output folder.

    Parameters
    ----------
    root : Path
        The output folder, resolved.
    relative : str
        Path inside it.

    Raises
    ------
    ImageError
        If ``..``, an absolute path or a link leads out of `root`.

    Examples
    --------
    >>> safe_target(Path("/out"), "a/b.png").as_posix()
    '/out/a/b.png'
    """
    target = root / relative
    try:
        there = target.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise ImageError(f"{target} cannot be written: {error}") from error
    if not there.is_relative_to(root):
        raise ImageError(
            f"{target} leads out of the output folder {root}, to {there}; remove the link or "
            "choose another output folder"
        )
    return target
