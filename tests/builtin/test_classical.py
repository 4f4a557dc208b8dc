"""The classical enhancers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage import exposure
from skimage.color import rgb2gray
from skimage.metrics import peak_signal_noise_ratio

import enhancekit
from enhancekit.errors import EnhanceKitError, OptionError

NAMES = ("identity", "gamma", "clahe", "equalize", "nl-means", "spline-x2")
TASKS = {"nl-means": "denoise", "spline-x2": "super-resolution"}
SCALES = {"spline-x2": 2}


def dark(height=40, width=50, seed=0):
    """A dark picture with structure, float32 in [0, 0.25]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / (6 + c)) * np.cos(y / 9) + 1 for c in range(3)], axis=2)
    return (0.1 * waves + 0.05 * random.random((height, width, 3))).astype(np.float32)


class TestEvery:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 9), (3, 5), (7, 8), (17, 33)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_any_size(self, name, size, dtype):
        image = np.random.default_rng(0).random((*size, 3))
        image = (image * 255).astype(dtype) if dtype is np.uint8 else image.astype(dtype)
        result = enhancekit.load(name).enhance(image)
        scale = SCALES.get(name, 1)
        assert result.shape == (scale * size[0], scale * size[1], 3)
        assert result.dtype == dtype
        assert np.isfinite(result).all()

    @pytest.mark.parametrize("name", ["identity", "clahe", "equalize", "nl-means", "spline-x2"])
    @pytest.mark.parametrize("value", [0, 1, 77, 255])
    @pytest.mark.parametrize("size", [(1, 1), (8, 8), (20, 31)])
    def test_a_flat_picture_stays_as_it_is(self, name, value, size):
        image = np.full((*size, 3), value, np.uint8)
        result = enhancekit.load(name).enhance(image)
        scale = SCALES.get(name, 1)
        np.testing.assert_array_equal(result, image.repeat(scale, axis=0).repeat(scale, axis=1))

    @pytest.mark.parametrize("name", ["gamma", "clahe", "equalize"])
    def test_a_dark_picture_becomes_brighter(self, name):
        image = dark()
        assert enhancekit.load(name).enhance(image).mean() > image.mean() + 0.1

    @pytest.mark.parametrize("name", ["gamma", "clahe", "equalize"])
    def test_values_a_little_outside_count_as_the_limits(self, name):
        image = dark()
        image[0, 0] = (-0.05, 1.05, 0.5)
        result = enhancekit.load(name).enhance(image)
        assert np.isfinite(result).all()
        assert result.min() >= 0

    @pytest.mark.parametrize("name", NAMES)
    def test_grey_stays_grey(self, name):
        image = dark()[..., :1].repeat(3, axis=2)
        result = enhancekit.load(name).enhance(image)
        np.testing.assert_allclose(result, result[..., :1].repeat(3, axis=2), atol=1e-6)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_input_is_not_changed(self, name):
        image = dark()
        before = image.copy()
        enhancekit.load(name).enhance(image)
        np.testing.assert_array_equal(image, before)

    @pytest.mark.parametrize("name", NAMES)
    def test_they_are_listed_as_the_cores_own(self, name):
        entry = enhancekit.enhancers.get(name)
        assert entry.qualified_name == f"builtin:{name}"
        assert entry.spec.task == TASKS.get(name, "tone")
        assert entry.spec.scale == SCALES.get(name, 1)


class TestGamma:
    @pytest.mark.parametrize("gamma", [0.25, 1 / 2.2, 1.0, 2.0])
    def test_is_the_power(self, gamma):
        image = dark()
        result = enhancekit.load("gamma", gamma=gamma).enhance(image)
        np.testing.assert_allclose(result, image.astype(np.float64) ** gamma, rtol=1e-5)

    def test_the_default_is_2_2(self):
        result = enhancekit.load("gamma").enhance(np.full((2, 2), 0.5, np.float32))
        np.testing.assert_allclose(result, 0.5 ** (1 / 2.2), rtol=1e-6)

    def test_black_and_white_stay(self):
        image = np.array([[0, 255]], np.uint8)
        np.testing.assert_array_equal(enhancekit.load("gamma").enhance(image), image)

    @pytest.mark.parametrize("gamma", [0, -1, float("nan")])
    def test_impossible(self, gamma):
        with pytest.raises(OptionError, match="gamma must be above 0"):
            enhancekit.load("gamma", gamma=gamma).enhance(dark())

    @pytest.mark.parametrize("gamma", ["2", None, [1]])
    def test_no_number(self, gamma):
        with pytest.raises(EnhanceKitError, match="gamma"):
            enhancekit.load("gamma", gamma=gamma).enhance(dark())


class TestClahe:
    def test_is_scikit_images_on_the_luma(self):
        image = dark()
        luma = rgb2gray(image)
        change = exposure.equalize_adapthist(luma, clip_limit=0.02) - luma
        wanted = (image + change[..., None]).clip(0, 1)
        np.testing.assert_allclose(enhancekit.load("clahe").enhance(image), wanted, atol=1e-5)

    def test_a_higher_limit_gives_more_contrast(self):
        spread = [
            enhancekit.load("clahe", clip_limit=limit).enhance(dark()).std()
            for limit in (0.001, 0.02, 0.2)
        ]
        assert spread == sorted(spread)
        assert spread[0] < spread[2]

    @pytest.mark.parametrize("kernel_size", [4, 16, 1000])
    def test_kernel_sizes(self, kernel_size):
        result = enhancekit.load("clahe", kernel_size=kernel_size).enhance(dark())
        assert result.shape == dark().shape

    @pytest.mark.parametrize("limit", [-0.1, 1.1, float("nan")])
    def test_impossible_limits(self, limit):
        with pytest.raises(OptionError, match=r"clip_limit lies in \[0, 1\]"):
            enhancekit.load("clahe", clip_limit=limit).enhance(dark())

    @pytest.mark.parametrize("kernel_size", [0, -3])
    def test_impossible_kernels(self, kernel_size):
        with pytest.raises(OptionError, match="kernel_size"):
            enhancekit.load("clahe", kernel_size=kernel_size).enhance(dark())


class TestEqualize:
    def test_spreads_the_luma_evenly(self):
        image = dark()[..., :1].repeat(3, axis=2)
        luma = enhancekit.load("equalize").enhance(image)[..., 0]
        counts, _ = np.histogram(luma, bins=8, range=(0, 1))
        assert counts.min() > 0.09 * luma.size
        assert counts.max() < 0.16 * luma.size

    def test_keeps_the_order_of_grey_values(self):
        ramp = (np.arange(100, dtype=np.float32) / 400).reshape(10, 10)
        result = enhancekit.load("equalize").enhance(ramp)
        assert (np.diff(result.ravel()) >= 0).all()
        assert result.max() > 0.95

    def test_hue_is_kept(self):
        image = dark()
        result = enhancekit.load("equalize").enhance(image)
        inside = ((result > 0) & (result < 1)).all(axis=2)
        assert inside.mean() > 0.5
        before = image - image.mean(axis=2, keepdims=True)
        after = result - result.mean(axis=2, keepdims=True)
        np.testing.assert_allclose(after[inside], before[inside], atol=1e-5)


def smooth(height=48, width=56):
    """A bright picture without fine detail, float32 in [0.2, 0.8]."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (9 + c)) * np.cos(y / (11 - c)) for c in range(3)]
    return (0.5 + 0.3 * np.stack(waves, axis=2)).astype(np.float32)


def noisy(image, sigma, seed=0):
    grain = np.random.default_rng(seed).normal(0, sigma / 255, image.shape)
    return (image + grain).astype(np.float32)


def psnr(a, b):
    return peak_signal_noise_ratio(np.float64(a), np.float64(b), data_range=1)


class TestNlMeans:
    @pytest.mark.parametrize("sigma", [5, 15, 30])
    @pytest.mark.parametrize("given", [True, False])
    def test_is_nearer_to_the_clean_picture(self, sigma, given):
        clean = smooth()
        image = noisy(clean, sigma)
        enhancer = enhancekit.load("nl-means", sigma=sigma if given else None)
        assert psnr(enhancer.enhance(image), clean) > psnr(image, clean) + 4

    @pytest.mark.parametrize("sigma", [8, 25, 50])
    def test_the_strength_of_the_noise_is_found(self, sigma):
        image = noisy(smooth(), sigma)
        found, weaker, stronger = (
            enhancekit.load("nl-means", sigma=s).enhance(image)
            for s in (None, 0.8 * sigma, 1.25 * sigma)
        )
        exact = enhancekit.load("nl-means", sigma=sigma).enhance(image)
        difference = [np.abs(other - exact).mean() for other in (found, weaker, stronger)]
        assert difference[0] < 0.5 * min(difference[1:])

    def test_more_is_smoother(self):
        image = noisy(smooth(), 20)
        rough = [
            np.abs(np.diff(enhancekit.load("nl-means", sigma=s).enhance(image), axis=0)).mean()
            for s in (0, 5, 20, 40)
        ]
        assert rough == sorted(rough, reverse=True)
        assert rough[0] > 2 * rough[2]

    def test_of_nothing_is_the_picture_itself(self):
        image = noisy(smooth(), 20)
        np.testing.assert_array_equal(enhancekit.load("nl-means", sigma=0).enhance(image), image)

    def test_a_slope_is_no_noise(self):
        y, x = np.mgrid[0:20, 0:24]
        image = np.stack((x / 64, y / 64, (x + y) / 128), axis=2).astype(np.float32)
        np.testing.assert_allclose(enhancekit.load("nl-means").enhance(image), image, atol=1e-6)

    @pytest.mark.parametrize("sigma", [-1, float("nan")])
    def test_impossible(self, sigma):
        with pytest.raises(OptionError, match="sigma is at least 0"):
            enhancekit.load("nl-means", sigma=sigma).enhance(dark())

    def test_no_number(self):
        with pytest.raises(EnhanceKitError, match=r"builtin:nl-means .*TypeError"):
            enhancekit.load("nl-means", sigma="5").enhance(dark())


class TestSplineX2:
    @pytest.mark.parametrize("size", [(9, 12), (17, 5), (4, 4)])
    def test_is_the_cubic_spline_between_the_centres_of_pixels(self, size):
        image = np.random.default_rng(1).random((*size, 3)).astype(np.float32)
        places = np.meshgrid(*((np.arange(2 * n) + 0.5) / 2 - 0.5 for n in size), indexing="ij")
        wanted = np.stack(
            [
                ndimage.map_coordinates(image[..., c].astype(np.float64), places, mode="nearest")
                for c in range(3)
            ],
            axis=2,
        )
        result = enhancekit.load("spline-x2").enhance(image)
        inside = (wanted > 0.05) & (wanted < 0.95)  # beyond the picture's own range it is cut off
        assert inside.mean() > 0.7
        np.testing.assert_allclose(result[inside], wanted[inside], atol=1e-5)

    def test_is_nearer_than_repeating_pixels(self):
        large = smooth(64, 80)
        small = large.reshape(32, 2, 40, 2, 3).mean(axis=(1, 3))
        repeated = small.repeat(2, axis=0).repeat(2, axis=1)
        result = enhancekit.load("spline-x2").enhance(small)
        assert psnr(result, large) > psnr(repeated, large) + 6

    def test_no_value_leaves_the_range_of_the_picture(self):
        edge = np.zeros((8, 8, 3), np.float32)
        edge[:, 4:] = 1
        result = enhancekit.load("spline-x2").enhance(edge)
        assert (result.min(), result.max()) == (0, 1)


class TestIdentity:
    def test_gives_the_picture_back(self):
        image = dark() - 0.05
        np.testing.assert_array_equal(enhancekit.load("identity").enhance(image), image)


@pytest.mark.parametrize("name", ["clahe", "equalize"])
@pytest.mark.parametrize("size", [(30, 30), (101, 77)])
def test_flat_grey_stays(name, size):
    enhancer = enhancekit.load(name)
    for grey in range(0, 256, 5):
        picture = np.full((*size, 3), grey, np.uint8)
        np.testing.assert_array_equal(enhancer.enhance(picture), picture)
    picture = np.full((*size, 3), 30000, np.uint16)
    picture[0, 0] += 1  # what is not flat, by a single step, is spread
    assert np.ptp(enhancer.enhance(picture)) > 1
