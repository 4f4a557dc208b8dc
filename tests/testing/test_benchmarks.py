"""The speed suite: what it measures, and the table made of it."""

from __future__ import annotations

import json

import pytest
import torch

from enhancekit.testing.benchmarks import Measure, loaded, peak_memory
from enhancekit.testing.options import read_size


def test_every_reference_point_and_figure(cli):
    done = cli("bench", "mfnn-lite", "gamma", "--size", "32x40", "--rounds", 1, "--json")
    assert (done.code, done.err) == (0, "")
    found = {m["name"]: m for m in json.loads(done.out)}
    assert set(found) == {
        "yardstick[32x40]",
        "tuned_yardstick[32x40]",
        "jpeg[32x40]",
        "plain_forward[mfnn-lite-32x40]",
        "bare_forward[mfnn-lite-auto-32x40]",
        "enhance[mfnn-lite-auto-32x40-exact]",
        "enhance[mfnn-lite-auto-32x40-fast]",
        "enhance[gamma-auto-32x40-exact]",
    }
    for measured in found.values():
        assert measured["min"] > 0
        assert measured["peak_mib"] >= 0
    jpeg = found["jpeg[32x40]"]
    assert jpeg["megapixels_per_second"] == pytest.approx(32 * 40 / 1e6 / jpeg["min"])
    adds = found["plain_forward[mfnn-lite-32x40]"]["multiply_adds_per_pixel"]
    assert 1e5 < adds < 3e5


def test_the_plain_network_gets_a_contiguous_picture():
    def unused(*_args, **_options):
        pytest.fail("nothing is timed here")

    x = Measure(unused, "5x7", 1).tensor
    assert x.shape == (1, 3, 5, 7)
    assert x.is_contiguous()


def test_what_a_scheme_loads_is_measured_whole(make_plugin):
    code = "import enhancekit\ndef load(place, **how):\n    return enhancekit.load(place, **how)"
    make_plugin(code=code, schemes=[{"name": "by", "target": "{code}:load"}])
    assert loaded("by:gamma").entry.qualified_name == "builtin:gamma"


def test_an_unknown_enhancer(cli):
    done = cli("bench", "gama")
    assert done.code == 1
    assert "gamma" in done.err


def test_an_impossible_size(cli):
    done = cli("bench", "gamma", "--size", "large", "--rounds", 1)
    assert done.code == 1
    assert "'large' is neither HEIGHTxWIDTH" in done.err


@pytest.mark.parametrize(
    ("text", "size"), [("7x9", (7, 9)), ("0.48MP", (600, 800)), ("12MP", (3000, 4000))]
)
def test_sizes(text, size):
    assert read_size(text) == size


def test_peak_memory_sees_what_is_given_back():
    with peak_memory("cpu") as peak:
        for _ in range(10):
            torch.ones(20_000_000).add_(1)
    assert peak[0] > 60e6
