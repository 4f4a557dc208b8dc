"""Register the plugins that are found, and keep one plugin's failure to itself."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import pluggy

from enhancekit import hookspecs
from enhancekit.discovery import canonical, find_plugins
from enhancekit.errors import PluginError
from enhancekit.registry import Entry, LossRegistry, Provider, Registry
from enhancekit.specs import (
    BackboneSpec,
    BlockSpec,
    EnhancerSpec,
    LossSpec,
    MetricSpec,
    SchemeSpec,
    Spec,
)

__all__ = ["Host", "PluginStatus", "PluginWarning", "host", "reset", "use"]

BUILTIN = "builtin"
DISABLE, ALLOW, STRICT = (
    "ENHANCEKIT_DISABLE_PLUGINS",
    "ENHANCEKIT_PLUGINS",
    "ENHANCEKIT_STRICT_PLUGINS",
)

KINDS: Mapping[str, tuple[str, type[Spec]]] = {
    "backbone": ("enhancekit_backbones", BackboneSpec),
    "block": ("enhancekit_blocks", BlockSpec),
    "loss": ("enhancekit_losses", LossSpec),
    "metric": ("enhancekit_metrics", MetricSpec),
    "enhancer": ("enhancekit_enhancers", EnhancerSpec),
    "scheme": ("enhancekit_schemes", SchemeSpec),
}


class PluginWarning(UserWarning):
    """A plugin was left out, or the environment names one that is not installed."""


@dataclass(slots=True)
class PluginStatus:
    """What became of one plugin."""

    provider: Provider
    """Plugin, distribution and version."""
    status: str
    """``"ok"``, ``"disabled"`` or ``"failed"``."""
    error: str = ""
    """One line saying why it failed."""
    details: str = ""
    """The traceback, where there is one."""
    entries: list[Entry[Any]] = field(default_factory=list)
    """What it registered; empty unless ``status`` is ``"ok"``."""
    deprecations: list[str] = field(default_factory=list)
    """One line for each hook it implements that will go, with what to use instead."""
    clashes: list[str] = field(default_factory=list)
    """One line for each name that another plugin registered too."""

    @property
    def summary(self) -> str:
        """One line for error messages."""
        return f"{self.provider.plugin} ({self.provider}): {self.error}"


class Host:
    """The plugins of this process and the registries they fill.

    Discovery runs at the first query, not on construction.

    Parameters
    ----------
    environ : mapping of str to str, optional
        Where ``ENHANCEKIT_PLUGINS`` (allow-list), ``ENHANCEKIT_DISABLE_PLUGINS`` (block-list)
        and ``ENHANCEKIT_STRICT_PLUGINS`` (fail loudly) are read; the process environment by
        default. Names are entry-point or distribution names, separated by commas.
    given : mapping of Provider to object, optional
        Plugins besides those that are found.

    Examples
    --------
    >>> from enhancekit.plugins import Host
    >>> host = Host({"ENHANCEKIT_PLUGINS": "none-but-builtin"})
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     [status.provider.plugin for status in host.statuses() if status.status == "ok"]
    ['builtin']
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        given: Mapping[Provider, object] = MappingProxyType({}),
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._given = given
        self._lock = threading.RLock()
        self._statuses: list[PluginStatus] | None = None
        self._discovering = False
        self.backbones = Registry[BackboneSpec]("backbone", *self._sources("backbone"))
        self.blocks = Registry[BlockSpec]("block", *self._sources("block"))
        self.losses = LossRegistry("loss", *self._sources("loss"))
        self.metrics = Registry[MetricSpec]("metric", *self._sources("metric"))
        self.enhancers = Registry[EnhancerSpec]("enhancer", *self._sources("enhancer"))
        self.schemes = Registry[SchemeSpec]("scheme", *self._sources("scheme"))

    def statuses(self) -> list[PluginStatus]:
        """Return every plugin found, with what became of it; discovers on the first call.

        Raises
        ------
        PluginError
            If a plugin failed and ``ENHANCEKIT_STRICT_PLUGINS`` is set.
        """
        with self._lock:
            if self._statuses is None:
                if self._discovering:
                    raise PluginError(
                        "a plugin asks for what is registered while its hooks are called; it can "
                        "do so when its targets are"
                    )
                self._discovering = True
                try:
                    self._statuses = self._discover()
                finally:
                    self._discovering = False
            return self._statuses

    def _sources(
        self, kind: str
    ) -> tuple[Callable[[], Iterator[Entry[Any]]], Callable[[], Iterator[str]]]:
        def collect() -> Iterator[Entry[Any]]:
            return (e for s in self.statuses() for e in s.entries if e.kind == kind)

        def failures() -> Iterator[str]:
            return (s.summary for s in self.statuses() if s.status == "failed")

        return collect, failures

    def _names(self, variable: str) -> set[str]:
        given = self._environ.get(variable, "").split(",")
        return {canonical(name.strip()) for name in given if name.strip()}

    def _discover(self) -> list[PluginStatus]:
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        statuses: list[PluginStatus] = []
        allowed, disabled = self._names(ALLOW), self._names(DISABLE)
        seen = {BUILTIN, "enhancekit"}
        # the core first, so that nobody else can take its name
        for found in sorted(find_plugins(), key=lambda f: not _is_core(f.provider)):
            provider = found.provider
            names = {canonical(provider.plugin), provider.distribution}
            seen |= names
            if not _is_core(provider) and ((allowed and not names & allowed) or names & disabled):
                statuses.append(PluginStatus(provider, "disabled"))
            elif found.error:
                statuses.append(PluginStatus(provider, "failed", found.error))
            else:
                load = found.point.load
                statuses.append(self._register(manager, load, provider, _taken(provider, statuses)))
        for provider, plugin in self._given.items():
            load = partial(_itself, plugin)
            statuses.append(self._register(manager, load, provider, _taken(provider, statuses)))
        for name in sorted((allowed | disabled) - seen):
            variable = ALLOW if name in allowed else DISABLE
            warnings.warn(
                f"{variable} names {name!r}, but no such plugin is installed",
                PluginWarning,
                stacklevel=2,
            )
        _note_clashes(statuses)
        self._report_failures(statuses)
        return statuses

    def _register(
        self,
        manager: pluggy.PluginManager,
        load: Callable[[], object],
        provider: Provider,
        taken: Collection[Provider],
    ) -> PluginStatus:
        plugin: object | None = None
        try:
            _refuse_taken(provider, taken)
            # what a plugin prints would stand in the middle of our own output
            with contextlib.redirect_stdout(sys.stderr):
                plugin = load()
                deprecations = _deprecations(manager, plugin, provider)
                manager.check_pending()
                entries = [e for kind in KINDS for e in _entries(manager, plugin, kind, provider)]
            _refuse_nothing_or_repeated(entries)
        except (Exception, SystemExit) as error:  # noqa: BLE001  one bad plugin never stops others
            if plugin is not None and manager.get_plugin(provider.plugin) is plugin:
                manager.unregister(plugin)
            return PluginStatus(provider, "failed", _said(error), traceback.format_exc())
        return PluginStatus(provider, "ok", entries=entries, deprecations=deprecations)

    def _report_failures(self, statuses: Iterable[PluginStatus]) -> None:
        failed = [s.summary for s in statuses if s.status == "failed"]
        if failed and self._environ.get(STRICT, "") not in ("", "0"):
            raise PluginError(f"{STRICT} is set and a plugin failed: " + "; ".join(failed))
        for line in failed:
            warnings.warn(
                f"plugin left out: {line}. `enhancekit plugins` shows more",
                PluginWarning,
                stacklevel=2,
            )
        for status in statuses:
            for line in status.deprecations:
                text = f"plugin {status.provider.plugin} ({status.provider}): {line}"
                warnings.warn(text, DeprecationWarning, stacklevel=2)


def _itself(plugin: object) -> object:
    return plugin


def _said(error: BaseException) -> str:
    """Say in one line what happened, and what that was raised from."""
    said = " ".join(str(error).split()) or "no message"
    if not isinstance(error, PluginError):
        said = f"{type(error).__name__}: {said}"
    return said if error.__cause__ is None else f"{said} (because of {_said(error.__cause__)})"


def _deprecations(manager: pluggy.PluginManager, plugin: object, provider: Provider) -> list[str]:
    """Register the plugin, and return what pluggy warns of: hooks that will go."""
    with warnings.catch_warnings(record=True) as caught:
        # also where warnings are errors, or an old hook would look like a broken plugin
        warnings.simplefilter("always", DeprecationWarning)
        manager.register(plugin, name=provider.plugin)
    for other in caught:
        if not issubclass(other.category, DeprecationWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return [str(w.message) for w in caught if issubclass(w.category, DeprecationWarning)]


def _note_clashes(statuses: Iterable[PluginStatus]) -> None:
    """Write on each status which of its names another plugin gives as well."""
    owners: dict[tuple[str, str], list[tuple[PluginStatus, Entry[Any]]]] = {}
    for status in statuses:
        for entry in status.entries:
            for name in (entry.spec.name, *entry.spec.aliases):
                owners.setdefault((entry.kind, name), []).append((status, entry))
    for (kind, name), owned in owners.items():
        for status, entry in owned if len(owned) > 1 else ():
            others = ", ".join(
                f"{o.provider.plugin} ({o.provider})" for s, o in owned if s is not status
            )
            status.clashes.append(
                f"{kind} {name!r} is also registered by {others}; ask for {entry.qualified_name!r}"
            )


def _is_core(provider: Provider) -> bool:
    return provider.plugin == BUILTIN and provider.distribution == "enhancekit"


def _taken(provider: Provider, statuses: Iterable[PluginStatus]) -> Collection[Provider]:
    """Return who has the plugin's name already; a disabled plugin leaves its name to others."""
    return [
        s.provider
        for s in statuses
        if s.provider.plugin == provider.plugin and s.status != "disabled"
    ]


def _refuse_taken(provider: Provider, taken: Collection[Provider]) -> None:
    if taken:
        raise PluginError(
            f"the plugin name {provider.plugin!r} is taken by {next(iter(taken))}; one of the two "
            "must be uninstalled, or disabled by its distribution's name"
        )


def _entries(
    manager: pluggy.PluginManager, plugin: object, kind: str, provider: Provider
) -> Iterator[Entry[Any]]:
    hook, wanted = KINDS[kind]
    others = manager.get_plugins() - {plugin}
    caller = manager.subset_hook_caller(hook, remove_plugins=others)
    for given in caller():
        for spec in given:
            if not isinstance(spec, wanted):
                raise PluginError(
                    f"{hook} gave {spec!r} of type {type(spec).__name__} instead of a "
                    f"{wanted.__name__}"
                )
            yield Entry(spec, provider, kind)


def _refuse_nothing_or_repeated(entries: Collection[Entry[Any]]) -> None:
    if not entries:
        raise PluginError("it registers nothing; does it use @enhancekit.hookimpl?")
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        for name in (entry.spec.name, *entry.spec.aliases):
            if (entry.kind, name) in seen:
                raise PluginError(f"it registers {entry.kind} {name!r} twice")
            seen.add((entry.kind, name))


_host: Host | None = None
_making = threading.RLock()


def host() -> Host:
    """Return the host of this process, made on the first call.

    Examples
    --------
    >>> from enhancekit.plugins import host
    >>> "gamma" in host().enhancers
    True
    """
    global _host
    with _making:
        if _host is None:
            _host = Host()
        return _host


def use(other: Host | None) -> Host | None:
    """Make another host that of this process, and return the one before.

    Parameters
    ----------
    other : Host or None
        ``None`` for one that is made, and discovers, at the next query.
    """
    global _host
    before, _host = _host, other
    return before


def reset() -> None:
    """Forget every plugin, so that the next query discovers again (after an install, in tests)."""
    use(None)
