"""What others build on changes on purpose only: it is written down, and compared with.

After a change that is meant, run ``python tests/test_public_surface.py`` and say in CHANGELOG.md
what changed.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from pathlib import Path

import typer

import enhancekit
from enhancekit import errors, hookspecs, plugins, testing
from enhancekit.cli import app

WRITTEN = Path(__file__).with_suffix(".txt")


def signature(thing):
    return str(inspect.signature(thing)).replace("mappingproxy({})", "{}")


def described(name, thing):
    """Describe a public thing in lines that change when its users must."""
    if isinstance(thing, type) and issubclass(thing, BaseException):
        yield f"{name}({', '.join(base.__name__ for base in thing.__bases__)})"
        return
    if dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            given = field.default
            if field.default_factory is not dataclasses.MISSING:
                given = field.default_factory()
            shown = "required" if given is dataclasses.MISSING else f"default {given!r}"
            yield f"{name}.{field.name}: {field.type} ({shown})"
    elif isinstance(thing, type):
        yield f"{name}{signature(thing)}"
    elif callable(thing):
        yield f"{name}{signature(thing)}"
        return
    else:
        yield f"{name}: {type(thing).__name__}"
        thing = type(thing)
    for key, member in inspect.getmembers(thing):
        if not key.startswith("_") and inspect.isfunction(member):
            yield f"{name}.{key}{signature(member)}"
        elif not key.startswith("_") and isinstance(member, property):
            yield f"{name}.{key}"


def commands():
    def walk(command, path):
        for parameter in command.params:
            if parameter.name != "help":
                yield f"{path} {'|'.join((*parameter.opts, *parameter.secondary_opts))}"
        for name, below in sorted(getattr(command, "commands", {}).items()):
            yield f"{path} {name}"
            yield from walk(below, f"{path} {name}")

    yield from walk(typer.main.get_command(app), "$ enhancekit")


def surface():
    """Return every line of the public surface, sorted."""
    lines = set(commands())
    for name in enhancekit.__all__:
        if name not in ("__version__", "hookimpl"):
            lines |= set(described(f"enhancekit.{name}", getattr(enhancekit, name)))
    for module in (errors, testing):
        for name in module.__all__:
            lines |= set(described(f"{module.__name__}.{name}", getattr(module, name)))
    inference = importlib.import_module("enhancekit.inference.enhancer")
    lines |= set(described("Enhancer", inference.Enhancer))
    assembly = importlib.import_module("enhancekit.inference.assembly")
    name = "enhancekit.inference.assembly.network_enhancer"
    lines |= set(described(name, assembly.network_enhancer))
    for hook, spec in plugins.KINDS.values():
        lines.add(f"hook {hook}{signature(getattr(hookspecs, hook))} of {spec.__name__}")
    return sorted(lines)


def test_it_is_what_is_written_down():
    written = WRITTEN.read_text("utf-8").splitlines()
    found = surface()
    gone = [line for line in written if line not in found]
    new = [line for line in found if line not in written]
    assert (gone, new) == ([], []), f"if that is meant: python tests/{Path(__file__).name}"


def test_every_part_is_in_it():
    found = surface()
    for start in (
        "$ enhancekit plugins --json",
        "enhancekit.load(name: 'str',",
        "enhancekit.BlockSpec.role: str (required)",
        "enhancekit.errors.UnknownNameError(EnhanceKitError, LookupError)",
        "enhancekit.losses.create(",
        "enhancekit.testing.check_block(",
        "Enhancer.enhance(",
        "hook enhancekit_backbones() -> 'Iterable[BackboneSpec]' of BackboneSpec",
    ):
        assert [line for line in found if line.startswith(start)], start


if __name__ == "__main__":
    WRITTEN.write_text("\n".join(surface()) + "\n", encoding="utf-8")
