"""Speed of what stands around the networks; run by ``make benchmark``."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import pytest

from enhancekit.imaging.colour import Profile
from enhancekit.plugins import Host


@pytest.mark.benchmark(group="colours of Adobe RGB as sRGB, 0.4 megapixels")
@pytest.mark.parametrize("by", ["shaper", "littlecms"])
def test_colours(benchmark: Any, by: str) -> None:
    """By curves and a matrix of our own, beside what converts all other profiles."""
    pixels = np.random.default_rng(0).random((500, 800, 3), np.float32)
    profile = Profile(bytes(imagecodecs.cms_profile("adobergb")), "rgb")
    assert profile._shaper is not None
    if by == "littlecms":
        profile._shaper = None
    assert benchmark(profile.to_srgb, pixels).shape == pixels.shape


def test_fifty_plugins(benchmark: Any, make_plugin: Any) -> None:
    """Finding and listing fifty plugins."""
    for i in range(50):
        block = {"name": f"block-{i}", "summary": "One", "role": "residual", "target": "a:b"}
        make_plugin(blocks=[block], name=f"many{i}", distribution=f"many-{i}")
    statuses = benchmark(lambda: Host().statuses())
    assert sum(s.status == "ok" for s in statuses) >= 50
