"""The plugin is right: the conformance kit's checks, one test each, and what the example shows."""

from __future__ import annotations

from collections.abc import Callable

import enhancekit
from enhancekit.testing import BlockCase, EnhancerCase, PluginCase, parametrize_with_checks
from enhancekit.training.recipe import read_recipe

TINY = {"pretrained": False, "width": 4, "counts": (1, 1)}


@parametrize_with_checks(
    PluginCase("acme"),
    BlockCase("acme:fast"),
    EnhancerCase("acme:small-scr", options=TINY),
    EnhancerCase("acme:small-fast", options=TINY),
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def test_the_enhancers_differ_by_one_argument() -> None:
    named = enhancekit.load("small-fast", pretrained=False)
    swapped = enhancekit.load("small-scr", block="acme:fast", pretrained=False)
    original = enhancekit.load("small-scr", pretrained=False)
    sizes = [
        sum(p.numel() for p in e.module.trunks.parameters()) for e in (named, swapped, original)
    ]
    assert sizes[0] == sizes[1] < 0.6 * sizes[2]


def test_the_recipe_trains_both() -> None:
    recipe = "acme_blocks:recipes/short.toml"
    original, swapped = (
        read_recipe(recipe, changes) for changes in ([], ["model.enhancer=small-fast"])
    )
    assert (original.model.enhancer, swapped.model.enhancer) == ("small-scr", "small-fast")
    assert swapped.model_copy(update={"model": original.model}) == original
