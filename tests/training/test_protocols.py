"""Protocols: exactly which numbers are compared."""

from __future__ import annotations

import numpy as np
import pytest

from enhancekit.errors import OptionError
from enhancekit.training.protocols import PROTOCOLS, find_protocol, with_reference_mean

GREY = np.array([0.299, 0.587, 0.114])


def flat(colour, height=8, width=9):
    return np.full((height, width, 3), colour, np.uint8)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)


class TestPrepare:
    @pytest.mark.parametrize("name", ["rgb", "lol"])
    def test_rgb_is_every_pixel_over_255(self, picture, name):
        prepared = find_protocol(name).prepare(picture)
        assert prepared.dtype == np.float64
        np.testing.assert_array_equal(prepared, picture.astype(np.float64) / 255)

    @pytest.mark.parametrize(
        ("colour", "luma"),
        [  # of ITU-R BT.601, studio range, in 255ths
            ((0, 0, 0), 16.0),
            ((255, 255, 255), 235.0),
            ((255, 0, 0), 81.481),
            ((0, 255, 0), 144.553),
            ((0, 0, 255), 40.966),
            ((51, 102, 204), 16 + 65.481 / 5 + 128.553 * 2 / 5 + 24.966 * 4 / 5),
        ],
    )
    def test_luma(self, colour, luma):
        prepared = find_protocol("y-border2").prepare(flat(colour))
        assert prepared.shape == (4, 5, 1)
        assert prepared.dtype == np.float64
        np.testing.assert_allclose(prepared, luma / 255, rtol=0, atol=1e-12)

    def test_the_border_counts_for_nothing_and_the_rest_does(self, picture):
        protocol = find_protocol("y-border2")
        before = protocol.prepare(picture)
        framed = picture.copy()
        framed[:2], framed[-2:], framed[:, :2], framed[:, -2:] = 0, 255, 7, 99
        np.testing.assert_array_equal(protocol.prepare(framed), before)
        for y, x in ((2, 2), (-3, -3)):
            changed = picture.copy()
            changed[y, x] ^= 255
            assert np.count_nonzero(protocol.prepare(changed) != before) == 1

    def test_the_picture_stays_as_it_was(self, picture):
        before = picture.copy()
        for protocol in PROTOCOLS.values():
            protocol.prepare(picture)[...] = 0.5
        np.testing.assert_array_equal(picture, before)

    @pytest.mark.parametrize(("height", "width"), [(4, 9), (9, 4), (3, 3), (1, 1)])
    def test_too_small(self, height, width):
        with pytest.raises(OptionError, match=rf"'y-border2'.*2 pixels.*of {width}x{height}"):
            find_protocol("y-border2").prepare(flat(0, height, width))
        assert find_protocol("rgb").prepare(flat(0, height, width)).shape == (height, width, 3)

    def test_the_smallest_that_is_not(self):
        assert find_protocol("y-border2").prepare(flat(0, 5, 5)).shape == (1, 1, 1)


@pytest.mark.parametrize("name", ["RGB", "", "y-border", "lol2"])
def test_an_unknown_name_lists_those_there_are(name):
    with pytest.raises(OptionError, match="rgb, lol, y-border2") as caught:
        find_protocol(name)
    assert repr(name) in str(caught.value)


def test_names():
    assert {name: p.name for name, p in PROTOCOLS.items()} == {n: n for n in PROTOCOLS}
    assert find_protocol("lol").metrics == (
        "builtin:psnr",
        "builtin:ssim",
        "builtin:mae",
        "builtin:delta_e",
    )


class TestReferenceMean:
    @pytest.mark.parametrize("factor", [0.2, 0.7, 1.0, 1.6])
    def test_the_mean_grey_becomes_the_references(self, factor):
        random = np.random.default_rng(1)
        output = random.integers(20, 90, (16, 16, 3), np.uint8)
        reference = (output[::-1] * factor).astype(np.uint8)
        corrected = with_reference_mean(output, reference)
        assert corrected.dtype == np.uint8
        assert (corrected @ GREY).mean() == pytest.approx((reference @ GREY).mean(), abs=1)
        # one factor for every pixel and channel
        ratio = (reference @ GREY).mean() / (output @ GREY).mean()
        assert np.abs(corrected - output * ratio).max() <= 0.5 + 1e-9

    def test_is_weighted_as_grey(self):
        corrected = with_reference_mean(flat((0, 100, 0)), flat((0, 0, 100)))
        assert corrected[0, 0].tolist() == [0, round(100 * 0.114 / 0.587), 0]

    def test_clips(self):
        output = flat(100)
        output[0, 0] = 250
        corrected = with_reference_mean(output, flat(200))
        assert corrected[0, 0].tolist() == [255, 255, 255]
        assert 190 < corrected[1, 1, 0] < 200

    def test_a_black_output_stays_black(self):
        assert with_reference_mean(flat(0), flat(80)).max() == 0
