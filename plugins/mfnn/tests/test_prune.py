"""`prune.py`: what counts for nothing goes, and what computes the result stays."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from enhancekit_mfnn.network import MFNN

PRUNE = runpy.run_path(str(Path(__file__).parents[1] / "prune.py"))
WIDE = {"width": 8, "counts": (1, 2, 1), "pack": 2}
NARROW = {**WIDE, "width": 6, "decoder_width": 8, "block_options": {"expansion": 0.5}}


def random(**config):
    torch.manual_seed(0)
    network = MFNN(**config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def prune(wide, narrow):
    between = PRUNE["channels"](wide)
    calls = [(torch.rand(2, 3, 16, 24),) for _ in range(2)]
    narrow.load_state_dict(PRUNE["pruned"](wide, narrow, PRUNE["importance"](wide, between, calls)))
    return narrow.eval()


def assert_same(one, other):
    x = torch.rand(1, 3, 24, 32)
    with torch.inference_mode():
        torch.testing.assert_close(one(x), other(x), rtol=0, atol=1e-6)


@torch.no_grad()
def silence(network, narrow):
    """Make as many channels of each group give nothing as the narrow network lacks."""
    between = PRUNE["channels"](network)
    had = PRUNE["sizes"](network, between)
    wanted = PRUNE["sizes"](narrow, PRUNE["channels"](narrow))
    torch.manual_seed(1)
    silent = {
        group: torch.randperm(size)[: size - wanted[group]] for group, size in had.items() if group
    }
    for name, (_, given) in between.items():
        start = 0
        for group in given if given != [""] else []:
            conv = network.get_submodule(name)
            conv.weight[silent[group] + start] = 0
            conv.bias[silent[group] + start] = 0
            start += had[group]


def test_what_gives_nothing_is_what_goes():
    wide, narrow = random(**WIDE), random(**NARROW)
    silence(wide, narrow)
    assert_same(prune(wide, narrow), wide)


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_a_network_as_wide_stays_as_it_is(scales):
    config = {**WIDE, "counts": (1, 2, 1)[:scales]}
    wide, other = random(**config), MFNN(**config)
    assert_same(prune(wide, other), wide)


def test_new_blocks_add_nothing():
    wide, other = random(**WIDE), random(**{**WIDE, "counts": (3, 2, 2)})
    assert_same(prune(wide, other), wide)


@pytest.mark.parametrize("more", [{"width": 10}, {"counts": (1, 1, 1)}], ids=["wider", "shallower"])
def test_only_narrower_networks_are_made(more):
    with pytest.raises(SystemExit, match="channels can't become"):
        prune(random(**WIDE), MFNN(**{**WIDE, **more}))
