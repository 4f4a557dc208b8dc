"""``load("file:PATH")``: what weights say of themselves is enough to use them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import enhancekit
from enhancekit.errors import OptionError, UnknownNameError, WeightsError
from enhancekit.weights import read_card, save_weights

CONFIG = {"width": 4, "counts": (1, 1), "device": "cpu"}


@pytest.fixture
def trained():
    enhancer = enhancekit.load("mfnn-lite", pretrained=False, **CONFIG)
    torch.manual_seed(2)
    torch.nn.init.normal_(enhancer.module.head.final.weight, std=0.2)
    return enhancer


@pytest.fixture
def path(trained, tmp_path):
    trained.save(tmp_path / "mine.safetensors", license="CC0-1.0")
    return tmp_path / "mine.safetensors"


def test_the_file_is_enough(trained, path):
    again = enhancekit.load(f"file:{path}", device="cpu")
    dark = np.random.default_rng(0).integers(0, 60, (13, 18, 3), np.uint8)
    np.testing.assert_array_equal(
        again.enhance(dark, exposure=0.4), trained.enhance(dark, exposure=0.4)
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(again.entry) == f"enhancer file:mfnn-lite ({path} {digest[:12]})"
    assert again.card.license == "CC0-1.0"


def test_how_it_is_loaded_may_be_said(path):
    enhancer = enhancekit.load(f"file:{path}", device="cpu", precision="bf16", tile=64)
    assert enhancer.precision == torch.bfloat16
    with pytest.raises(OptionError, match="has no option width"):
        enhancekit.load(f"file:{path}", width=8)


def test_a_network_nobody_has(path, tmp_path):
    card = replace(read_card(path), name="net", backbone="acme:net")
    save_weights(tmp_path / "theirs.safetensors", {"x": torch.ones(1)}, card)
    with pytest.raises(UnknownNameError, match=r"file:.*theirs.* install the plugin 'acme'"):
        enhancekit.load(f"file:{tmp_path / 'theirs.safetensors'}")


def test_a_config_that_would_say_how_to_load(path, trained, tmp_path):
    card = replace(read_card(path), config={"device": "cuda"})
    save_weights(tmp_path / "odd.safetensors", trained.module.state_dict(), card)
    with pytest.raises(WeightsError, match="device in its config are no options"):
        enhancekit.load(f"file:{tmp_path / 'odd.safetensors'}")


def test_on_the_command_line(cli, path, tmp_path):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (11, 9), (40, 30, 20)).save(photo)
    done = cli("enhance", photo, "-o", tmp_path / "out.png", "-e", f"file:{path}")
    assert done.code == 0, done.err
    with Image.open(tmp_path / "out.png") as made:
        assert made.size == (11, 9)
