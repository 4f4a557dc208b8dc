"""Checks of a plugin as a package: listing is cheap, names and metadata are in order."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from enhancekit.discovery import canonical
from enhancekit.errors import ConformanceError, EnhanceKitError
from enhancekit.plugins import ALLOW, BUILTIN, Host, PluginStatus, host
from enhancekit.registry import Entry
from enhancekit.specs import EnhancerSpec
from enhancekit.testing import probe
from enhancekit.testing.cases import NotApplicable, PluginCase
from enhancekit.weights import read_card, shipped

__all__ = [
    "PLUGIN_CHECKS",
    "licence_and_versions_are_stated",
    "listing_imports_no_torch",
    "names_are_its_own",
    "names_are_normalised",
    "no_side_effects_on_import",
    "registers",
    "targets_resolve",
    "uses_no_deprecated_hook",
    "weights_have_a_card",
]


def _status(case: PluginCase) -> PluginStatus:
    found = [s for s in host().statuses() if s.provider.plugin == case.name]
    if not found:
        known = ", ".join(s.provider.plugin for s in host().statuses())
        raise ConformanceError(
            f"no plugin {case.name!r} is installed, only {known}; install its package (pip install "
            "-e .), and look at the name of its entry point in the group 'enhancekit'"
        )
    return found[0]


def _entries(case: PluginCase) -> list[Entry[Any]]:
    return _status(case).entries


def registers(case: PluginCase) -> None:
    """Require that it is found, loads, and registers something."""
    status = _status(case)
    if status.status != "ok":
        raise ConformanceError(f"the plugin {status.summary or status.status}")


def listing_imports_no_torch(case: PluginCase) -> None:
    """Require that listing what it registers imports no torch."""
    by = _probe(case)["torch_by"]
    if by:
        raise ConformanceError(
            f"listing the plugin {case} imports torch ({by}); let the plugin's module hold "
            "descriptions only, and name the code by target='package.module:attribute'"
        )


def no_side_effects_on_import(case: PluginCase) -> None:
    """Require that listing it and importing its code change, print and write nothing."""
    found = _probe(case)
    if found["listing"]:
        raise ConformanceError(
            f"listing the plugin {case} {', '.join(found['listing'])}; do that where it is used"
        )
    if found["importing"]:
        raise ConformanceError(
            f"importing the code of the plugin {case} {', '.join(found['importing'])}; do that "
            "where it is used"
        )


def _probe(case: PluginCase) -> dict[str, Any]:
    provider = _status(case).provider
    return _probed(provider.plugin, provider.distribution, tuple(sys.path))


@cache  # two checks ask, and the first import of torch takes seconds
def _probed(plugin: str, distribution: str, path: tuple[str, ...]) -> dict[str, Any]:
    given = {"path": path, "plugin": plugin}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        # -P: the kit's own folder is no place to import from
        command = [sys.executable, "-P", "-B", probe.__file__, str(result)]
        done = subprocess.run(  # noqa: S603  our own interpreter and file
            command,
            input=json.dumps(given),
            env={**os.environ, ALLOW: distribution, "PYTHONWARNINGS": ""},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if not result.is_file():
            last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            raise ConformanceError(
                f"the plugin {plugin} cannot be listed in a fresh process: {last}"
            )
        found: dict[str, Any] = json.loads(result.read_text("utf-8"))
        return found


def targets_resolve(case: PluginCase) -> None:
    """Require that every target can be called, and every backbone named is registered."""
    for entry in _entries(case):
        if isinstance(entry.spec, EnhancerSpec) and entry.spec.backbone:
            try:
                host().backbones.get(entry.spec.backbone)
            except EnhanceKitError as error:
                raise ConformanceError(f"{entry} names a backbone: {error}") from error
            continue
        try:
            target = entry.target()
        except EnhanceKitError as error:
            raise ConformanceError(str(error)) from error
        if not callable(target):
            raise ConformanceError(
                f"{entry} names {entry.spec.target!r}, which is a {type(target).__name__} and "
                "cannot be called"
            )


def names_are_normalised(case: PluginCase) -> None:
    """Require a plugin's name of lower case letters, digits and hyphens."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", case.name):
        raise ConformanceError(
            f"the plugin's name {case.name!r} is awkward before a colon and in environment "
            f"variables; call its entry point {canonical(case.name.strip()).replace(' ', '-')!r}"
        )


def names_are_its_own(case: PluginCase) -> None:
    """Require that it takes no name of the core's, which would be ambiguous for everyone."""
    if case.name == BUILTIN:
        return
    core = {
        (e.kind, name)
        for s in Host({ALLOW: BUILTIN}).statuses()
        for e in s.entries
        for name in (e.spec.name, *e.spec.aliases)
    }
    for entry in _entries(case):
        for name in (entry.spec.name, *entry.spec.aliases):
            if (entry.kind, name) in core:
                raise ConformanceError(
                    f"{entry} takes the name {name!r} of the core's {entry.kind}, which then is "
                    "ambiguous for everyone who has the plugin; choose another"
                )


def licence_and_versions_are_stated(case: PluginCase) -> None:
    """Require a licence, a version, and the versions of enhancekit it works with."""
    name = _status(case).provider.distribution
    try:
        stated = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        raise ConformanceError(
            f"the plugin {case} comes with no metadata of a distribution {name!r}; install it"
        ) from None
    missing = []
    licences = [c for c in stated.get_all("Classifier", []) if c.startswith("License ::")]
    for key in ("License-Expression", "License"):
        licences += stated.get_all(key, [])
    if not licences:
        missing.append('a licence (license = "..." in pyproject.toml\'s [project])')
    try:
        Version(metadata.version(name))
    except InvalidVersion:
        missing.append('a version as packaging tools read it (version = "1.0.0")')
    needed = [Requirement(r) for r in metadata.requires(name) or ()]
    ours = [r for r in needed if canonical(r.name) == "enhancekit"]
    if name != "enhancekit" and not any(r.specifier for r in ours):
        missing.append('the versions of enhancekit it works with ("enhancekit>=0.1,<0.2")')
    if missing:
        raise ConformanceError(f"the distribution {name} does not state {', '.join(missing)}")


def uses_no_deprecated_hook(case: PluginCase) -> None:
    """Require that it implements no hook that will go."""
    deprecated = _status(case).deprecations
    if deprecated:
        raise ConformanceError(f"the plugin {case} uses what will go: {'; '.join(deprecated)}")


def weights_have_a_card(case: PluginCase) -> None:
    """Require shipped weights of the declared hash, whose card states licence and data."""
    specs = [e for e in _entries(case) if isinstance(e.spec, EnhancerSpec) and e.spec.weights]
    if not specs:
        raise NotApplicable("it ships no weights")
    for entry in specs:
        try:
            card = read_card(shipped(entry.spec.weights))
        except EnhanceKitError as error:
            raise ConformanceError(f"{entry}: {error}") from error
        missing = [what for what in ("license", "data", "task") if not getattr(card, what)]
        if missing:
            raise ConformanceError(
                f"the card of the weights of {entry} does not state {', '.join(missing)}; write "
                "the file with enhancekit.weights.save_weights and a full Card"
            )


PLUGIN_CHECKS = (
    registers,
    names_are_normalised,
    names_are_its_own,
    licence_and_versions_are_stated,
    targets_resolve,
    weights_have_a_card,
    uses_no_deprecated_hook,
    listing_imports_no_torch,
    no_side_effects_on_import,
)
