"""A registry per kind of thing: look up, create and list what the plugins registered."""

from __future__ import annotations

import contextlib
import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from enhancekit.errors import (
    AmbiguousNameError,
    EnhanceKitError,
    OptionError,
    PluginError,
    UnknownNameError,
)
from enhancekit.specs import LossSpec, Spec, load_target

__all__ = ["Entry", "LossRegistry", "Provider", "Registry", "blame"]

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True, slots=True)
class Provider:
    """Who registered something: the plugin and the distribution it came with."""

    plugin: str
    """Entry-point name."""
    distribution: str
    """Name of the installed distribution."""
    version: str
    """Its version."""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True, slots=True)
class Entry(Generic[S]):
    """A registered spec together with its provider."""

    spec: S
    """What was registered."""
    provider: Provider
    """Who registered it."""
    kind: str
    """Kind of thing, e.g. ``"block"``."""

    @property
    def qualified_name(self) -> str:
        """``plugin:name``, which is never ambiguous."""
        return f"{self.provider.plugin}:{self.spec.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.qualified_name} ({self.provider})"

    def target(self) -> Any:
        """Import and return the code the spec names.

        Raises
        ------
        PluginError
            If it cannot be imported.
        """
        return load_target(self.spec.target, wanted_by=str(self))

    def create(self, *args: Any, **options: Any) -> Any:
        """Import the target and call it.

        Raises
        ------
        PluginError
            If it cannot be imported, or raises anything but an `EnhanceKitError`.
        """
        target = self.target()
        try:
            made = target(*args, **options)
        except EnhanceKitError:
            raise
        except Exception as error:  # a plugin's code may raise anything
            raise PluginError(
                f"{self} failed while being created with {_call(args, options)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        # what takes no attributes (a frozen or slotted object, a function's result) goes without
        with contextlib.suppress(AttributeError, TypeError):
            made.enhancekit_origin = str(self)
        return made


def blame(error: BaseException) -> str:
    """Say which registered thing an exception came out of: the innermost one on its way.

    Parameters
    ----------
    error : BaseException
        With its traceback.

    Returns
    -------
    str
        E.g. ``"block acme:fast (acme-blocks 1.0)"``, or ``""`` if there was none.
    """
    origin = ""
    traceback = error.__traceback__
    while traceback is not None:
        found = getattr(traceback.tb_frame.f_locals.get("self"), "enhancekit_origin", None)
        origin = found if isinstance(found, str) else origin
        traceback = traceback.tb_next
    return origin


def _call(args: tuple[Any, ...], options: dict[str, Any]) -> str:
    shown = [repr(a) for a in args] + [f"{k}={v!r}" for k, v in options.items()]
    return f"({', '.join(shown)})"


class Registry(Generic[S]):
    """All registered things of one kind.

    Parameters
    ----------
    kind : str
        What is registered, in the singular, as it should stand in messages.
    collect : callable
        Returns the entries; called at every query, so that it can be lazy.
    failures : callable
        Returns one line for each plugin that failed; added to "unknown name" errors.

    Examples
    --------
    >>> import enhancekit
    >>> enhancekit.enhancers.get("gamma").qualified_name
    'builtin:gamma'
    >>> enhancekit.enhancers.get("gama")
    Traceback (most recent call last):
    ...
    enhancekit.errors.UnknownNameError: no enhancer is called 'gama'; did you mean 'gamma'?
    """

    def __init__(
        self,
        kind: str,
        collect: Callable[[], Iterable[Entry[S]]],
        failures: Callable[[], Iterable[str]],
    ) -> None:
        self.kind = kind
        self._collect = collect
        self._failures = failures

    def list(self) -> Sequence[Entry[S]]:
        """Return every entry, ordered by name and plugin."""
        return sorted(self._collect(), key=lambda e: (e.spec.name, e.provider.plugin))

    def names(self) -> Sequence[str]:
        """Return the shortest unambiguous name of every entry."""
        entries = self.list()
        given = Counter(n for e in entries for n in (e.spec.name, *e.spec.aliases))
        return [e.spec.name if given[e.spec.name] == 1 else e.qualified_name for e in entries]

    def get(self, name: str) -> Entry[S]:
        """Find an entry by ``name``, alias, or ``plugin:name``.

        Raises
        ------
        UnknownNameError
            If nothing has the name; near misses and failed plugins are listed.
        AmbiguousNameError
            If several plugins registered it; each is listed with its distribution and version.
        """
        entries = self.list()
        if not isinstance(name, str):
            raise UnknownNameError(f"the name of a registered {self.kind} is text, not {name!r}")
        plugin, _, bare = name.rpartition(":")
        found = [
            e
            for e in entries
            if (not plugin or e.provider.plugin == plugin)
            and (e.spec.name == bare or bare in e.spec.aliases)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise AmbiguousNameError(
                f"{self.kind} {name!r} is registered by several plugins: "
                + ", ".join(f"{e.qualified_name} ({e.provider})" for e in found)
                + "; use one of these qualified names"
            )
        raise UnknownNameError(self._unknown(name, entries))

    def create(self, name: str, *args: Any, **options: Any) -> Any:
        """Find an entry, import its target and call it; see `get` and `Entry.create`."""
        return self.get(name).create(*args, **options)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: str) -> bool:
        try:
            self.get(name)
        except UnknownNameError:
            return False
        except AmbiguousNameError:
            return True
        return True

    def __repr__(self) -> str:
        return f"<registry of {self.kind}s: {', '.join(self.names()) or 'empty'}>"

    def _unknown(self, name: str, entries: Iterable[Entry[S]]) -> str:
        known = [n for e in entries for n in (e.spec.name, *e.spec.aliases, e.qualified_name)]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        if near:
            hint = "; did you mean " + " or ".join(repr(n) for n in near) + "?"
        else:
            hint = f"; known: {', '.join(self.names()) or 'none'}"
        failures = "".join(f"\n  plugin that failed: {line}" for line in self._failures())
        return f"no {self.kind} is called {name!r}{hint}{failures}"


class LossRegistry(Registry[LossSpec]):
    """The losses; `create` also takes a weighted sum of names.

    Examples
    --------
    >>> import enhancekit
    >>> enhancekit.losses.create("l1 + 0.1*ssim").names
    ['l1', 'ssim']
    """

    # named as a target, because the sum of losses is torch code and stands a floor above
    composite = "enhancekit.builtin.composite:CompositeLoss"

    def create(self, name: str, *args: Any, **options: Any) -> Any:
        """Create the loss of that name, or the sum that the text describes.

        Parameters
        ----------
        name : str
            E.g. ``"ssim"`` or ``"l1 + 0.1*ssim"``.
        *args, **options
            Of one loss its own; of a sum ``options={"ssim": {...}}`` alone, by the losses' names.

        Raises
        ------
        OptionError
            If a sum cannot be read, or is given other options.
        UnknownNameError, AmbiguousNameError, PluginError
            As for `Registry.create`.
        """
        if "+" in name or "*" in name:
            if args or options.keys() - {"options"}:
                raise OptionError(
                    f"the sum {name!r} takes options by the names of its losses, e.g. "
                    "options={'ssim': {'window': 7}}"
                )
            return load_target(self.composite, wanted_by="a sum of losses")(
                name, super().create, **options
            )
        return super().create(name, *args, **options)
