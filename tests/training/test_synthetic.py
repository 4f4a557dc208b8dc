"""Inputs made from clean photographs: the camera model does what its formula says."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from enhancekit.errors import DataError, EnhanceKitError
from enhancekit.training import synthetic
from enhancekit.training.batches import Batches, Group
from enhancekit.training.pairs import find_pairs
from enhancekit.training.synthetic import (
    Darkening,
    draw_camera_noise,
    draw_darkening,
    draw_degradation,
    from_linear,
    to_linear,
)

KINDS = ["dark", "camera", "gaussian", "poisson", "bicubic-x2", "bicubic-x3", "bicubic-x4"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scene(height=40, width=48, seed=0):
    """A clean 8-bit picture, smooth but with something everywhere."""
    coarse = np.random.default_rng(seed).integers(20, 256, (6, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def camera(gains=(1.0, 1.0, 1.0), shot=0.0, read=0.0, blur=0.0):
    return Darkening(torch.tensor(gains).view(3, 1, 1), shot, read, blur)


class TestEncoding:
    def test_there_and_back(self):
        values = torch.linspace(0, 1, 4096, dtype=torch.float64)
        torch.testing.assert_close(from_linear(to_linear(values)), values, rtol=0, atol=1e-6)
        torch.testing.assert_close(to_linear(from_linear(values)), values, rtol=0, atol=1e-6)
        assert (to_linear(values).diff() > 0).all()

    @pytest.mark.parametrize(
        ("encoded", "linear"),
        [(0, 0), (1, 1), (0.02, 0.02 / 12.92), (0.5, 0.2140411), (188 / 255, 0.502886)],
    )
    def test_known_values(self, encoded, linear):
        encoded, linear = (torch.tensor(float(v), dtype=torch.float64) for v in (encoded, linear))
        assert float(to_linear(encoded)) == pytest.approx(float(linear), abs=1e-6)
        assert float(from_linear(linear)) == pytest.approx(float(encoded), abs=1e-5)

    def test_gradients_are_finite_at_black(self):
        for function in (to_linear, from_linear):
            black = torch.zeros(3, requires_grad=True)
            function(black).sum().backward()
            assert torch.isfinite(black.grad).all()


class TestDarkening:
    @pytest.mark.parametrize("noise", [True, False])
    def test_follows_from_the_generator(self, noise):
        clean = tensor(scene())
        made = []
        for seed in (1, 1, 2):
            draw = seeded(seed)
            made.append(draw_darkening(draw)(clean, draw, noise))
        assert torch.equal(made[0], made[1])
        assert not torch.equal(made[0], made[2])
        assert torch.equal(clean, tensor(scene()))

    def test_is_a_dark_8_bit_picture(self):
        clean = tensor(scene())
        means = []
        for seed in range(60):
            draw = seeded(seed)
            dark = draw_darkening(draw)(clean, draw, True)
            assert dark.shape == clean.shape
            assert 0 <= float(dark.min()) <= float(dark.max()) <= 1
            levels = dark * 255
            torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
            means.append(float(dark.mean()))
        assert max(means) < 0.8 * float(clean.mean())
        assert max(means) > 1.5 * min(means)

    def test_settings_stay_in_the_documented_ranges(self):
        drawn = [draw_darkening(seeded(seed)) for seed in range(400)]
        exposures = torch.tensor([float(d.gains[1]) for d in drawn])
        assert float(exposures.min()) >= 1 / 40 - 1e-6
        assert float(exposures.max()) <= 1 / 3 + 1e-6
        # log-uniform: half lie below the geometric mean
        middle = math.sqrt(1 / 40 / 3)
        assert float((exposures < middle).float().mean()) == pytest.approx(0.5, abs=0.1)
        tints = torch.stack([(d.gains / d.gains[1]).log().flatten()[[0, 2]] for d in drawn])
        assert tints.std(dim=0).tolist() == pytest.approx([0.08, 0.08], abs=0.012)
        shots = [d.shot for d in drawn]
        assert 1e-4 <= min(shots) < 1.5e-4
        assert 2e-3 < max(shots) <= 3e-3
        spreads = [math.log(d.read) - 2.18 * math.log(d.shot) - 1.2 for d in drawn]
        assert np.mean(spreads) == pytest.approx(0, abs=0.05)
        assert np.std(spreads) == pytest.approx(0.26, abs=0.04)

    @pytest.mark.parametrize(
        ("level", "gains", "shot", "read"),
        [
            (0.8, (0.5, 0.4, 0.3), 2e-3, 1e-4),
            (0.8, (0.5, 0.4, 0.3), 0.0, 4e-4),
            (0.95, (0.3, 0.3, 0.3), 3e-3, 0.0),
        ],
    )
    def test_mean_and_variance_of_a_flat_patch(self, level, gains, shot, read):
        clean = torch.full((3, 256, 256), level)
        found = to_linear(camera(gains, shot, read)(clean, seeded(), True).double())
        for channel, gain in zip(found, gains, strict=True):
            signal = gain * ((level + 0.055) / 1.055) ** 2.4
            assert signal - 6 * math.sqrt(shot * signal + read) > 0  # nothing is clipped
            assert float(channel.mean()) == pytest.approx(signal, rel=0.005)
            assert float(channel.var()) == pytest.approx(shot * signal + read, rel=0.04)

    def test_noise_is_independent_unless_blurred(self):
        clean = torch.full((3, 256, 256), 0.7)
        found = []
        for blur in (0.0, 0.7):
            noise = camera((0.5,) * 3, 1e-3, 1e-4, blur)(clean, seeded(), True)[1]
            noise = to_linear(noise.double()) - 0.5 * to_linear(torch.tensor(0.7)).double()
            assert float(noise.mean()) == pytest.approx(0, abs=5e-4)
            found.append(float((noise[:, 1:] * noise[:, :-1]).mean() / noise.var()))
        assert found[0] == pytest.approx(0, abs=0.02)
        assert found[1] > 0.3

    def test_thumbnails_are_free_of_noise(self):
        clean = tensor(scene())
        draw = seeded(3)
        before = draw.get_state()
        found = camera((0.3, 0.2, 0.1), 3e-3, 1e-2, 0.5)(clean, draw, False)
        gains = torch.tensor((0.3, 0.2, 0.1)).view(3, 1, 1)
        torch.testing.assert_close(found, from_linear(to_linear(clean) * gains))
        assert torch.equal(draw.get_state(), before)

    def test_more_light_than_white_is_white(self):
        found = camera((3.0, 0.5, 0.5))(torch.full((3, 4, 4), 0.9), seeded(), True)
        assert (found[0] == 1).all()
        assert (found[1:] < 1).all()


class TestCameraNoise:
    def test_is_well_exposed(self):
        clean = tensor(scene()) * 0.8 + 0.1
        for seed in range(40):
            draw = seeded(seed)
            noisy = draw_degradation("camera", draw)(clean, draw, True)
            assert noisy.shape == clean.shape
            assert 0 <= float(noisy.min()) <= float(noisy.max()) <= 1
            torch.testing.assert_close(noisy * 255, (noisy * 255).round(), rtol=0, atol=1e-4)
            assert float(noisy.mean()) == pytest.approx(float(clean.mean()), abs=0.02)
            assert not torch.equal(noisy, (clean * 255).round() / 255)

    def test_settings_stay_in_the_documented_ranges(self):
        drawn = [draw_camera_noise(seeded(seed)) for seed in range(400)]
        assert all((d.gains == 1).all() and d.gains.shape == (3, 1, 1) for d in drawn)
        shots = np.array([d.shot for d in drawn])
        assert 1e-4 <= shots.min() < 1.3e-4
        assert 0.9e-2 < shots.max() <= 1.2e-2
        # log-uniform: half lie below the geometric mean
        assert (shots < math.sqrt(1e-4 * 1.2e-2)).mean() == pytest.approx(0.5, abs=0.1)
        spreads = [math.log(d.read) - 2.18 * math.log(d.shot) - 1.2 for d in drawn]
        assert np.mean(spreads) == pytest.approx(0, abs=0.05)
        assert np.std(spreads) == pytest.approx(0.26, abs=0.04)
        blurs = [d.blur for d in drawn if d.blur]
        assert len(blurs) / len(drawn) == pytest.approx(0.5, abs=0.1)
        assert 0.4 <= min(blurs) < max(blurs) <= 0.9

    def test_is_what_is_drawn_by_name(self):
        clean, one, other = tensor(scene()), seeded(5), seeded(5)
        by_name = draw_degradation("camera", one)(clean, one, True)
        assert torch.equal(by_name, draw_camera_noise(other)(clean, other, True))

    def test_thumbnails_are_the_clean_picture(self):
        clean, draw = tensor(scene()), seeded()
        found = draw_degradation("camera", draw)(clean, draw, False)
        torch.testing.assert_close(found, clean, rtol=0, atol=1e-5)


class TestLevel:
    @pytest.mark.parametrize("level", [5.0, 25.0, 50.0])
    def test_is_the_deviation_of_gaussian_noise(self, level):
        clean = torch.full((3, 128, 128), 0.5)
        for seed in range(3):
            draw = seeded(seed)
            noise = draw_degradation("gaussian", draw, level)(clean, draw, True) - clean
            assert float(noise.std()) * 255 == pytest.approx(level, rel=0.02)

    @pytest.mark.parametrize("level", [10.0, 60.0])
    def test_is_the_peak_of_poisson_noise(self, level):
        clean = torch.full((3, 128, 128), 0.5)
        for seed in range(3):
            draw = seeded(seed)
            photons = draw_degradation("poisson", draw, level)(clean, draw, True).double() * level
            torch.testing.assert_close(photons, photons.round(), rtol=0, atol=1e-4)
            assert float(photons.mean()) == pytest.approx(0.5 * level, rel=0.02)
            assert float(photons.var()) == pytest.approx(0.5 * level, rel=0.05)

    @pytest.mark.parametrize("kind", ["gaussian", "poisson"])
    @pytest.mark.parametrize("level", [0.0, -3.0, 1e-300, 1e7, 1e300, math.nan, math.inf])
    def test_leaves_something_of_picture_and_noise(self, kind, level):
        with pytest.raises(DataError, match=re.escape(f"{kind}:{level:g} is no degradation")):
            draw_degradation(kind, seeded(), level)

    @pytest.mark.parametrize("kind", ["dark", "camera", "bicubic-x2", "snow"])
    def test_belongs_to_gaussian_and_poisson_alone(self, kind):
        with pytest.raises(DataError, match=f"{kind}:25 .*only gaussian and poisson take a level"):
            draw_degradation(kind, seeded(), 25.0)


class TestOthers:
    def test_gaussian(self):
        clean = torch.full((3, 64, 64), 0.5)
        deviations = []
        for seed in range(60):
            draw = seeded(seed)
            noise = draw_degradation("gaussian", draw)(clean, draw, True) - clean
            assert float(noise.mean()) == pytest.approx(0, abs=4 * 0.2 / 64)
            deviations.append(float(noise.std()) * 255)
        assert 0 <= min(deviations) < 6
        assert 44 < max(deviations) < 52
        assert np.mean(deviations) == pytest.approx(25, abs=6)

    @pytest.mark.parametrize("level", [0.2, 0.6])
    def test_poisson(self, level):
        clean = torch.full((3, 96, 96), level)
        peaks = []
        for seed in range(30):
            draw = seeded(seed)
            noisy = draw_degradation("poisson", draw)(clean, draw, True).double()
            values = noisy.unique()
            photon = float(values.diff().median())  # values are whole numbers of photons
            torch.testing.assert_close(noisy / photon, (noisy / photon).round(), rtol=0, atol=0.02)
            assert float(noisy.mean()) == pytest.approx(level, rel=0.02)
            assert float(noisy.var()) == pytest.approx(level * photon, rel=0.06)
            peaks.append(1 / photon)
        assert 7.9 < min(peaks) < 16
        assert 128 < max(peaks) < 256

    @pytest.mark.parametrize("size", [(40, 48), (16, 64)])
    def test_half_the_size_as_pillow_does_it(self, size):
        height, width = size
        sharp = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        for picture in (scene(height, width), Image.fromarray(sharp)):
            draw = seeded()
            small = draw_degradation("bicubic-x2", draw)(tensor(picture), draw, True)
            wanted = picture.resize((width // 2, height // 2), Image.Resampling.BICUBIC)
            assert small.shape == (3, height // 2, width // 2)
            assert float((small - tensor(wanted)).abs().max()) <= 1.5 / 255
            torch.testing.assert_close(small * 255, (small * 255).round(), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("kind", ["gaussian", "poisson", "bicubic-x2"])
    def test_thumbnails_stay_clean(self, kind):
        clean = tensor(scene())
        draw = seeded()
        assert torch.equal(draw_degradation(kind, draw)(clean, draw, False), clean)

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_setting_and_generator_give_one_input(self, kind):
        clean = tensor(scene())
        made = []
        for seed in (4, 4, 5):
            draw = seeded(seed)
            made.append(draw_degradation(kind, draw)(clean, draw, True))
        assert torch.equal(made[0], made[1])
        assert torch.equal(made[0], made[2]) == kind.startswith("bicubic")

    @pytest.mark.parametrize("kind", ["", "Dark", "bicubic-x5"])
    def test_an_unknown_kind(self, kind):
        with pytest.raises(DataError) as caught:
            draw_degradation(kind, seeded())
        assert f"{kind!r}; there are {', '.join(KINDS)}" in str(caught.value)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    for i in range(4):
        scene(seed=i).save(root / f"{i}.png")
    return [root / f"{i}.png" for i in range(4)]


@pytest.fixture(scope="module")
def black_pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("black")
    for side in ("low", "high"):
        (root / side).mkdir()
        for i in range(3):
            Image.new("RGB", (48, 40)).save(root / side / f"{i}.png")
    return find_pairs(root / "low", root / "high")


class TestBatches:
    @pytest.mark.parametrize("weight", [0.5, 1.0, 4.0])
    def test_frequencies_follow_weight_times_size(self, photographs, black_pairs, weight):
        data = Batches(
            [
                Group(black_pairs),
                Group((), photographs[:3], "gaussian", weight),
                Group((), photographs[3:], "dark", 2.0),
            ],
            crop=16,
            augment=False,
        )
        shown = torch.cat([data.batch(n, 14).target_whole for n in range(20)])
        black = (shown.amax((1, 2, 3)) == 0).float().mean()
        last = (shown - data._thumbnails[-1][1]).abs().amax((1, 2, 3)) < 1e-6
        total = 3 + 3 * weight + 2
        # shares are rounded to a picture an epoch
        assert float(black) == pytest.approx(3 / total, abs=0.5 / 7 + 0.01)
        assert float(last.float().mean()) == pytest.approx(2 / total, abs=0.5 / 7 + 0.01)

    @pytest.mark.parametrize("weight", [0.04, 0.1, 0.5])
    def test_a_small_share_is_small_and_not_none(self, photographs, black_pairs, weight):
        groups = [Group(black_pairs, weight=weight), Group((), photographs, "gaussian")]
        data = Batches(groups, crop=16, augment=False)
        shown = torch.cat([data.batch(n, 20).target_whole for n in range(20)])
        black = float((shown.amax((1, 2, 3)) == 0).float().mean())
        wanted = 3 * weight / (3 * weight + 4)
        assert 0.4 * wanted < black < 2.5 * wanted

    @pytest.mark.parametrize("shrink", [(1,), (2,)])
    @pytest.mark.parametrize("augment", [True, False])
    def test_dark_crops_lie_on_their_references(self, photographs, monkeypatch, augment, shrink):
        monkeypatch.setattr(synthetic, "SHOT", (1e-9, 1e-9))
        monkeypatch.setattr(synthetic, "EXPOSURE", (0.25, 0.25))
        monkeypatch.setattr(synthetic, "TINT", 0.0)
        data = Batches([Group((), photographs)], crop=16, augment=augment, shrink=shrink)
        for number in range(4):
            batch = data.batch(number, 3)
            wanted = from_linear(to_linear(batch.target) * 0.25)
            assert float((batch.input - wanted).abs().max()) < 1.5 / 255
            whole = from_linear(to_linear(batch.target_whole) * 0.25)
            torch.testing.assert_close(batch.input_whole, whole, rtol=0, atol=1e-5)

    def test_halved_crops_lie_on_their_references(self, photographs):
        data = Batches([Group((), photographs, "bicubic-x2")], crop=16)
        for number in range(4):
            batch = data.batch(number, 3)
            for small, large in zip(batch.input, batch.target, strict=True):
                pixels = (large * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
                halved = Image.fromarray(pixels).resize((8, 8), Image.Resampling.BICUBIC)
                assert float((small - tensor(halved)).abs().max()) <= 1.5 / 255

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_batch_is_a_pure_function(self, photographs, kind):
        def make():
            return Batches([Group((), photographs, kind)], crop=16, shrink=(1, 2), seed=7)

        first, second = make(), make()
        wanted = {n: first.batch(n, 2) for n in (0, 3, 500)}
        torch.manual_seed(5)
        for n in (500, 3, 0):
            second.thumbnails(n, 2)
            found = second.batch(n, 2)
            for part in ("input", "target", "input_whole", "target_whole"):
                assert torch.equal(getattr(found, part), getattr(wanted[n], part))
        assert not torch.equal(wanted[0].input, wanted[3].input)

    def test_inputs_of_two_sizes_do_not_mix(self, photographs):
        groups = [Group((), photographs, "bicubic-x2"), Group((), photographs, "dark")]
        with pytest.raises(EnhanceKitError, match="bicubic-x2"):
            Batches(groups, crop=16).batch(0, 8)
