"""Each block against the formulas of the network's description, written out once more."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from enhancekit_mfnn.blocks import GLSC, SCR, HSCDecoder, HSCEncoder, Reconstruct
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
    "noise_level": "context",
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
    @pytest.mark.parametrize("expansion", [1 / 3, 1, 3])
    def test_is_the_formula(self, size, residual, expansion):
        block = randomised(SCR(4, residual, expansion=expansion))
        x = noise(2, 4, *size)
        before = x.clone()
        torch.testing.assert_close(block(x), scr(block.state_dict(), x, residual))
        assert torch.equal(x, before)
        assert block.conv2.weight.shape == (4, 4 + round(4 * expansion), 3, 3)

    def test_without_units_there_is_no_block(self):
        with pytest.raises(OptionError, match="expansion=0 of 4 channels"):
            SCR(4, expansion=0)

    @pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
    @pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
    @pytest.mark.parametrize("expansion", [0.5, 1, 2])
    def test_without_gradients_it_gives_the_same(self, layout, half, expansion):
        block = randomised(SCR(4, expansion=expansion)).to(memory_format=layout)
        x = noise(2, 4, 6, 7).contiguous(memory_format=layout) - 0.5
        x[0, 0, 0, 0] = torch.nan
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            wanted = block(x).detach()
            with torch.no_grad():
                found = block(x)
        assert found.dtype == wanted.dtype
        assert found.is_contiguous(memory_format=layout)
        assert found.isnan().any()
        torch.testing.assert_close(found, wanted, equal_nan=True)

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

    def test_another_type_is_refused_by_the_blocks_name(self):
        class Half(nn.Identity):
            enhancekit_origin = "block acme:half (acme 1.0)"

            def forward(self, x):
                return x.half()

        block = GLSC(4, 6, 1, lambda channels: Half())
        with pytest.raises(
            PluginError, match=r"^block acme:half .* gave torch.float16 for torch.fl"
        ):
            block(noise(1, 4, 5, 5))

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
