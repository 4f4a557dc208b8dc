"""Each method does what its paper says."""

from __future__ import annotations

import numpy as np
import pytest
from enhancekit_classical.denoise import tv, wavelet
from enhancekit_classical.lime import illumination, lime
from enhancekit_classical.resample import bicubic_x2, lanczos_x2
from enhancekit_classical.retinex import msrcr
from enhancekit_classical.smoothing import smoothed
from scipy.ndimage import gaussian_filter

import enhancekit
from enhancekit.errors import OptionError


def picture(height=40, width=52, seed=0):
    random = np.random.default_rng(seed)
    smooth = gaussian_filter(random.random((height, width, 3)), (6, 6, 0))
    spread = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    spread[:, width // 2 :] *= 0.5
    return spread.astype(np.float32)


def psnr(given, wanted):
    return float(-10 * np.log10(np.mean((given - wanted) ** 2)))


class TestSmoothing:
    @pytest.mark.parametrize("shape", [(1, 9), (17, 1), (21, 34)])
    @pytest.mark.parametrize("strength", [0.1, 1e4])
    def test_solves_the_system(self, shape, strength):
        random = np.random.default_rng(1)
        given = random.random(shape, np.float32)
        down, right = strength * random.random((2, *shape), np.float32) ** 4
        size = given.size
        matrix, index = np.eye(size), np.arange(size).reshape(shape)
        for one, other, weight in (
            (index[:-1], index[1:], down[:-1]),
            (index[:, :-1], index[:, 1:], right[:, :-1]),
        ):
            for i, j, w in zip(one.ravel(), other.ravel(), weight.ravel(), strict=True):
                matrix[i, i] += w
                matrix[j, j] += w
                matrix[i, j] -= w
                matrix[j, i] -= w
        wanted = np.linalg.solve(matrix, given.ravel().astype(float)).reshape(shape)
        np.testing.assert_allclose(smoothed(given, down, right), wanted, atol=3e-4)

    def test_without_weights_nothing_changes(self):
        given = picture()[..., 0]
        none = np.zeros_like(given)
        np.testing.assert_array_equal(smoothed(given, none, none), given)


class TestLime:
    def test_smooths_texture_and_keeps_the_edge(self):
        clean = np.full((48, 64), 0.2, np.float32)
        clean[:, 32:] = 0.8
        noisy = clean + np.random.default_rng(0).normal(0, 0.02, clean.shape).astype(np.float32)
        map_ = illumination(noisy, 0.15)
        assert map_[:, :30].std() < 0.2 * noisy[:, :30].std()
        assert map_[:, 34:].mean() - map_[:, :30].mean() > 0.5

    def test_brightens_the_dark_more(self):
        dark = 0.2 * picture()
        gain = lime(dark).mean(axis=2) / dark.mean(axis=2).clip(1e-3)
        assert lime(dark).mean() > 2 * dark.mean()
        assert gain[dark.max(axis=2) < 0.05].mean() > gain[dark.max(axis=2) > 0.1].mean()

    def test_gamma_0_changes_nothing(self):
        np.testing.assert_array_equal(lime(picture(), gamma=0), picture())

    def test_keeps_the_hue(self):
        dark = 0.2 * picture()
        done = lime(dark)
        ratio = (done / dark.clip(1e-6))[(dark.min(axis=2) > 0.01) & (done.max(axis=2) < 1)]
        assert len(ratio) > 1000
        np.testing.assert_allclose(ratio, ratio[:, :1].repeat(3, 1), rtol=1e-4)


class TestRetinex:
    def test_takes_a_slow_shade_away(self):
        detail = 0.1 * np.random.default_rng(0).random((64, 96, 1), np.float32) + 0.4
        shade = np.linspace(0.1, 1, 96, dtype=np.float32)[None, :, None]
        shaded = np.repeat(detail * shade, 3, axis=2)
        done = msrcr(shaded, scales=(4.0,))
        halves = [half[..., 0].mean() for half in np.array_split(done, 2, axis=1)]
        before = [half[..., 0].mean() for half in np.array_split(shaded, 2, axis=1)]
        assert abs(halves[0] - halves[1]) < 0.1 < abs(before[0] - before[1])

    def test_blurs_as_a_gaussian_with_mirrored_ends(self):
        from enhancekit_classical.retinex import _blurred

        x = 1 + picture()
        wanted = gaussian_filter(x, (3, 3, 0), mode="reflect", truncate=6)
        np.testing.assert_allclose(_blurred(x, 3.0), wanted, atol=2e-3)

    def test_a_flat_picture_stays(self):
        flat = np.full((9, 7, 3), 0.3, np.float32)
        np.testing.assert_array_equal(msrcr(flat), flat)


class TestDenoise:
    @pytest.mark.parametrize(("denoise", "gain"), [(wavelet, 5), (tv, 5)])
    def test_removes_noise(self, denoise, gain):
        clean = picture(64, 80)
        noise = np.random.default_rng(2).normal(0, 25 / 255, clean.shape)
        noisy = (clean + noise).astype(np.float32)
        assert psnr(denoise(noisy), clean) > psnr(noisy, clean) + gain

    def test_a_given_sigma_is_used(self):
        noisy = picture() + np.random.default_rng(2).normal(0, 0.1, (40, 52, 3)).astype(np.float32)
        np.testing.assert_array_equal(wavelet(noisy, sigma=0), noisy.clip(0, 1))
        flatter = [np.abs(np.diff(wavelet(noisy, sigma=s), axis=0)).mean() for s in (5, 25, 60)]
        assert flatter[0] > flatter[1] > flatter[2]


class TestResample:
    @pytest.mark.parametrize(("enlarge", "least"), [(bicubic_x2, 40), (lanczos_x2, 40)])
    def test_a_smooth_picture_comes_back(self, enlarge, least):
        large = picture(80, 104)[:, :52]
        small = large.reshape(40, 2, 26, 2, 3).mean(axis=(1, 3))
        assert psnr(enlarge(small)[4:-4, 4:-4], large[4:-4, 4:-4]) > least

    @pytest.mark.parametrize("name", ["bicubic-x2", "lanczos-x2"])
    def test_16_bits_stay_16_bits(self, name):
        deep = np.linspace(1000, 1040, 24 * 3).reshape(4, 6, 3).astype(np.uint16)
        done = enhancekit.load(name).enhance(deep)
        assert (done.dtype, done.shape) == (np.uint16, (8, 12, 3))
        assert (done.min(), done.max()) == (1000, 1040)
        assert len(np.unique(done)) > 20


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: lime(x, alpha=-1), "alpha is at least 0"),
        (lambda x: lime(np.tile(x, (9, 9, 1)), alpha=1e9), "use a smaller alpha"),
        (lambda x: lime(x, gamma=1.5), r"gamma lies in \[0, 1\]"),
        (lambda x: msrcr(x, scales=()), "scales are one or more numbers"),
        (lambda x: msrcr(x, clip=0.5), "clip lies in"),
        (lambda x: wavelet(x, sigma=-1), "sigma is at least 0"),
        (lambda x: tv(x, weight=0), "weight must be above 0"),
    ],
)
def test_impossible_options(call, said):
    with pytest.raises(OptionError, match=said):
        call(picture(4, 4))
