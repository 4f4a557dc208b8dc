"""`Enhancer.save`: what is written is loaded again to the bit, and says what it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import enhancekit
from enhancekit.errors import OptionError, WeightsError
from enhancekit.weights import read_card

TINY = {"width": 4, "counts": (1, 1), "device": "cpu"}


@pytest.fixture(scope="module")
def dark():
    return np.random.default_rng(0).integers(0, 60, (19, 22, 3), np.uint8)


def same_weights(one, other):
    had, wanted = one.module.state_dict(), other.module.state_dict()
    return had.keys() == wanted.keys() and all(torch.equal(had[k], wanted[k]) for k in had)


def test_shipped_weights_come_back_to_the_bit(tmp_path, dark):
    path = tmp_path / "mine.safetensors"
    first = enhancekit.load("mfnn-lite", device="cpu")
    first.enhance(dark)  # what it computes leaves no trace
    first.save(path)
    again = enhancekit.load("mfnn-lite", weights=path, device="cpu")
    assert again.card == first.card == read_card(path)
    assert same_weights(again, first)
    np.testing.assert_array_equal(again.enhance(dark), first.enhance(dark))
    assert again.precision == first.precision


def test_a_network_trained_by_hand(tmp_path, dark):
    path = tmp_path / "mine.safetensors"
    enhancer = enhancekit.load("mfnn-lite", pretrained=False, norm=True, dropout=0.5, **TINY)
    torch.nn.init.normal_(enhancer.module.head.final.weight, std=0.2)
    enhancer.save(path, license="CC0-1.0", data="my garden", figures={"PSNR": 20.5})
    again = enhancekit.load("mfnn-lite", weights=path, norm=True, **TINY)
    np.testing.assert_array_equal(again.enhance(dark), enhancer.enhance(dark))
    assert (again.card.name, again.card.backbone) == ("mfnn-lite", "mfnn:mfnn")
    assert again.card.config["norm"] is True
    assert "dropout" not in again.card.config
    assert (again.card.license, again.card.data) == ("CC0-1.0", "my garden")
    assert again.card.figures == {"PSNR": 20.5}
    with pytest.raises(WeightsError, match="norm: True there"):
        enhancekit.load("mfnn-lite", weights=path, **TINY)


def test_facts_come_over_those_of_the_card(tmp_path):
    first = enhancekit.load("mfnn-lite", device="cpu")
    first.save(tmp_path / "a.safetensors", limits="night only")
    card = read_card(tmp_path / "a.safetensors")
    assert card == dataclasses.replace(first.card, limits="night only")


def test_handed_over_it_saves_as_well(tmp_path):
    enhancer = enhancekit.load("mfnn-lite", pretrained=False, **TINY)
    enhancer.computed_by(lambda call: call()).save(tmp_path / "a.safetensors")
    assert read_card(tmp_path / "a.safetensors").config["width"] == 4
    saved = enhancekit.load(f"file:{tmp_path / 'a.safetensors'}")
    assert saved.computed_by(lambda call: call()).file_sha256 == saved.file_sha256 is not None


@pytest.mark.parametrize("fact", ["name", "config", "licence"])
def test_what_a_card_does_not_say(tmp_path, fact):
    enhancer = enhancekit.load("mfnn-lite", pretrained=False, **TINY)
    with pytest.raises(OptionError, match=f"no place for {fact}, only for data, date, .*license"):
        enhancer.save(tmp_path / "a.safetensors", **{fact: "x"})
    assert list(tmp_path.iterdir()) == []


def test_functions_have_nothing_to_save(tmp_path):
    with pytest.raises(OptionError, match=r"builtin:gamma .*no weights that can be saved"):
        enhancekit.load("gamma").save(tmp_path / "a.safetensors")


def test_only_safetensors(tmp_path):
    enhancer = enhancekit.load("mfnn-lite", pretrained=False, **TINY)
    with pytest.raises(WeightsError, match=r"saved as \.safetensors only, not as 'a\.pth'"):
        enhancer.save(tmp_path / "a.pth")
