"""Entry points of installed distributions, one broken file or line never hiding the others."""

from __future__ import annotations

import configparser
import glob
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import entrypoints

from enhancekit._version import __version__
from enhancekit.registry import Provider

__all__ = ["GROUP", "Found", "canonical", "find_plugins"]

GROUP = "enhancekit"


@dataclass(frozen=True, slots=True)
class Found:
    """An entry point, or why it cannot be read."""

    provider: Provider
    """Entry-point name, distribution, version."""
    point: Any = None
    """The `entrypoints.EntryPoint`; ``None`` where there is an error."""
    error: str = ""
    """What is wrong with it, one line."""


def canonical(name: str) -> str:
    """Normalise a distribution's name as packaging tools do.

    Examples
    --------
    >>> canonical("Acme_Blocks")
    'acme-blocks'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def find_plugins() -> Iterator[Found]:
    """Find the entry points of the group ``enhancekit``; of equal distributions, the first."""
    seen = set()
    for folder in dict.fromkeys(sys.path):
        for config, distro in _files(folder):
            name = canonical(distro.name)
            if name in seen:
                continue
            seen.add(name)
            if not isinstance(config, str) and GROUP not in config:
                continue  # whatever is wrong with it is its own affair
            version = distro.version or _recorded_version(distro.name)
            if isinstance(config, str):
                yield Found(Provider(distro.name, name, version), error=config)
                continue
            unmet = _unmet_requirement(name)
            for point, text in config[GROUP].items():
                provider = Provider(point, name, version)
                if unmet:
                    yield Found(provider, error=unmet)
                    continue
                try:
                    yield Found(provider, entrypoints.EntryPoint.from_string(text, point, distro))
                except entrypoints.BadEntryPoint as error:
                    yield Found(provider, error=f"{error}; write module or module:attribute")


def _recorded_version(name: str) -> str:
    """Look inside: the folder's name of a source checkout's metadata has no version."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError, OSError):  # or it is no UTF-8
        return "0"


def _unmet_requirement(distribution: str) -> str:
    """Say what is wrong if a distribution needs another version of enhancekit than this one."""
    from importlib import metadata

    try:
        lines = metadata.requires(distribution) or ()
    except metadata.PackageNotFoundError:
        return ""
    except (ValueError, OSError) as error:
        return f"its metadata cannot be read: {error}"
    for line in lines:
        if not re.match(r"enhancekit\b(?![-_.])", line, re.IGNORECASE):
            continue
        from packaging.requirements import InvalidRequirement, Requirement

        try:
            needed = Requirement(line)
        except InvalidRequirement:
            return f"its requirement {line!r} cannot be read; write e.g. 'enhancekit>=0.1,<0.2'"
        applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
        if applies and not needed.specifier.contains(__version__, prereleases=True):
            return (
                f"it needs enhancekit {needed.specifier}, but this is {__version__}; install "
                f"versions that fit, e.g. pip install --upgrade enhancekit {distribution}"
            )
    return ""


def _files(folder: str) -> list[tuple[Any, Any]]:
    """Return (parsed file or why it cannot be parsed, distribution) of a folder on the path."""
    try:
        return list(entrypoints.iter_files_distros([folder]))
    except (configparser.Error, UnicodeDecodeError, OSError):
        # one unreadable file ends that generator, so here each is read by itself
        return list(_one_by_one(folder))


def _one_by_one(folder: str) -> Iterator[tuple[Any, Any]]:
    for kind in ("dist-info", "egg-info"):
        for found in glob.iglob(f"{glob.escape(folder)}/*.{kind}/entry_points.txt"):  # noqa: PTH207
            path = Path(found)
            distro = entrypoints.Distribution.from_name_version(path.parent.stem)
            parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",))
            try:
                parser.read([found])
            except (configparser.Error, UnicodeDecodeError, OSError) as error:
                # others' broken files are their affair; one that names our group is ours
                if GROUP.encode() in path.read_bytes():
                    yield f"{path} cannot be read: {' '.join(str(error).split())}", distro
                continue
            yield parser, distro
