"""Write a new plugin: an installable package whose tests pass as it stands."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import distribution, packages_distributions
from importlib.resources import files
from pathlib import Path
from string import Template

from enhancekit._version import __version__
from enhancekit.discovery import find_plugins
from enhancekit.errors import OptionError

__all__ = ["KINDS", "new_plugin"]

KINDS: Mapping[str, str] = {
    "block": "blocks",
    "backbone": "networks",
    "loss": "losses",
    "metric": "metrics",
    "enhancer": "enhancers",
}
"""What can be written, and the module its code goes to."""


def new_plugin(name: str, kind: str, parent: str | os.PathLike[str] = ".") -> Path:
    """Write the package of a new plugin.

    Parameters
    ----------
    name : str
        Of the distribution, the plugin and its folder: lower case letters and digits joined by
        hyphens, e.g. ``"acme-blocks"``.
    kind : {"block", "backbone", "loss", "metric", "enhancer"}
        What it registers.
    parent : path-like
        Folder in which the package's folder is made.

    Returns
    -------
    Path
        The new folder.

    Raises
    ------
    OptionError
        If the name or kind cannot be used, the folder exists, or it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> made = new_plugin("acme-loss", "loss", tempfile.mkdtemp())
    >>> sorted(p.name for p in made.iterdir())
    ['README.md', 'acme_loss', 'pyproject.toml', 'tests']
    """
    _check(name, kind)
    folder = Path(parent) / name
    if folder.exists():
        raise OptionError(f"{folder} exists already; choose another name, or remove it")
    package = name.replace("-", "_")
    module = KINDS[kind]
    major, minor = __version__.split(".")[:2]
    values = {
        "name": name,
        "package": package,
        "kind": kind,
        "module": module,
        "enhancekit": f"enhancekit>={major}.{minor},<{major}.{int(minor) + 1}",
    }
    contents = {
        "pyproject.toml": _text("pyproject.toml", values),
        "README.md": _text("README.md", values),
        f"{package}/__init__.py": _text("__init__.py", values),
        f"{package}/py.typed": "",
        f"{package}/plugin.py": _text(f"{kind}/plugin.py", values),
        f"{package}/{module}.py": _text(f"{kind}/code.py", values),
        f"tests/test_{package}.py": _text(f"{kind}/test.py", values),
    }
    try:
        _write(folder, contents)
    except OSError as error:
        raise OptionError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def _check(name: str, kind: str) -> None:
    if kind not in KINDS:
        raise OptionError(f"the kind is one of {', '.join(KINDS)}, not {kind!r}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise OptionError(
            f"{name!r} is no name for a package; use lower-case letters and digits joined by "
            "hyphens, starting with a letter, e.g. 'acme-blocks'"
        )
    if name in ("builtin", "enhancekit"):
        raise OptionError(f"{name!r} is the core's own name; choose another")
    for found in find_plugins():
        if name in (found.provider.plugin, found.provider.distribution):
            raise OptionError(
                f"{name} is installed already, by {found.provider}, and would be replaced; choose "
                "another name, or uninstall that"
            )
    package = name.replace("-", "_")
    others = [
        name
        for name in packages_distributions().get(package, ())
        if not distribution(name).entry_points.select(group="enhancekit")
    ]
    if package in sys.stdlib_module_names or others:
        raise OptionError(
            f"{package} is a module of {', '.join(others) or 'Python'}; choose another name"
        )


def _text(template: str, values: Mapping[str, str]) -> str:
    found = files(__name__).joinpath("templates", f"{template}.txt")
    return Template(found.read_text("utf-8")).substitute(values)


def _write(folder: Path, contents: Mapping[str, str]) -> None:
    """Write all of it beside the target and move it there, so that no half of it is left."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        for name, text in contents.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
