"""The metrics: equal to scikit-image's, and honest about direction and shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchmetrics.functional.image as reference_metrics
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import enhancekit
from enhancekit.errors import OptionError

NAMES = ("psnr", "ssim", "ms_ssim", "mae", "delta_e")
HIGHER = {"psnr": True, "ssim": True, "ms_ssim": True, "mae": False, "delta_e": False}
BEST = {"psnr": math.inf, "ssim": 1, "ms_ssim": 1, "mae": 0, "delta_e": 0}


def measure(name, output, reference):
    return enhancekit.metrics.get(name).target()(output, reference)


def picture(height, width, seed=0):
    """Smooth structure with some grain, in [0, 1]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (3 + c) + c) * np.cos(y / (5 + c)) for c in range(3)]
    return (0.5 + 0.35 * np.stack(waves, axis=2) + 0.1 * random.random((height, width, 3))).clip(
        0, 1
    )


def spoiled(original, seed=1, noise=0.1):
    random = np.random.default_rng(seed)
    return (original * 0.85 + noise * random.standard_normal(original.shape)).clip(0, 1)


def tensor(array):
    return torch.from_numpy(array).permute(2, 0, 1)[None]


class TestEvery:
    @pytest.mark.parametrize("name", NAMES)
    def test_equal_pictures_are_best(self, name):
        original = picture(176, 180)
        assert measure(name, original, original.copy()) == pytest.approx(BEST[name], abs=1e-12)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_direction_is_true(self, name):
        entry = enhancekit.metrics.get(name)
        assert entry.spec.higher_is_better is HIGHER[name]
        original = picture(176, 180)
        values = [
            measure(name, spoiled(original, noise=level), original) for level in (0, 0.05, 0.2)
        ]
        assert values == sorted(values, reverse=HIGHER[name])
        assert len(set(values)) == 3

    @pytest.mark.parametrize("name", NAMES)
    def test_symmetric(self, name):
        original = picture(176, 180)
        other = spoiled(original)
        there, back = measure(name, other, original), measure(name, original, other)
        assert there == pytest.approx(back, rel=1e-6)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("shape", [(180, 176, 3), (176, 180, 1), (176, 180), (1, 1, 3)])
    def test_shapes_that_differ(self, name, shape):
        with pytest.raises(OptionError, match="compare equal shapes only and never resize"):
            measure(name, picture(176, 180), np.zeros(shape))

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
    def test_whole_numbers_are_refused(self, name, dtype):
        whole = np.ones((176, 180, 3), dtype)
        with pytest.raises(OptionError, match=r"floats in \[0, 1\], not .*divide by its white"):
            measure(name, whole, whole)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_gives_a_plain_number_and_changes_nothing(self, name, dtype):
        original = picture(176, 180).astype(dtype)
        other = spoiled(original).astype(dtype)
        before = original.copy(), other.copy()
        value = measure(name, other, original)
        assert type(value) is float
        np.testing.assert_array_equal(original, before[0])
        np.testing.assert_array_equal(other, before[1])
        double = measure(name, other.astype(np.float64), original.astype(np.float64))
        assert value == pytest.approx(double, rel=1e-6)

    @pytest.mark.parametrize("name", NAMES)
    def test_any_memory_layout(self, name):
        original = picture(180, 177)
        other = spoiled(original)
        plain = measure(name, other.transpose(1, 0, 2).copy(), original.transpose(1, 0, 2).copy())
        strided = measure(name, other.transpose(1, 0, 2), original.transpose(1, 0, 2))
        flipped = measure(
            name, other.transpose(1, 0, 2)[::-1, ::-1], original.transpose(1, 0, 2)[::-1, ::-1]
        )
        assert strided == pytest.approx(plain, rel=1e-12)
        assert flipped == pytest.approx(plain, rel=1e-9) or name == "ms_ssim"

    @pytest.mark.parametrize("name", NAMES)
    def test_says_how_it_is_computed(self, name):
        spec = enhancekit.metrics.get(name).spec
        assert len(spec.protocol) > 10
        assert spec.unit == ("dB" if name == "psnr" else "")


class TestPsnr:
    @pytest.mark.parametrize("difference", [0.1, 0.01, 0.5])
    def test_known_value(self, difference):
        flat = np.full((5, 7, 3), 0.3)
        value = measure("psnr", flat + difference, flat)
        assert value == pytest.approx(-20 * math.log10(difference))

    def test_is_infinite_for_equal_pictures_only(self):
        original = picture(20, 20)
        assert measure("psnr", original, original) == math.inf
        almost = original.copy()
        almost[0, 0, 0] += 1e-6
        assert 100 < measure("psnr", almost, original) < 200

    def test_is_scikit_images(self):
        original = picture(40, 31)
        other = spoiled(original)
        wanted = peak_signal_noise_ratio(original, other, data_range=1.0)
        assert measure("psnr", other, original) == pytest.approx(wanted, abs=1e-6)

    def test_is_torchmetrics(self):
        original = picture(40, 31)
        other = spoiled(original)
        wanted = reference_metrics.peak_signal_noise_ratio(
            tensor(other), tensor(original), data_range=1.0
        )
        assert measure("psnr", other, original) == pytest.approx(float(wanted), abs=1e-5)


class TestSsim:
    @pytest.mark.parametrize("size", [(11, 11), (40, 31), (11, 64)])
    def test_is_scikit_images(self, size):
        original = picture(*size)
        other = spoiled(original)
        wanted = structural_similarity(
            original,
            other,
            data_range=1.0,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert 0.1 < wanted < 0.99
        assert measure("ssim", other, original) == pytest.approx(wanted, abs=1e-6)

    def test_is_one_minus_the_loss(self):
        original = picture(40, 31).astype(np.float32)
        other = spoiled(original).astype(np.float32)
        loss = enhancekit.losses.create("ssim")(tensor(other), tensor(original))
        assert measure("ssim", other, original) == pytest.approx(1 - float(loss), abs=1e-5)

    @pytest.mark.parametrize("size", [(10, 20), (20, 10)])
    def test_too_small(self, size):
        with pytest.raises(OptionError, match="at least 11x11"):
            measure("ssim", np.zeros((*size, 3)), np.zeros((*size, 3)))


class TestMsSsim:
    def test_is_near_torchmetrics(self):
        original = picture(190, 200)
        other = spoiled(original)
        # it pads where ours keeps to whole windows, so the two agree but for the border
        wanted = reference_metrics.multiscale_structural_similarity_index_measure(
            tensor(other), tensor(original), data_range=1.0
        )
        assert 0.3 < float(wanted) < 0.99
        assert measure("ms_ssim", other, original) == pytest.approx(float(wanted), abs=0.02)

    def test_is_one_minus_the_loss(self):
        original = picture(180, 176)
        other = spoiled(original)
        loss = enhancekit.losses.create("ms_ssim")(tensor(other), tensor(original))
        assert measure("ms_ssim", other, original) == pytest.approx(1 - float(loss), abs=1e-5)

    def test_too_small(self):
        with pytest.raises(OptionError, match="at least 176x176"):
            measure("ms_ssim", picture(175, 200), picture(175, 200))


class TestMae:
    def test_known_value(self):
        original = np.zeros((4, 5, 3))
        other = original.copy()
        other[0] = 0.5  # a quarter of the rows
        assert measure("mae", other, original) == pytest.approx(0.125)

    def test_is_the_mean_of_absolute_differences(self):
        original = picture(12, 9)
        other = spoiled(original)
        assert measure("mae", other, original) == pytest.approx(np.abs(original - other).mean())


class TestDeltaE:
    def test_is_scikit_images(self):
        original = picture(24, 31)
        other = spoiled(original)
        wanted = deltaE_ciede2000(rgb2lab(original), rgb2lab(other)).mean()
        assert wanted > 1
        assert measure("delta_e", other, original) == pytest.approx(wanted, rel=1e-6)

    def test_black_and_white_are_100_apart(self):
        black = np.zeros((3, 3, 3))
        assert measure("delta_e", black, black + 1) == pytest.approx(100, abs=0.01)

    def test_values_outside_are_clipped(self):
        white = np.ones((3, 3, 3))
        assert measure("delta_e", white + 0.2, white) == pytest.approx(0, abs=1e-9)

    def test_hue_counts(self):
        red, green = np.zeros((2, 3, 3, 3))
        red[..., 0] = green[..., 1] = 0.6
        assert measure("delta_e", red, green) > 50
