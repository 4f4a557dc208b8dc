"""``mode="best"``: the mean over eight orientations, in tiles as well as whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import enhancekit
from enhancekit.errors import OptionError
from enhancekit.inference.apply import apply_network, network_parts
from enhancekit.inference.parts import Whole, collect
from enhancekit.specs import SizeRequirements

CONFIGS = {
    "local": {"width": 4, "counts": (1, 1)},
    "margins": {"width": 4, "counts": (4, 1), "pack": 2},
    "exposure": {"width": 4, "counts": (1, 1), "context": "mfnn:exposure"},
    "twice": {"width": 2, "counts": (0, 1), "pack": 2, "scale": 2},
}


@pytest.fixture(params=CONFIGS)
def network(request):
    torch.manual_seed(0)
    made = enhancekit.backbones.create("mfnn", **CONFIGS[request.param])
    nn.init.normal_(made.head.final.weight, std=0.3)
    return made.eval().requires_grad_(False)


def best(network, x, tile=None):
    scale = network.size_requirements.scale
    parts = network_parts(
        network, Whole(x), global_context=network.context_block is not None, tile=tile, turned=True
    )
    return collect(parts, x.shape[2] * scale, x.shape[3] * scale)


def as_it_came(x):
    return x


ORIENTATIONS = [
    (as_it_came, as_it_came),
    (lambda x: x.flip(2), lambda x: x.flip(2)),
    (lambda x: x.flip(3), lambda x: x.flip(3)),
    (lambda x: x.flip(2, 3), lambda x: x.flip(2, 3)),
    (lambda x: x.mT, lambda x: x.mT),
    (lambda x: x.flip(2).mT, lambda x: x.mT.flip(2)),
    (lambda x: x.flip(3).mT, lambda x: x.mT.flip(3)),
    (lambda x: x.flip(2, 3).mT, lambda x: x.mT.flip(2, 3)),
]


def test_it_is_the_mean_over_all_orientations(network):
    x = torch.rand(2, 3, 16, 24)
    given = {} if network.context_block is None else {"context": network.context(x)}
    results = [back(network(turn(x), **given)) for turn, back in ORIENTATIONS]
    assert (results[0] - results[5]).abs().max() > 1e-3
    torch.testing.assert_close(best(network, x), torch.stack(results).mean(0))


def test_tiles_give_what_the_whole_gives(network):
    x = torch.rand(1, 3, 104, 136)
    whole = best(network, x)
    assert (whole - apply_network(network, x, global_context=True)).abs().max() > 1e-3
    torch.testing.assert_close(best(network, x, tile=24), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (17, 30)])
def test_any_size(network, size):
    done = best(network, torch.rand(1, 3, *size))
    scale = network.size_requirements.scale
    assert done.shape == (1, 3, size[0] * scale, size[1] * scale)


class Leaning(nn.Module):
    """Adds a quarter of the row below: upright and turned it differs."""

    size_requirements = SizeRequirements(halo=1)

    def forward(self, x):
        return 0.75 * x + 0.25 * torch.cat((x[:, :, 1:], x[:, :, -1:]), dim=2)


def test_margins_go_with_the_tile():
    x = torch.rand(1, 3, 9, 7)
    parts = [
        network_parts(Leaning(), Whole(x), global_context=False, tile=tile, turned=True)
        for tile in (None, 4)
    ]
    whole, tiled = (collect(p, 9, 7) for p in parts)
    torch.testing.assert_close(tiled, whole)
    sides = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    near = sides[:, :, :-2, 1:-1] + sides[:, :, 2:, 1:-1]
    near += sides[:, :, 1:-1, :-2] + sides[:, :, 1:-1, 2:]
    torch.testing.assert_close(whole, 0.75 * x + 0.25 * near / 4)


class Places(nn.Module):
    """A context that has places, as a grid of curves has; turned along, all eight are alike."""

    size_requirements = SizeRequirements()

    def context(self, whole):
        return nn.functional.adaptive_avg_pool2d(whole, 8)

    def forward(self, x, context):
        return 0.5 * x + 0.5 * nn.functional.interpolate(context, x.shape[2:], mode="bilinear")


def test_a_context_with_places_is_turned_along():
    x = torch.rand(1, 3, 40, 56)
    how = {"global_context": True, "tile": None}
    done, exact = (
        collect(network_parts(Places(), Whole(x), turned=turned, **how), 40, 56)
        for turned in (True, False)
    )
    torch.testing.assert_close(done, exact)


class TestEnhancers:
    def test_one_that_is_loaded_takes_the_mode(self):
        enhancer = enhancekit.load("mfnn-lite", precision="fp32")
        picture = np.random.default_rng(0).random((24, 32, 3), np.float32) * 0.3
        turned = np.rot90(picture)
        done, other = (enhancer.enhance(p, mode="best", exposure=0.4) for p in (picture, turned))
        exact = enhancer.enhance(picture, exposure=0.4)
        assert np.abs(done - exact).max() > 1e-3
        assert np.abs(done - exact).mean() < 0.02
        np.testing.assert_allclose(np.rot90(done), other, atol=1e-4)
        x = torch.from_numpy(picture).permute(2, 0, 1)[None]
        ran = enhancer.run(x, mode="best", exposure=0.4)[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(ran, done)

    def test_a_function_is_refused(self):
        with pytest.raises(OptionError, match=r"clahe.*is a function, which mode='best'"):
            enhancekit.load("clahe").enhance(np.zeros((4, 4), np.float32), mode="best")

    def test_one_that_enlarges(self):
        enhancer = enhancekit.load("mfnn-sr-x2")
        done = enhancer.enhance(np.zeros((5, 7, 3), np.uint8), mode="best")
        assert done.shape == (10, 14, 3)
