"""A process with exactly the plugins a test wants."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from enhancekit import plugins
from enhancekit.discovery import canonical
from enhancekit.errors import PluginError
from enhancekit.plugins import ALLOW, BUILTIN, STRICT, Host, PluginWarning
from enhancekit.registry import Provider

__all__ = ["isolated_plugins"]


@contextmanager
def isolated_plugins(*installed: str, **given: object) -> Iterator[Host]:
    """Have only the core's plugin and those named, until the block ends.

    Parameters
    ----------
    *installed : str
        Installed plugins, by entry-point or distribution name.
    **given : object
        Plugins that need no installation: a name, and a module or object with hooks.

    Yields
    ------
    Host
        The host of this process meanwhile.

    Raises
    ------
    PluginError
        If one of the plugins is not installed or fails.

    Examples
    --------
    >>> import enhancekit
    >>> class Plugin:
    ...     @enhancekit.hookimpl
    ...     def enhancekit_losses(self):
    ...         yield enhancekit.LossSpec(
    ...             name="huber", summary="Huber loss", target="acme.losses:Huber"
    ...         )
    >>> with isolated_plugins(acme=Plugin()):
    ...     enhancekit.losses.get("huber").qualified_name
    'acme:huber'
    >>> "huber" in enhancekit.losses
    False
    """
    host = Host(
        {ALLOW: ",".join((BUILTIN, *installed)), STRICT: "1"},
        given={Provider(name, "given to isolated_plugins", "0"): p for name, p in given.items()},
    )
    with warnings.catch_warnings():
        # what is not installed is an error here, raised below
        warnings.filterwarnings("ignore", ".*no such plugin is installed", PluginWarning)
        statuses = host.statuses()
    known = {canonical(n) for s in statuses for n in (s.provider.plugin, s.provider.distribution)}
    if missing := [name for name in installed if canonical(name) not in known]:
        raise PluginError(
            f"no plugin {', '.join(missing)} is installed; `enhancekit plugins` shows those that "
            "are"
        )
    before = plugins.use(host)
    try:
        yield host
    finally:
        plugins.use(before)
