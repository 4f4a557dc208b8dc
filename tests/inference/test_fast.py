"""Fast mode: near the exact result on what a local affine change can express, exact when small."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import enhancekit
from enhancekit.errors import OptionError
from enhancekit.inference import fast
from enhancekit.inference.fast import fast_parts
from enhancekit.inference.parts import Whole, collect


def scene(height, width, channels=3):
    """Smooth areas with sharp edges between them."""
    rows, columns = torch.meshgrid(
        torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij"
    )
    squares = ((rows * 9).long() + (columns * 7).long()) % 2
    base = 0.15 + 0.3 * rows * columns + 0.4 * squares
    return torch.stack([base * (1 - 0.2 * c) for c in range(channels)])[None]


def run_fast(enhance, pictures):
    return collect(fast_parts(enhance, Whole(pictures)), *pictures.shape[2:])


def psnr(one, other):
    return float(-10 * ((one - other) ** 2).mean().log10())


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(fast, "FAST_PIXELS", 3000)
    monkeypatch.setattr(fast, "EXACT_PIXELS", 6750)


def test_small_pictures_are_exact(small):
    seen = []
    x = scene(50, 60)
    assert run_fast(lambda p: seen.append(p.shape) or p + 1, x).equal(x + 1)
    assert seen == [x.shape]


def test_what_is_enhanced_is_small(small):
    seen = []
    result = run_fast(lambda p: seen.append(p.shape) or p, scene(200, 240))
    assert seen == [(1, 3, 50, 60)]
    assert result.shape == (1, 3, 200, 240)


def test_a_curve_is_carried_over_with_its_edges(small):
    x = scene(201, 243)
    exact = x**0.5
    result = run_fast(lambda p: p**0.5, x)
    coarse = F.interpolate(x, size=(50, 61), mode="bilinear", antialias=True) ** 0.5
    enlarged = F.interpolate(coarse, size=x.shape[2:], mode="bilinear")
    assert psnr(result, exact) > 45
    assert psnr(result, exact) > psnr(enlarged, exact) + 15


@pytest.mark.parametrize("change", [lambda p: p, lambda p: p * 0.5, lambda p: 1 - p])
def test_what_brightens_nothing_is_carried_over_too(small, change):
    x = scene(200, 240)
    assert psnr(run_fast(change, x), change(x)) > 40


@pytest.mark.parametrize("factor", [2, 3, 8])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_shrinking_and_enlarging_keep_their_places(factor, memory_format):
    x = torch.rand(2, 3, 5 * factor, 7 * factor).contiguous(memory_format=memory_format)
    small = F.avg_pool2d(x, factor)
    torch.testing.assert_close(fast._averaged(x, factor), small, rtol=0, atol=1e-6)
    wanted = F.interpolate(small, scale_factor=float(factor), mode="bilinear")
    parts = [fast._enlarged(small, top, bottom, factor) for top, bottom in ((0, 2), (2, 3), (3, 5))]
    placed = torch.cat([p[:, :, : n * factor] for p, n in zip(parts, (2, 1, 2), strict=True)], 2)
    torch.testing.assert_close(placed, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(9, 11), (8, 11), (9, 12), (2, 3), (1, 9), (9, 1)], ids=str)
def test_what_is_left_at_the_ends_is_averaged_for_itself(size):
    x = torch.rand(1, 3, *size)
    wanted = F.avg_pool2d(F.pad(x, (0, -size[1] % 4, 0, -size[0] % 4)), 4)
    wanted /= F.avg_pool2d(F.pad(torch.ones_like(x), (0, -size[1] % 4, 0, -size[0] % 4)), 4)
    torch.testing.assert_close(fast._averaged(x, 4), wanted, rtol=0, atol=1e-6)


def test_strips_do_not_show(small, monkeypatch):
    x = scene(201, 243)
    whole = run_fast(lambda p: p**0.5, x)
    monkeypatch.setattr(fast, "STRIP", 243 * 7)
    torch.testing.assert_close(run_fast(lambda p: p**0.5, x), whole, rtol=0, atol=1e-6)


def test_each_picture_of_a_batch_for_itself(small):
    batch = torch.cat((scene(120, 100), scene(120, 100).flip(-1) * 0.5))
    together = run_fast(lambda p: p**0.7, batch)
    for one, alone in zip(together, batch, strict=True):
        torch.testing.assert_close(one[None], run_fast(lambda p: p**0.7, alone[None]))


def test_floats_stay_between_0_and_1(small):
    done = run_fast(lambda x: (3 * x - 0.5).clamp(0, 1), scene(120, 100))
    assert done.min() >= 0
    assert done.max() <= 1
    assert (done == 1).any()


def test_an_enhancer_takes_the_mode(small):
    picture = (scene(120, 100)[0].permute(1, 2, 0) * 255).byte().numpy()
    enhancer = enhancekit.load("gamma")
    near, exact = (enhancer.enhance(picture, mode=m).astype(float) for m in ("fast", "exact"))
    assert np.abs(near - exact).max() > 0
    assert np.abs(near - exact).mean() < 2
    with pytest.raises(OptionError, match="mode is 'exact', 'fast', 'best', not 'quick'"):
        enhancer.enhance(picture, mode="quick")
    with pytest.raises(OptionError, match=r"spline-x2.*enlarges"):
        enhancekit.load("spline-x2").enhance(picture, mode="fast")
