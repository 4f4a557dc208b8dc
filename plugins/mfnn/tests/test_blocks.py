"""Each block against the formulas of the network's description, written out once more."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from enhancekit_mfnn.blocks import GLSC, SCR, Exposure, HSCDecoder, HSCEncoder, Reconstruct
from torch import nn

import enhancekit
from enhancekit.errors import OptionError, PluginError

SIZES = [(1, 1), (2, 5), (9, 7)]
ROLES = {
    "hsc_encoder": "encoder",
    "scr": "residual",
    "glsc": "trunk",
    "hsc_decoder": "decoder",
    "reconstruct": "head",
    "exposure": "context",
}


def randomised(module, seed=0):
    """Random weights everywhere, batch statistics and zero-initialised layers included."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return module.eval()


def noise(*shape, seed=7):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conv(state, name, x):
    """A convolution at stride 1 that keeps the size, from a state dict alone."""
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def scr(state, x, residual, prefix=""):
    y = conv(state, f"{prefix}conv1", x)
    y = conv(state, f"{prefix}conv2", F.relu(torch.cat((x, y), dim=1)))
    return y + x if residual else y


class TestRegistered:
    @pytest.mark.parametrize(("name", "role"), ROLES.items())
    def test_under_its_role(self, name, role):
        entry = enhancekit.blocks.get(f"mfnn:{name}")
        assert entry.spec.role == role
        assert issubclass(entry.target(), nn.Module)

    def test_nothing_else(self):
        ours = {e.spec.name for e in enhancekit.blocks.list() if e.provider.plugin == "mfnn"}
        assert ours == set(ROLES)


class TestHSCEncoder:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize(("channels", "width"), [(3, 8), (4, 2)])
    def test_is_the_formula(self, size, channels, width):
        block = randomised(HSCEncoder(channels, width))
        state, x = block.state_dict(), noise(2, channels, *size)
        assert state["conv1.weight"].shape == (width, channels, 3, 3)
        assert state["conv2.weight"].shape == (width, width, 5, 5)
        torch.testing.assert_close(block(x), conv(state, "conv2", conv(state, "conv1", x)))

    def test_nothing_stands_between(self):
        block = randomised(HSCEncoder(3, 4))
        a, b = noise(1, 3, 8, 8), noise(1, 3, 8, 8, seed=8)
        offset = block(torch.zeros_like(a))  # linear up to its offset
        torch.testing.assert_close(
            block(2 * a - b) - offset,
            2 * (block(a) - offset) - (block(b) - offset),
            rtol=1e-4,
            atol=1e-4,
        )


class TestSCR:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("residual", [True, False])
    def test_is_the_formula(self, size, residual):
        block = randomised(SCR(4, residual))
        x = noise(2, 4, *size)
        before = x.clone()
        torch.testing.assert_close(block(x), scr(block.state_dict(), x, residual))
        assert torch.equal(x, before)
        assert block.conv2.weight.shape == (4, 8, 3, 3)

    def test_residual_is_the_default(self):
        block = randomised(SCR(4))
        plain = SCR(4, residual=False)
        plain.load_state_dict(block.state_dict())
        x = noise(1, 4, 5, 5)
        torch.testing.assert_close(block(x) - plain(x), x)


class TestGLSC:
    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize("residual", [True, False])
    def test_blocks_in_series_then_a_projection(self, count, residual):
        block = randomised(GLSC(4, 6, count, lambda channels: SCR(channels, residual)))
        state, x = block.state_dict(), noise(2, 4, 6, 7)
        y = x
        for i in range(count):
            y = scr(state, y, residual, f"blocks.{i}.")
        assert state["project.weight"].shape == (6, 4, 1, 1)
        torch.testing.assert_close(block(x), conv(state, "project", y))

    def test_shared_is_one_block_applied_again_and_again(self):
        block = randomised(GLSC(4, 6, 3, SCR, share_weights=True))
        state, x = block.state_dict(), noise(1, 4, 6, 7)
        assert {k.split(".")[1] for k in state if k.startswith("blocks.")} == {"0"}
        y = x
        for _ in range(3):
            y = scr(state, y, True, "blocks.0.")
        torch.testing.assert_close(block(x), conv(state, "project", y))

    @pytest.mark.parametrize("share_weights", [True, False])
    def test_without_blocks_only_the_projection_is_left(self, share_weights):
        block = randomised(GLSC(4, 6, 0, SCR, share_weights=share_weights))
        x = noise(1, 4, 6, 7)
        torch.testing.assert_close(block(x), conv(block.state_dict(), "project", x))
        assert block.halo == 0

    @pytest.mark.parametrize("share_weights", [True, False])
    def test_the_halo_adds_up(self, share_weights):
        assert GLSC(4, 6, 5, SCR, share_weights=share_weights).halo == 5 * SCR.halo

    def test_an_unknown_halo_stays_unknown(self):
        def plain(channels):
            return nn.Conv2d(channels, channels, 3, padding=1)

        assert GLSC(4, 6, 2, plain).halo is None

    @pytest.mark.parametrize("share_weights", [True, False])
    def test_checkpointing_gives_the_same_gradients(self, share_weights):
        gradients = []
        for checkpointing in (False, True):
            block = GLSC(4, 6, 3, SCR, share_weights=share_weights, checkpointing=checkpointing)
            randomised(block).train()
            x = noise(1, 4, 6, 7).requires_grad_()
            block(x).square().sum().backward()
            gradients.append([x.grad, *(p.grad for p in block.parameters())])
        for plain, recomputed in zip(*gradients, strict=True):
            assert plain.abs().max() > 0
            torch.testing.assert_close(recomputed, plain)

    def test_checkpointing_recomputes_in_training_only(self):
        calls = []

        class Counting(SCR):
            def forward(self, x):
                calls.append(x.requires_grad)
                return super().forward(x)

        block = GLSC(4, 6, 2, Counting, checkpointing=True)
        x = noise(1, 4, 6, 7).requires_grad_()
        block.train()(x).sum().backward()
        assert len(calls) == 4
        calls.clear()
        block.eval()(x).sum().backward()
        assert len(calls) == 2

    def test_a_block_that_changes_the_shape_is_blamed(self):
        def shrinking(channels):
            made = nn.Conv2d(channels, channels, 3)
            made.enhancekit_origin = "block acme:shrinking (acme 1.0)"
            return made

        with pytest.raises(PluginError, match=r"acme:shrinking \(acme 1\.0\) gave .*keeps"):
            GLSC(4, 6, 1, shrinking)(noise(1, 4, 6, 7))


class TestHSCDecoder:
    @pytest.mark.parametrize("size", SIZES)
    def test_is_the_formula(self, size):
        block = randomised(HSCDecoder(8, 4))
        state, x = block.state_dict(), noise(2, 8, *size)
        assert state["conv.weight"].shape == (4, 8, 5, 5)
        torch.testing.assert_close(block(x), conv(state, "conv", x))


class TestReconstruct:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("norm", [True, False])
    @pytest.mark.parametrize("dropout", [0.0, 0.5])
    @pytest.mark.parametrize("output", ["sigmoid", "residual"])
    def test_is_the_formula(self, size, norm, dropout, output):
        width = 4
        block = randomised(Reconstruct(3 * width, width, norm, dropout, output))
        state, x = block.state_dict(), noise(2, 3 * width, *size)

        def tail(name, y):
            if norm:
                keys = ("running_mean", "running_var", "weight", "bias")
                y = F.batch_norm(y, *(state[f"{name}.0.{key}"] for key in keys))
            return F.leaky_relu(y, 0.1) if output == "residual" else F.relu(y)

        y = tail("tail1", conv(state, "conv1", x))
        y = tail("tail2", conv(state, "conv2", y))
        y = conv(state, "conv3", torch.cat((y, x), dim=1))
        y = conv(state, "final", tail("tail4", conv(state, "conv4", y)))
        torch.testing.assert_close(block(x), y.sigmoid() if output == "sigmoid" else y)

    def test_channels_are_those_printed(self):
        block = Reconstruct(384, 128)
        shapes = [
            tuple(getattr(block, name).weight.shape)
            for name in ("conv1", "conv2", "conv3", "conv4", "final")
        ]
        assert shapes == [
            (256, 384, 3, 3),
            (128, 256, 3, 3),
            (128, 512, 3, 3),
            (64, 128, 3, 3),
            (3, 64, 1, 1),
        ]

    @pytest.mark.parametrize("out_channels", [1, 12])
    def test_as_many_channels_out_as_asked_for(self, out_channels):
        block = randomised(Reconstruct(12, 4, output="residual", out_channels=out_channels))
        state, x = block.state_dict(), noise(2, 12, 5, 6)
        assert block(x).shape == (2, out_channels, 5, 6)
        assert state["final.weight"].shape == (out_channels, 2, 1, 1)

    def test_norms_and_dropouts_where_the_report_declares_them(self):
        block = Reconstruct(12, 4, norm=True, dropout=0.5)
        kinds = {
            name: [type(layer) for layer in getattr(block, name)]
            for name in ("tail1", "tail2", "tail4")
        }
        wanted = [nn.BatchNorm2d, nn.ReLU, nn.Dropout2d]
        assert kinds == dict.fromkeys(("tail1", "tail2", "tail4"), wanted)
        assert [block.tail1[0].num_features, block.tail4[0].num_features] == [8, 2]
        assert {m.p for m in block.modules() if isinstance(m, nn.Dropout2d)} == {0.5}
        plain = Reconstruct(12, 4)
        assert not any(isinstance(m, (nn.BatchNorm2d, nn.Dropout2d)) for m in plain.modules())

    def test_dropout_acts_in_training_only(self):
        block = randomised(Reconstruct(12, 4, dropout=0.5))
        x = noise(1, 12, 6, 6)
        assert torch.equal(block(x), block(x))
        block.train()
        torch.manual_seed(0)
        with torch.no_grad():
            assert len({float(block(x).sum()) for _ in range(8)}) > 1

    def test_a_residual_starts_at_zero(self):
        block = Reconstruct(12, 4, output="residual")
        assert block(noise(1, 12, 6, 6)).any()
        block.keep_scale()
        assert not block(noise(1, 12, 6, 6)).any()

    @pytest.mark.parametrize(
        "block",
        [HSCEncoder(3, 32), SCR(32), HSCDecoder(64, 32), GLSC(32, 64, 1, SCR)],
        ids=lambda b: type(b).__name__,
    )
    def test_scale_is_kept(self, block):
        for module in block.modules():
            if hasattr(module, "keep_scale"):
                module.keep_scale()
        channels = next(p for p in block.parameters() if p.ndim == 4).shape[1]
        x = torch.randn(1, channels, 48, 48, generator=torch.Generator().manual_seed(0))
        inner = block(x)[..., 8:-8, 8:-8]
        assert 0.6 < float(inner.detach().std()) < 1.6

    @pytest.mark.parametrize("output", ["tanh", "", None])
    def test_other_outputs(self, output):
        with pytest.raises(OptionError, match="'sigmoid' or 'residual'"):
            Reconstruct(12, 4, output=output)


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
            block.head[-1].weight.mul_(factor)
            block.head[-1].bias.mul_(factor)
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
        assert block.head[-1].bias.grad.abs() > 0

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

    def test_forward_gives_the_curve_and_the_level(self, block):
        x = noise(2, 3, 6, 7)
        log_gain = torch.tensor([0.5, 3.0]).view(2, 1, 1, 1)
        seen = block(x, log_gain)
        assert seen.shape == (2, 3 + block.extra_channels, 6, 7)
        torch.testing.assert_close(seen[:, :3], block.curve(x, log_gain))
        level = (log_gain / 3 - 1).expand(2, 1, 6, 7)
        torch.testing.assert_close(seen[:, 3:], level)
        assert block(x.to(torch.bfloat16), log_gain).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (lambda: HSCEncoder(3, 4), 3),
        (lambda: SCR(4), 4),
        (lambda: GLSC(4, 6, 2, SCR), 4),
        (lambda: HSCDecoder(4, 2), 4),
        (lambda: Reconstruct(12, 4), 12),
    ],
    ids=["HSCEncoder", "SCR", "GLSC", "HSCDecoder", "Reconstruct"],
)
def test_every_halo_is_exact(make, channels):
    """The furthest pixel that an input pixel changes lies exactly `halo` away."""
    block = randomised(make()).double()
    side = 4 * block.halo + 1
    middle = side // 2
    furthest = 0
    for seed, sign in itertools.product(range(3), (1, -1)):
        x = noise(1, channels, side, side, seed=seed).double()
        changed = x.clone()
        changed[..., middle, middle] += 3 * sign
        moved = (block(x) != block(changed)).any(dim=1)[0].nonzero()
        furthest = max(furthest, int((moved - middle).abs().max()))
    assert furthest == block.halo
