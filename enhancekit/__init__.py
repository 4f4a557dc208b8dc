"""enhancekit: plugin-based image enhancement.

The public names are imported on first use, so that ``import enhancekit`` costs milliseconds and
no torch.

Examples
--------
>>> import enhancekit, numpy
>>> enhancekit.load("gamma", gamma=0.5).enhance(numpy.array([[0.25]]))
array([[0.5]])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enhancekit._version import __version__

if TYPE_CHECKING:
    from enhancekit.errors import EnhanceKitError
    from enhancekit.hookspecs import hookimpl
    from enhancekit.hub import push
    from enhancekit.inference.loading import load
    from enhancekit.registry import LossRegistry, Registry
    from enhancekit.specs import (
        BackboneSpec,
        BlockSpec,
        EnhancerSpec,
        LossSpec,
        MetricSpec,
        SchemeSpec,
        SizeRequirements,
        WeightsSpec,
    )

    backbones: Registry[BackboneSpec]
    blocks: Registry[BlockSpec]
    losses: LossRegistry
    metrics: Registry[MetricSpec]
    enhancers: Registry[EnhancerSpec]
    schemes: Registry[SchemeSpec]

__all__ = [
    "BackboneSpec",
    "BlockSpec",
    "EnhanceKitError",
    "EnhancerSpec",
    "LossSpec",
    "MetricSpec",
    "SchemeSpec",
    "SizeRequirements",
    "WeightsSpec",
    "__version__",
    "backbones",
    "blocks",
    "enhancers",
    "hookimpl",
    "load",
    "losses",
    "metrics",
    "push",
    "schemes",
]

_HOMES = {
    "EnhanceKitError": "enhancekit.errors",
    "hookimpl": "enhancekit.hookspecs",
    "load": "enhancekit.inference.loading",
    "push": "enhancekit.hub",
    **dict.fromkeys(
        (
            "BackboneSpec",
            "BlockSpec",
            "EnhancerSpec",
            "LossSpec",
            "MetricSpec",
            "SchemeSpec",
            "SizeRequirements",
            "WeightsSpec",
        ),
        "enhancekit.specs",
    ),
}
_REGISTRIES = ("backbones", "blocks", "losses", "metrics", "enhancers", "schemes")


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _REGISTRIES:
        return getattr(importlib.import_module("enhancekit.plugins").host(), name)
    raise AttributeError(f"module 'enhancekit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
