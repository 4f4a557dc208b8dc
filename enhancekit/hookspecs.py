"""The six hooks of the plugin API: each gives descriptions, without side effects or torch.

A hook says which version of enhancekit brought it, and a plugin's requirement, e.g.
``enhancekit>=0.1,<0.2``, which versions it works with; one that does not fit is left out and says
so. A hook that will go is marked by ``warn_on_impl`` for at least one minor version: it works on,
and ``enhancekit plugins`` and the check ``uses_no_deprecated_hook`` say what to use instead.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from enhancekit.specs import (
    BackboneSpec,
    BlockSpec,
    EnhancerSpec,
    LossSpec,
    MetricSpec,
    SchemeSpec,
)

__all__ = ["PROJECT", "hookimpl", "hookspec"]

PROJECT = "enhancekit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def enhancekit_backbones() -> Iterable[BackboneSpec]:
    """Register networks.

    .. versionadded:: 0.1.0

    Examples
    --------
    >>> from enhancekit import BackboneSpec, hookimpl
    >>> @hookimpl
    ... def enhancekit_backbones():
    ...     yield BackboneSpec(
    ...         name="tiny", summary="Three convolutions", target="acme.networks:Tiny",
    ...         config={"width": 16},
    ...     )
    """
    return ()


@hookspec
def enhancekit_blocks() -> Iterable[BlockSpec]:
    """Register parts of networks, found by name in a network's config.

    .. versionadded:: 0.1.0

    Examples
    --------
    >>> from enhancekit import BlockSpec, hookimpl
    >>> @hookimpl
    ... def enhancekit_blocks():
    ...     yield BlockSpec(
    ...         name="fast", role="residual", summary="Depthwise-separable residual block",
    ...         target="acme.blocks:FastBlock",
    ...     )
    """
    return ()


@hookspec
def enhancekit_losses() -> Iterable[LossSpec]:
    """Register losses, usable by name in a composite such as ``"l1 + 0.1*ssim"``.

    .. versionadded:: 0.1.0

    Examples
    --------
    >>> from enhancekit import LossSpec, hookimpl
    >>> @hookimpl
    ... def enhancekit_losses():
    ...     yield LossSpec(name="huber", summary="Huber loss", target="acme.losses:Huber")
    """
    return ()


@hookspec
def enhancekit_metrics() -> Iterable[MetricSpec]:
    """Register figures of merit.

    .. versionadded:: 0.1.0

    Examples
    --------
    >>> from enhancekit import MetricSpec, hookimpl
    >>> @hookimpl
    ... def enhancekit_metrics():
    ...     yield MetricSpec(
    ...         name="rmse", summary="Root mean squared error", target="acme.metrics:rmse",
    ...         higher_is_better=False, protocol="RGB, range [0, 1]",
    ...     )
    """
    return ()


@hookspec
def enhancekit_enhancers() -> Iterable[EnhancerSpec]:
    """Register what ``enhancekit.load`` finds.

    .. versionadded:: 0.1.0

    Examples
    --------
    >>> from enhancekit import EnhancerSpec, hookimpl
    >>> @hookimpl
    ... def enhancekit_enhancers():
    ...     yield EnhancerSpec(
    ...         name="invert", summary="Photographic negative", task="tone",
    ...         target="acme.classical:invert",
    ...     )
    """
    return ()


@hookspec
def enhancekit_schemes() -> Iterable[SchemeSpec]:
    """Register kinds of places that ``enhancekit.load("scheme:place")`` loads enhancers from.

    .. versionadded:: 0.1.0

    Examples
    --------
    >>> from enhancekit import SchemeSpec, hookimpl
    >>> @hookimpl
    ... def enhancekit_schemes():
    ...     yield SchemeSpec(
    ...         name="lut", summary="A colour look-up table in a .cube file",
    ...         target="acme.luts:load_lut",
    ...     )
    """
    return ()
