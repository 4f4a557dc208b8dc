"""What is decided once for a whole picture: the exposure, and how strong the noise is."""

from __future__ import annotations

import pytest
import torch
from enhancekit_mfnn.context import Exposure, NoiseLevel
from enhancekit_mfnn.network import MFNN

import enhancekit
from enhancekit.training.batches import Batch


def noise(*shape, seed=7):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TestCurve:
    gains = torch.linspace(-3, Exposure.max_log_gain, 19).view(-1, 1, 1, 1)

    def curves(self, start, stop, count=301):
        x = torch.linspace(start, stop, count, dtype=torch.float64).view(1, 1, 1, -1)
        return x.flatten(), Exposure.curve(x, self.gains.double()).flatten(1)

    def test_is_the_formula(self):
        x, y = self.curves(0, 1)
        gain = self.gains.double().exp().flatten()[:, None]
        torch.testing.assert_close(y, gain * x / (1 + (gain - 1) * x))

    def test_monotone_between_0_and_1(self):
        _, y = self.curves(-1, 1)
        assert (y.diff(dim=1) > 0).all()

    @pytest.mark.parametrize("top", [1.05, 1.3, 2.0])
    def test_monotone_and_finite_a_little_above_1_too(self, top):
        # floats up to 2 are accepted "as they are", and noise puts white a little above 1
        _, y = self.curves(0.9, top)
        assert torch.isfinite(y).all()
        assert (y.diff(dim=1) >= 0).all()

    def test_odd(self):
        _, y = self.curves(-1, 1)
        torch.testing.assert_close(y, -y.flip(1))

    def test_black_stays_black_and_white_white(self):
        x, y = self.curves(0, 1)
        assert (y[:, 0] == 0).all()
        torch.testing.assert_close(y[:, -1], torch.ones(len(y), dtype=torch.float64))
        assert x[-1] == 1

    def test_no_gain_changes_nothing(self):
        x = noise(1, 3, 5, 5)
        assert torch.equal(Exposure.curve(x, torch.zeros(1, 1, 1, 1)), x)

    def test_the_slope_in_the_shadows_is_the_gain(self):
        x = torch.full((1, 1, 1, 1), 1e-7)
        slope = Exposure.curve(x, torch.full((1, 1, 1, 1), 2.0)) / x
        torch.testing.assert_close(slope, torch.full((1, 1, 1, 1), 2.0).exp(), rtol=1e-4, atol=0)


class TestTone:
    gains = torch.tensor([-1.0, 0.0, 1.0, 3.0]).view(-1, 1, 1, 1)

    def toned(self, *colour):
        x = torch.tensor(colour).view(1, 3, 1, 1)
        return Exposure.tone(x, self.gains)[:, :, 0, 0]

    @pytest.mark.parametrize("level", [-0.1, 0.2, 0.7, 1.0, 1.2])
    def test_grey_goes_by_the_curve(self, level):
        x = torch.full((1, 3, 1, 1), level)
        torch.testing.assert_close(Exposure.tone(x, self.gains), Exposure.curve(x, self.gains))

    def test_what_is_dark_goes_by_the_curve(self):
        x = torch.rand(1, 3, 8, 8) * 0.5
        torch.testing.assert_close(Exposure.tone(x, self.gains), Exposure.curve(x, self.gains))

    def test_an_orange_lamp_stays_orange(self):
        lamp = torch.tensor([1.0, 0.5, 0.1]).view(1, 3, 1, 1)
        (red, green, blue), alone = (
            self.toned(1.0, 0.5, 0.1)[3],
            Exposure.curve(lamp, self.gains)[3],
        )
        assert red == 1
        assert alone[1] > 0.95  # by the curve alone it is yellow
        assert 0.5 < green < 0.65
        assert 0.1 < blue < 0.15

    def test_no_gain_changes_nothing(self):
        x = noise(1, 3, 5, 5)
        assert torch.equal(Exposure.tone(x, torch.zeros(1, 1, 1, 1)), x)

    def test_the_greatest_channel_goes_by_the_curve_and_all_rise_with_the_gain(self):
        x = torch.rand(1, 3, 9, 9)
        toned, alone = Exposure.tone(x, self.gains), Exposure.curve(x, self.gains)
        torch.testing.assert_close(toned.amax(dim=1), alone.amax(dim=1))
        assert (toned.diff(dim=0) >= 0).all()


@pytest.fixture(scope="module")
def block():
    torch.manual_seed(0)
    return Exposure(width=4).eval().requires_grad_(False)


class TestExposure:
    @pytest.mark.parametrize("size", [(1, 1), (5, 90), (48, 48), (120, 61)])
    def test_the_thumbnail(self, block, size):
        whole = noise(2, 3, *size).to(torch.bfloat16)
        thumbnail = block.summarise(whole)
        assert thumbnail.shape == (2, 3, 48, 48)
        assert thumbnail.dtype == torch.float32
        if size == (48, 48):
            assert torch.equal(thumbnail, whole.float())

    @pytest.mark.parametrize("name", ["mfnn", "mfnn-lite"])
    def test_black_stays_black(self, name):
        picture = torch.zeros(1, 3, 48, 64)
        assert float(enhancekit.load(name, device="cpu").enhance(picture).mean()) < 1 / 255

    @pytest.mark.parametrize("wanted", [0.05, 0.2, 0.45, 0.7, 0.95])
    def test_solve_reaches_the_wanted_mean(self, block, wanted):
        scale = torch.tensor([0.05, 0.3, 1.0]).view(3, 1, 1, 1)
        thumbnail = torch.rand(3, 3, 48, 48) * scale
        log_gain = block.solve(thumbnail, torch.full((3,), wanted))
        assert log_gain.shape == (3, 1, 1, 1)
        means = block.curve(thumbnail, log_gain).mean(dim=(1, 2, 3))
        reachable = (log_gain.flatten() > -2.99) & (log_gain.flatten() < block.max_log_gain - 0.01)
        assert reachable.sum() >= 2
        torch.testing.assert_close(
            means[reachable], torch.full_like(means[reachable], wanted), rtol=0, atol=1e-4
        )

    def test_solve_takes_each_picture_for_itself(self, block):
        thumbnail = torch.rand(2, 3, 48, 48) * 0.4
        wanted = torch.tensor([0.3, 0.6])
        both = block.solve(thumbnail, wanted)
        for i in range(2):
            alone = block.solve(thumbnail[i : i + 1], wanted[i : i + 1])
            torch.testing.assert_close(both[i : i + 1], alone)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_solve_stays_finite_where_nothing_can_be_reached(self, block, value):
        thumbnail = torch.full((1, 3, 48, 48), value)
        log_gain = block.solve(thumbnail, torch.tensor([0.5]))
        assert -3 <= float(log_gain) <= block.max_log_gain

    @pytest.mark.parametrize("factor", [0.0, 1.0, 1000.0, -1000.0])
    def test_predict_keeps_to_its_range(self, factor):
        torch.manual_seed(0)
        block = Exposure(width=4).eval()
        with torch.no_grad():
            for member in block.members:
                member.head[-1].weight.mul_(factor)
                member.head[-1].bias.mul_(factor)
        thumbnail = torch.rand(6, 3, 48, 48) * torch.linspace(0, 1, 6).view(-1, 1, 1, 1)
        predicted = block.predict(thumbnail)
        assert predicted.shape == (6,)
        assert ((predicted >= 0.05) & (predicted <= 0.95)).all()
        if factor == 0:
            torch.testing.assert_close(predicted, torch.full((6,), 0.45))

    def test_predict_looks_at_the_picture(self, block):
        predicted = block.predict(
            torch.rand(2, 3, 48, 48).pow(torch.tensor([1.0, 4]).view(2, 1, 1, 1))
        )
        assert predicted[0] != predicted[1]

    def test_predict_is_the_mean_of_its_members(self, block):
        thumbnail = torch.rand(2, 3, 48, 48) * 0.3
        alone = []
        for member in block.members:
            one = Exposure(width=4, members=1).eval()
            one.members[0].load_state_dict(member.state_dict())
            alone.append(one.predict(thumbnail))
        torch.testing.assert_close(block.predict(thumbnail), torch.stack(alone).mean(0))
        assert torch.stack(alone).std(0).min() > 1e-4

    def test_a_mirrored_picture_gets_the_same_brightness(self, block):
        thumbnail = torch.rand(2, 3, 48, 48) * torch.linspace(0, 0.5, 48)
        torch.testing.assert_close(block.predict(thumbnail.flip(3)), block.predict(thumbnail))

    def test_members_learn_each_for_itself(self):
        torch.manual_seed(0)
        block = Exposure(width=4, dropout=0).train()
        inputs, targets = torch.rand(4, 3, 96, 96) * 0.2, torch.rand(4, 3, 96, 96)
        torch.manual_seed(1)
        whole = block.loss(inputs, targets)
        parts = []
        for member in block.members:
            one = Exposure(width=4, dropout=0, members=1).train()
            one.members[0].load_state_dict(member.state_dict())
            torch.manual_seed(1)
            parts.append(one.loss(inputs, targets))
        torch.testing.assert_close(whole, torch.stack(parts).mean())

    def test_predict_is_computed_in_32_bits_under_autocast(self, block):
        thumbnail = torch.rand(2, 3, 48, 48)
        wanted = block.predict(thumbnail)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(block.predict(thumbnail), wanted)

    @pytest.mark.parametrize("name", ["noise", "black", "white", "one colour", "bright"])
    def test_the_loss_is_finite_and_teaches(self, name):
        torch.manual_seed(0)
        block = Exposure(width=4).train()
        inputs = {
            "noise": torch.rand(4, 3, 96, 96) * 0.2,
            "black": torch.zeros(4, 3, 96, 96),
            "white": torch.ones(4, 3, 96, 96),
            "one colour": torch.tensor([0.9, 0.0, 0.0]).view(1, 3, 1, 1).expand(4, 3, 96, 96),
            "bright": torch.rand(4, 3, 96, 96) * 0.1 + 0.9,
        }[name]
        loss = block.loss(inputs, torch.rand(4, 3, 96, 96))
        loss.backward()
        assert loss.shape == ()
        assert float(loss.detach()) > 0
        gradients = [p.grad for p in block.parameters()]
        assert all(torch.isfinite(g).all() for g in gradients)
        assert block.members[0].head[-1].bias.grad.abs() > 0

    def test_the_loss_falls(self):
        torch.manual_seed(0)
        block = Exposure(width=4, dropout=0.0).train()
        inputs = torch.rand(8, 3, 48, 48) * 0.3
        targets = torch.full((8, 3, 48, 48), 0.7)
        optimiser = torch.optim.Adam(block.parameters(), 3e-3)
        values = []
        for _ in range(40):
            optimiser.zero_grad()
            loss = block.loss(inputs, targets)
            loss.backward()
            optimiser.step()
            values.append(float(loss.detach()))
        assert sum(values[-5:]) < 0.3 * sum(values[:5])

    def test_forward_gives_the_tones_and_the_level(self, block):
        x = noise(2, 3, 6, 7)
        log_gain = torch.tensor([0.5, 3.0]).view(2, 1, 1, 1)
        seen = block(x, log_gain)
        assert seen.shape == (2, 3 + block.extra_channels, 6, 7)
        torch.testing.assert_close(seen[:, :3], block.tone(x, log_gain))
        level = (log_gain / 3 - 1).expand(2, 1, 6, 7)
        torch.testing.assert_close(seen[:, 3:], level)
        assert block(x.to(torch.bfloat16), log_gain).dtype == torch.float32


class TestNoiseLevel:
    def test_not_known_is_told_from_none(self):
        level, x = NoiseLevel(), torch.zeros(2, 3, 4, 4)
        unknown = level.context(x)
        assert unknown.shape == (2, 1, 1, 1)
        assert (unknown == 0).all()
        known = level.context(x, torch.tensor([0.0, 50]))
        torch.testing.assert_close(known.flatten(), torch.tensor([0.1, 1.1]))

    def test_forward_adds_a_channel(self):
        x = noise(2, 3, 6, 7).to(torch.bfloat16)
        seen = NoiseLevel()(x, torch.tensor([0.1, 0.7]).view(2, 1, 1, 1))
        assert seen.dtype == torch.float32
        assert torch.equal(seen[:, :3], x.float())
        for i, wanted in enumerate((0.1, 0.7)):
            torch.testing.assert_close(seen[i, 3], torch.full((6, 7), wanted))

    def test_in_training_half_of_the_crops_are_told_their_noise(self):
        torch.manual_seed(0)
        target = torch.rand(400, 3, 8, 8)
        sigma = torch.linspace(0, 50, 400).view(-1, 1, 1, 1) / 255
        batch = Batch(target + sigma, target, target, target)  # off by as much everywhere
        context = NoiseLevel().context_for(batch).flatten()
        told = context != 0
        assert 150 < told.sum() < 250
        wanted = (sigma.flatten() * 255 + 5) / 50
        torch.testing.assert_close(context[told], wanted[told], rtol=1e-3, atol=1e-3)

    def test_a_network_takes_sigma(self):
        torch.manual_seed(0)
        network = MFNN(4, (1, 1), pack=2, context="mfnn:noise_level").eval()
        torch.nn.init.normal_(network.head.final.weight)
        x = torch.rand(1, 3, 16, 16)
        with torch.no_grad():
            blind = network(x)
            assert torch.equal(blind, network(x, network.context(x)))
            strong, weak = (
                network(x, network.context(x, sigma=torch.tensor([s]))) for s in (50.0, 5.0)
            )
        assert not torch.equal(strong, weak)
        assert not torch.equal(blind, weak)

    def test_nothing_of_its_own_to_learn(self):
        network = MFNN(4, (1, 1), context="mfnn:noise_level")
        x = torch.rand(1, 3, 8, 8)
        assert float(network.context_loss(x, x)) == 0
