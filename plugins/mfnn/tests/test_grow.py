"""`grow.py`: the larger network begins where the smaller one ended."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from enhancekit_mfnn.network import MFNN

import enhancekit
from enhancekit.weights import Card, normalised, save_weights

GROW = runpy.run_path(str(Path(__file__).parents[1] / "grow.py"))["main"]
SMALL = {"width": 4, "counts": (1, 1, 1), "pack": 2, "block_options": {}}


@pytest.fixture
def small(tmp_path):
    torch.manual_seed(0)
    network = MFNN(**SMALL)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    card = Card(name="mfnn-denoise", backbone="mfnn:mfnn", config=normalised(SMALL))
    save_weights(tmp_path / "small.safetensors", network.state_dict(), card)
    return tmp_path / "small.safetensors"


def toml(value):
    """Write a number, text, list or flat table."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    return repr(list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    "more",
    [
        {"counts": (3, 2, 1)},
        {"context": "mfnn:noise_level"},
        {"block_options": {"expansion": 3}, "counts": (2, 1, 1)},
    ],
    ids=["blocks", "inputs", "units"],
)
def test_it_computes_the_same(small, tmp_path, more):
    options = {**SMALL, "context": "", **more}
    written = [f"{key} = {toml(value)}" for key, value in options.items()]
    GROW("mfnn-denoise", small, tmp_path / "large.safetensors", written)
    before = enhancekit.load("mfnn-denoise", weights=small, context="", **SMALL)
    after = enhancekit.load("mfnn-denoise", weights=tmp_path / "large.safetensors", **options)
    x = torch.rand(3, 16, 20)
    torch.testing.assert_close(after.enhance(x), before.enhance(x), rtol=0, atol=1e-5)


def test_back_projection_may_be_added(tmp_path):
    enlarging = {"width": 4, "counts": (1, 1, 1), "scale": 2}
    state = MFNN(**enlarging).state_dict()
    card = Card(name="mfnn-sr-x2", backbone="mfnn:mfnn", config=normalised(enlarging))
    save_weights(tmp_path / "small.safetensors", state, card)
    options = {"width": 4, "counts": (1, 1, 1), "back_projection": True}
    written = ["width = 4", "counts = [1, 1, 1]", "back_projection = true"]
    GROW("mfnn-sr-x2", tmp_path / "small.safetensors", tmp_path / "out.safetensors", written)
    grown = enhancekit.load("mfnn-sr-x2", weights=tmp_path / "out.safetensors", **options)
    assert grown.module.back_projection
    for name, parameter in grown.module.state_dict().items():
        assert torch.equal(parameter, state[name])


@pytest.mark.parametrize("less", ["counts = [1, 0, 1]", "width = 2"])
def test_it_never_shrinks(small, tmp_path, less):
    options = {"width": "width = 4", "counts": "counts = [1, 1, 1]", "pack": "pack = 2"}
    options[less.partition(" ")[0]] = less
    with pytest.raises(SystemExit, match=r"has no trunks\.1|can't become"):
        GROW("mfnn-denoise", small, tmp_path / "out.safetensors", [*options.values()])
