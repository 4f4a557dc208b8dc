"""The network put together, its variants, and what the report says about them."""

from __future__ import annotations

import inspect
import re
from importlib import resources

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from enhancekit_mfnn.blocks import GLSC, HSCDecoder
from enhancekit_mfnn.network import MFNN
from enhancekit_mfnn.variants import VARIANTS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import enhancekit
from enhancekit.errors import OptionError, PluginError, UnknownNameError
from enhancekit.plugins import host
from enhancekit.training.batches import Batch
from enhancekit.training.recipe import read_recipe
from enhancekit.weights import normalised

NAMES = [spec.name for spec in VARIANTS]
REPORT = {"block_options": {"residual": False}, "share_weights": True, "output": "sigmoid"}
CONFIGS = {
    "one scale": {"width": 4, "counts": (2,)},
    "two scales": {"width": 4, "counts": (1, 2)},
    "three scales": {"width": 4, "counts": (1, 1, 2)},
    "no blocks at one scale": {"width": 4, "counts": (0, 1)},
    "literal report": {"width": 4, "counts": (1, 2), **REPORT},
    "norm": {"width": 4, "counts": (1, 1), "norm": True, "output": "sigmoid"},
    "dropout": {"width": 4, "counts": (1, 1), "dropout": 0.5},
    "exposure": {"width": 4, "counts": (1, 1), "context": "mfnn:exposure"},
    "packed": {"width": 4, "counts": (1, 1), "pack": 2},
    "packed sigmoid": {"width": 4, "counts": (1,), "pack": 4, "output": "sigmoid"},
    "packed exposure": {"width": 4, "counts": (1, 1), "pack": 2, "context": "mfnn:exposure"},
    "noise level": {"width": 4, "counts": (1, 1), "pack": 2, "context": "mfnn:noise_level"},
    "fine most": {"width": 4, "counts": (6, 1, 1)},
    "fine alone": {"width": 4, "counts": (3, 0)},
    "packed, fine most": {"width": 4, "counts": (4, 1), "pack": 2},
    "narrow decoders": {"width": 4, "counts": (1, 1, 1), "decoder_width": 3},
    "narrow decoder, one scale": {"width": 4, "counts": (1,), "decoder_width": 3, "pack": 2},
    "twice": {"width": 4, "counts": (1, 1), "scale": 2},
    "packed and thrice": {"width": 4, "counts": (1,), "pack": 2, "scale": 3},
    "twice, back": {"width": 4, "counts": (1, 1), "scale": 2, "back_projection": True},
    "thrice, back": {"width": 2, "counts": (0,), "scale": 3, "back_projection": True},
}


def randomised(network, seed=0):
    torch.manual_seed(seed)
    for name, parameter in network.named_parameters():
        if not name.startswith("context_block"):
            nn.init.normal_(parameter, std=0.2)
    return network


def noise(*shape, seed=7):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def taken_apart(x, side):
    """Squares of pixels to channels, row by row within a square."""
    n, channels, height, width = x.shape
    squares = x.reshape(n, channels, height // side, side, width // side, side)
    return squares.permute(0, 1, 3, 5, 2, 4).reshape(n, -1, height // side, width // side)


def put_together(x, side):
    n, channels, height, width = x.shape
    squares = x.reshape(n, channels // side**2, side, side, height, width)
    return squares.permute(0, 1, 4, 2, 5, 3).reshape(n, -1, height * side, width * side)


def cubic(x, scale):
    """Enlarge by the cubic kernel with a = -0.75, edges repeated."""

    def kernel(t):
        t = t.abs()
        near = 1.25 * t**3 - 2.25 * t**2 + 1
        far = -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
        return torch.where(t <= 1, near, torch.where(t < 2, far, 0.0))

    def weights(length):
        places = (torch.arange(length * scale) + 0.5) / scale - 0.5
        matrix = torch.zeros(length * scale, length)
        for tap in range(-2, length + 2):
            matrix[:, min(max(tap, 0), length - 1)] += kernel(places - tap)
        return matrix

    return weights(x.shape[2]) @ x @ weights(x.shape[3]).T


def conv(state, name, x):
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def described(state, x, counts, *, residual=True, shared=False, slope=0.0):
    def rectify(t):
        return F.leaky_relu(t, slope)

    """The description's formulas from a state dict, without the package's code.

    Gives the head's output before a sigmoid, and without the picture added.
    """

    def encode(k, picture):
        return conv(state, f"encoders.{k}.conv2", conv(state, f"encoders.{k}.conv1", picture))

    def trunk(k, y):
        for i in range(counts[k]):
            name = f"trunks.{k}.blocks.{0 if shared else i}"
            inner = torch.cat((y, conv(state, f"{name}.conv1", y)), dim=1)
            new = conv(state, f"{name}.conv2", F.relu(inner))
            y = y + new if residual else new
        return conv(state, f"trunks.{k}.project", y)

    def down(y, scale):
        return F.interpolate(y, scale_factor=1 / scale, mode="bilinear", antialias=True)

    def up(y):
        return F.interpolate(y, scale_factor=2.0, mode="bilinear")

    e = [encode(k, x if k == 0 else down(x, 2**k)) for k in range(len(counts))]
    m = [e[0]]
    for k in range(1, len(counts)):
        m.append(torch.cat((e[k], F.avg_pool2d(m[-1], 2)), dim=1))
    g = [trunk(k, m[k]) for k in range(len(counts))]
    if len(counts) == 1:
        d = conv(state, "decoders.0.conv", g[0])
    else:
        d = g[-1]
        for k in reversed(range(len(counts) - 1)):
            d = conv(state, f"decoders.{k}.conv", torch.cat((g[k], up(d)), dim=1))
    y = torch.cat((d, e[0]), dim=1)
    z = rectify(conv(state, "head.conv1", y))
    z = rectify(conv(state, "head.conv2", z))
    z = conv(state, "head.conv3", torch.cat((z, y), dim=1))
    return conv(state, "head.final", rectify(conv(state, "head.conv4", z)))


class Sevens(HSCDecoder):
    """Derived from ours, with a forward of its own."""

    def forward(self, x):
        return super().forward(x) * 0 + 7


class Doubled(GLSC):
    """Derived from ours, with a forward of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


class TestDerivedBlocks:
    @pytest.mark.parametrize("counts", [(1, 1), (1, 1, 1)])
    @pytest.mark.parametrize(
        ("places", "kind", "stock"),
        [("decoders", Sevens, HSCDecoder), ("trunks", Doubled, GLSC)],
    )
    def test_their_forward_is_what_is_called(self, counts, places, kind, stock):
        net = MFNN(width=4, counts=counts).eval()
        torch.nn.init.normal_(net.head.final.weight)
        x = torch.rand(1, 3, 16, 24)
        with torch.inference_mode():
            before = net(x)
            for part in getattr(net, places):
                assert type(part) is stock
                part.__class__ = kind
            calls = []
            for part in getattr(net, places):
                part.register_forward_hook(lambda *_: calls.append(1))
            after = net(x)
        assert len(calls) == len(getattr(net, places))
        assert not torch.equal(before, after)


class TestLayout:
    @pytest.mark.parametrize("config", ["three scales", "exposure", "packed exposure"])
    @pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
    def test_the_first_layers_get_that_of_the_picture(self, config, layout):
        net = MFNN(**CONFIGS[config]).eval()
        seen = []
        for encoder in net.encoders:
            encoder.register_forward_pre_hook(
                lambda _, given: seen.append(given[0].is_contiguous(memory_format=layout))
            )
        x = torch.rand(1, 3, 32, 48).contiguous(memory_format=layout)
        with torch.inference_mode():
            net(x)
        assert seen == [True] * len(net.encoders)


@pytest.mark.parametrize("output", ["residual", "sigmoid"])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_an_overflow_is_not_taken_for_black_or_white(value, output):
    net = MFNN(width=4, counts=(1, 1), output=output).eval()
    with torch.no_grad():
        net.head.final.bias[1] = value
        y = net(torch.rand(1, 3, 8, 8))
    assert y[:, 1].isnan().all()
    assert y[:, [0, 2]].isfinite().all()


class TestFormulas:
    @pytest.mark.parametrize("counts", [(2,), (1, 2), (2, 1, 3)], ids=str)
    @pytest.mark.parametrize("output", ["sigmoid", "residual"])
    def test_the_network_is_the_description(self, counts, output):
        network = randomised(MFNN(4, counts, output=output)).eval()
        x = noise(2, 3, 12, 20)
        z = described(network.state_dict(), x, counts, slope=0.1 if output == "residual" else 0.0)
        wanted = z.sigmoid() if output == "sigmoid" else (x + 0.1 * z).clamp(0, 1)
        assert float(wanted.std().detach()) > 0.03
        torch.testing.assert_close(network(x), wanted, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("pack", [2, 3])
    @pytest.mark.parametrize("output", ["sigmoid", "residual"])
    def test_packed_it_is_the_description_of_squares(self, pack, output):
        network = randomised(MFNN(4, (0, 1), pack=pack, output=output)).eval()
        x = noise(2, 3, 6 * pack, 10 * pack)
        slope = 0.1 if output == "residual" else 0.0
        z = described(network.state_dict(), taken_apart(x, pack), (0, 1), slope=slope)
        y = put_together(z, pack)
        wanted = y.sigmoid() if output == "sigmoid" else (x + 0.1 * y).clamp(0, 1)
        assert float(wanted.std().detach()) > 0.03
        torch.testing.assert_close(network(x), wanted, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("scale", "pack"), [(2, 1), (3, 1), (2, 2)])
    def test_enlarged_it_is_added_to_cubic_interpolation(self, scale, pack):
        network = randomised(MFNN(4, (0, 1), scale=scale, pack=pack)).eval()
        x = noise(2, 3, 6 * pack, 10 * pack)
        z = described(network.state_dict(), taken_apart(x, pack), (0, 1), slope=0.1)
        wanted = (cubic(x, scale) + 0.1 * put_together(z, pack * scale)).clamp(0, 1)
        torch.testing.assert_close(network(x), wanted, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("scale", "pack"), [(2, 1), (3, 1), (2, 2)])
    def test_back_projection_adds_what_is_missing_of_the_picture(self, scale, pack):
        config = {"width": 4, "counts": (0, 1), "scale": scale, "pack": pack}
        plain = randomised(MFNN(**config)).train()  # nothing is clipped in training
        back = randomised(MFNN(**config, back_projection=True)).train()
        x = noise(2, 3, 6 * pack, 10 * pack)
        y = plain(x)
        size = x.shape[2:]
        shrunk = F.interpolate(y, size=size, mode="bicubic", antialias=True)
        wanted = y + cubic(x - shrunk, scale)
        assert (wanted - y).abs().max() > 0.01
        torch.testing.assert_close(back(x), wanted, rtol=1e-4, atol=1e-5)
        again = F.interpolate(back(x), size=size, mode="bicubic", antialias=True)
        assert (again - x).square().mean() < 0.3 * (shrunk - x).square().mean()

    @pytest.mark.parametrize("scale", [2, 3])
    def test_untrained_it_gives_cubic_interpolation(self, scale):
        x = noise(2, 3, 8, 12)
        wanted = cubic(x, scale).clamp(0, 1)
        found = MFNN(2, (0, 1), scale=scale).eval()(x)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)

    def test_untrained_and_packed_it_gives_the_picture_back(self):
        x = noise(2, 3, 8, 12)
        assert torch.equal(MFNN(2, (0, 1), pack=2).eval()(x), x)

    def test_the_literal_snippets(self):
        network = randomised(MFNN(4, (1, 2), **REPORT)).eval()
        x = noise(1, 3, 12, 20)
        z = described(network.state_dict(), x, (1, 2), residual=False, shared=True)
        torch.testing.assert_close(network(x), z.sigmoid(), rtol=1e-4, atol=1e-5)
        other = described(network.state_dict(), x, (1, 2), residual=True, shared=True)
        assert (z - other).abs().max() > 1e-3

    def test_with_exposure_the_curved_picture_is_seen(self):
        network = randomised(MFNN(4, (1, 1), context="mfnn:exposure")).eval()
        x, log_gain = noise(1, 3, 12, 20) * 0.2, torch.full((1, 1, 1, 1), 1.5)
        seen = network.context_block(x, log_gain)
        assert seen.shape[1] == 4
        z = described(network.state_dict(), seen, (1, 1), slope=0.1)
        wanted = (seen[:, :3] + 0.1 * z).clamp(0, 1)
        torch.testing.assert_close(network(x, log_gain), wanted, rtol=1e-4, atol=1e-5)

    def test_training_keeps_what_lies_outside(self):
        network = randomised(MFNN(4, (1, 1)))
        nn.init.constant_(network.head.final.bias, 20.0)
        x = noise(1, 3, 8, 8)
        assert network.train()(x).min() > 1
        assert network.eval()(x).max() <= 1

    def test_untrained_it_gives_the_picture_back(self):
        x = noise(2, 3, 8, 12)
        assert torch.equal(MFNN(4, (1, 1)).eval()(x), x)


class TestSizes:
    def build(self, width, counts, **options):
        with torch.device("meta"):
            return MFNN(width, counts, output="sigmoid", **options)

    def parameters(self, network):
        return sum(p.numel() for p in network.parameters())

    def work(self, network, side=16):
        """Multiply-adds an input pixel, by torch's own counter, which counts both separately."""
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network.eval()(torch.zeros(1, 3, side, side, device="meta"))
        return counter.get_total_flops() / 2 / side**2

    def test_the_full_network_has_57_6_million_parameters(self):
        count = self.parameters(self.build(128, (2, 4, 10)))
        assert count == pytest.approx(57.6e6, rel=0.01)

    def test_and_11_7_million_multiply_adds_a_pixel(self):
        assert self.work(self.build(128, (2, 4, 10))) == pytest.approx(11.7e6, rel=0.02)

    def test_a_width_of_16_has_a_64th(self):
        small = self.build(16, (2, 4, 10))
        assert self.parameters(small) == pytest.approx(0.9e6, rel=0.02)
        assert self.work(small) == pytest.approx(0.18e6, rel=0.04)

    def test_sharing_leaves_one_block_a_scale(self):
        network = self.build(4, (2, 4, 10), share_weights=True)
        assert [len(trunk.blocks) for trunk in network.trunks] == [1, 1, 1]
        assert [trunk.count for trunk in network.trunks] == [2, 4, 10]
        kept = {k for k in network.state_dict() if ".blocks." in k}
        assert {k.split(".")[3] for k in kept} == {"0"}
        whole = self.build(4, (2, 4, 10))
        assert [len(trunk.blocks) for trunk in whole.trunks] == [2, 4, 10]
        assert self.parameters(network) < self.parameters(whole)
        assert self.work(network) == self.work(whole)

    @pytest.mark.parametrize(("counts", "multiple"), [((2,), 1), ((1, 1), 2), ((1, 1, 1), 4)])
    def test_size_requirements(self, counts, multiple):
        needs = self.build(4, counts).size_requirements
        assert needs.multiple_of == multiple
        assert needs.halo > 0

    @pytest.mark.parametrize(
        ("counts", "pack", "multiple"), [((2,), 2, 2), ((1, 1), 3, 6), ((1, 1, 1), 2, 8)]
    )
    def test_size_requirements_of_packed_ones(self, counts, pack, multiple):
        needs = self.build(4, counts, pack=pack).size_requirements
        plain = self.build(4, counts).size_requirements
        assert needs.multiple_of == needs.minimum == multiple
        # a square of pixels sees as many squares as a pixel saw pixels
        assert needs.halo == pack * plain.halo + pack - 1
        assert needs.scale == plain.scale == 1

    def test_the_scale_is_told(self):
        with torch.device("meta"):
            network = MFNN(4, (1, 1), scale=3)
        assert network.size_requirements.scale == 3
        assert network.size_requirements.multiple_of == 2

    def test_packing_saves_most_of_the_work(self):
        plain, packed = (self.work(self.build(16, (2, 2), pack=p)) for p in (1, 2))
        assert plain / 4 < packed < plain / 3

    def test_the_halo_grows_with_every_block(self):
        halos = [self.build(4, (1, n)).size_requirements.halo for n in (1, 2, 3)]
        assert halos[2] - halos[1] == halos[1] - halos[0] == 4  # two pixels, at half the size


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
class TestEveryConfig:
    def test_keeps_the_size(self, config):
        network = randomised(MFNN(**config)).eval()
        for size in ((4, 4), (12, 8), (16, 20)):
            x = noise(2, 3, *size)
            y = network(x)
            assert y.shape == (2, 3, *(side * network.scale for side in size))
            assert torch.isfinite(y).all()
            assert y.min() >= 0
            assert y.max() <= 1

    def test_a_tile_without_its_margins_is_a_part_of_the_whole(self, config):
        network = randomised(MFNN(**config)).eval()
        unit, scale = network.size_requirements.multiple_of, network.scale
        far = -(-network.size_requirements.halo // unit) * unit
        whole = noise(1, 3, far + 3 * unit, 2 * far + 2 * unit)
        context = network.context(whole)
        # its own are two units, at the upper edge of the picture
        own = network(whole[:, :, : far + 2 * unit], context, (0, far, far, far))
        inside = slice(far * scale, (far + 2 * unit) * scale)
        wanted = network(whole, context)[:, :, : 2 * unit * scale, inside]
        torch.testing.assert_close(own, wanted, rtol=0, atol=1e-4)

    def test_gradient_reaches_every_parameter(self, config):
        network = randomised(MFNN(**{**config, "dropout": 0.0})).train()
        side = 16 * network.scale
        inputs, targets = noise(2, 3, 16, 16) * 0.5, noise(2, 3, side, side, seed=8)
        context = network.context_for(Batch(inputs, targets, inputs, targets))
        loss = (network(inputs, context) - targets).square().mean()
        (loss + network.context_loss(inputs, targets)).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name

    def test_safetensors_round_trip(self, config):
        network = randomised(MFNN(**config)).eval()
        other = randomised(MFNN(**config), seed=5).eval()
        x = noise(1, 3, 12, 8)
        assert not torch.equal(other(x), network(x))
        stored = safetensors.torch.save(network.state_dict())
        other.load_state_dict(safetensors.torch.load(stored))
        assert torch.equal(other(x), network(x))

    def test_checkpointing_gives_the_same_gradients(self, config):
        gradients = []
        for checkpointing in (False, True):
            torch.manual_seed(1)
            network = randomised(MFNN(**{**config, "checkpointing": checkpointing})).train()
            torch.manual_seed(3)
            network(noise(2, 3, 8, 8)).square().sum().backward()
            gradients.append([p.grad for p in network.parameters()])
        for plain, recomputed in zip(*gradients, strict=True):
            if plain is None:  # the brightness is learned by its own loss
                assert recomputed is None
                continue
            torch.testing.assert_close(recomputed, plain)

    def test_the_config_survives_json(self, config):
        again = MFNN(**normalised(config))
        assert again.state_dict().keys() == MFNN(**config).state_dict().keys()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return MFNN(4, (1, 1), context="mfnn:exposure").eval().requires_grad_(False)


class TestContext:
    def test_a_local_network_has_none(self):
        network = MFNN(4, (1, 1))
        x = noise(1, 3, 8, 8)
        assert network.context(x) is None
        assert network.context_for(Batch(x, x, x, x)) is None
        assert float(network.context_loss(x, x)) == 0

    def test_it_is_taken_from_the_whole_when_not_given(self, network):
        x = noise(2, 3, 16, 16) * 0.3
        assert torch.equal(network(x), network(x, network.context(x)))

    def test_a_wanted_exposure_is_reached(self, network):
        x = noise(2, 3, 48, 48) * 0.3
        y = network(x, network.context(x, exposure=torch.tensor([0.4, 0.6])))
        torch.testing.assert_close(
            y.mean(dim=(1, 2, 3)), torch.tensor([0.4, 0.6]), rtol=0, atol=1e-4
        )

    def test_for_training_it_is_that_of_the_references(self, network):
        inputs, targets = noise(2, 3, 48, 48) * 0.1, noise(2, 3, 48, 48, seed=9) * 0.8
        crops = inputs[:, :, :4, :4], targets[:, :, :4, :4]
        y = network(inputs, network.context_for(Batch(*crops, inputs, targets)))
        torch.testing.assert_close(
            y.mean(dim=(1, 2, 3)), targets.mean(dim=(1, 2, 3)), rtol=0, atol=1e-4
        )


class TestMargins:
    def test_what_is_fine_is_not_computed_for_them(self):
        network = MFNN(8, (4, 4, 4)).eval()
        halo = network.size_requirements.halo
        margin = -(-halo // 4) * 4
        x = torch.zeros(1, 3, 2 * margin + 64, 2 * margin + 64, device="meta")
        work = []
        for margins in ((0,) * 4, (margin,) * 4):
            with FlopCounterMode(display=False) as counter:
                network.to("meta")(x, None, margins)
            work.append(counter.get_total_flops())
        assert work[1] < 0.6 * work[0]


class TestPrecision:
    @pytest.mark.parametrize("options", [{"pack": 2}, {"scale": 2}], ids=str)
    def test_the_picture_itself_is_not_rounded_under_autocast(self, options):
        network = MFNN(2, (0, 1), **options).eval()
        x = noise(1, 3, 8, 12)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            found = network(x)
        assert found.dtype == torch.float32
        wanted = cubic(x, 2).clamp(0, 1) if "scale" in options else x
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


class TestErrors:
    @pytest.mark.parametrize("width", [5, 1, 0, -2])
    def test_width(self, width):
        with pytest.raises(OptionError, match=f"even number of at least 2, not {width}"):
            MFNN(width, (1, 1))

    @pytest.mark.parametrize("counts", [(), (1, 1, 1, 1), (1, -1)])
    def test_counts(self, counts):
        with pytest.raises(OptionError, match="1 to 3 numbers of at least 0"):
            MFNN(4, counts)

    def test_decoder_width(self):
        with pytest.raises(OptionError, match="decoder_width is at least 0, not -1"):
            MFNN(4, (1, 1), decoder_width=-1)

    @pytest.mark.parametrize(
        ("options", "said"),
        [({"pack": 0}, "not 0 and 1"), ({"scale": 0}, "1 and 0"), ({"pack": -2}, "not -2 and 1")],
    )
    def test_pack_and_scale(self, options, said):
        with pytest.raises(OptionError, match=f"pack and scale are at least 1, .*{said}"):
            MFNN(4, (1, 1), **options)

    def test_a_sigmoid_has_no_picture_to_enlarge(self):
        with pytest.raises(OptionError, match="scale=2 needs output='residual', not 'sigmoid'"):
            MFNN(4, (1, 1), scale=2, output="sigmoid")

    def test_back_projection_needs_something_enlarged(self):
        with pytest.raises(OptionError, match="back_projection needs a scale above 1"):
            MFNN(4, (1, 1), back_projection=True)

    def test_sizes_that_squares_do_not_fit_are_padded(self):
        enhancer = enhancekit.load("mfnn-denoise", pretrained=False, width=2, counts=(0, 1, 1))
        x = noise(3, 9, 11)
        torch.testing.assert_close(enhancer.enhance(x), x)

    @pytest.mark.parametrize(
        ("place", "needed"),
        [
            ("block", "residual"),
            ("trunk", "trunk"),
            ("encoder", "encoder"),
            ("decoder", "decoder"),
            ("head", "head"),
            ("context", "context"),
        ],
    )
    def test_a_block_of_another_role(self, place, needed):
        wrong = "mfnn:scr" if place != "block" else "mfnn:glsc"
        with pytest.raises(OptionError, match=f"MFNN needs '{needed}' there") as caught:
            MFNN(4, (1, 1), **{place: wrong})
        fitting = next(e for e in host().blocks.list() if e.spec.role == needed)
        assert fitting.qualified_name in str(caught.value)
        assert f"block {wrong} (enhancekit-mfnn" in str(caught.value)

    def test_an_unknown_block(self):
        with pytest.raises(UnknownNameError, match="no block is called 'mfnn:scrr'"):
            MFNN(4, (1, 1), block="mfnn:scrr")

    def test_unknown_options_of_a_block(self):
        with pytest.raises(PluginError, match=r"block mfnn:scr .*residul"):
            MFNN(4, (1, 1), block_options={"residul": False})

    def test_output(self):
        with pytest.raises(OptionError, match="'sigmoid' or 'residual'"):
            MFNN(4, (1, 1), output="tanh")

    def test_a_block_that_is_no_module(self, monkeypatch):
        monkeypatch.setattr("enhancekit_mfnn.blocks.SCR", lambda channels: "text")
        with pytest.raises(PluginError, match=r"block mfnn:scr .*made a str instead of"):
            MFNN(4, (1, 1))


class TestVariants:
    def test_all_are_there(self):
        low_light = {"mfnn", "mfnn-lite", "mfnn-lol", "mfnn-report", "mfnn-paper"}
        assert set(NAMES) == {*low_light, "mfnn-denoise", "mfnn-denoise-lite", "mfnn-sr-x2"}
        ours = {e.spec.name for e in enhancekit.enhancers.list() if e.provider.plugin == "mfnn"}
        assert ours == set(NAMES)
        assert [spec.name for spec in VARIANTS if spec.default] == ["mfnn"]

    @pytest.mark.parametrize("spec", VARIANTS, ids=NAMES)
    def test_builds_and_runs_without_memory(self, spec):
        with torch.device("meta"):
            network = MFNN(**{**spec.config, "context": ""}).eval()
            shape = (1, 3, 16 * spec.scale, 24 * spec.scale)
            assert network(torch.zeros(1, 3, 16, 24)).shape == shape
        assert network.scales == len(spec.config["counts"])

    @pytest.mark.parametrize("spec", VARIANTS, ids=NAMES)
    def test_runs_at_a_small_width(self, spec):
        options = {"width": 4, "counts": (1,) * len(spec.config["counts"])}
        enhancer = enhancekit.load(spec.name, pretrained=False, **options)
        x = noise(3, 9, 7)
        assert enhancer.enhance(x).shape == (3, 9 * spec.scale, 7 * spec.scale)

    @pytest.mark.parametrize("spec", VARIANTS, ids=NAMES)
    def test_controls_are_those_the_context_takes(self, spec):
        name = spec.config.get("context")
        context = name and inspect.signature(host().blocks.get(name).create().context)
        assert set(spec.controls) == (set(context.parameters) - {"whole"} if name else set())

    @pytest.mark.parametrize("spec", VARIANTS, ids=NAMES)
    def test_the_hint_names_a_recipe_that_trains_it(self, spec):
        name = re.search(r"enhancekit_mfnn:(recipes/\S+\.toml)", spec.train_hint)[1]
        assert resources.files("enhancekit_mfnn").joinpath(name).is_file()
        recipe = read_recipe(f"enhancekit_mfnn:{name}", ["data.root=anywhere"])
        assert recipe.model.enhancer == spec.name
        assert recipe.data.crop % (4 * spec.config.get("pack", 1) * spec.scale) == 0
        made = {clean.make for clean in recipe.data.clean}
        assert ("bicubic-x2" in made) == (spec.scale == 2)

    @pytest.mark.parametrize("name", ["mfnn-denoise", "mfnn-denoise-lite"])
    def test_the_denoisers_see_every_kind_of_noise(self, name):
        spec = next(s for s in VARIANTS if s.name == name)
        assert (spec.task, spec.scale, spec.config["pack"]) == ("denoise", 1, 2)
        recipe = read_recipe(f"enhancekit_mfnn:recipes/{name}.toml", [])
        assert {clean.make for clean in recipe.data.clean} == {"gaussian", "camera", "poisson"}
        assert not recipe.data.sources

    def test_super_resolution_doubles(self):
        spec = next(s for s in VARIANTS if s.name == "mfnn-sr-x2")
        assert (spec.task, spec.scale, spec.config["scale"]) == ("super-resolution", 2, 2)
        recipe = read_recipe("enhancekit_mfnn:recipes/mfnn-sr-x2.toml", [])
        assert {clean.make for clean in recipe.data.clean} == {"bicubic-x2"}
        assert not recipe.data.sources

    def test_the_report_is_literal(self):
        config = next(s.config for s in VARIANTS if s.name == "mfnn-report")
        assert config["width"] == 128
        assert tuple(config["counts"]) == (1, 2)
        assert config["share_weights"]
        assert config["block_options"] == {"residual": False}
        assert config["output"] == "sigmoid"
        assert config["dropout"] == 0.5

    def test_the_paper_is_whole(self):
        config = next(s.config for s in VARIANTS if s.name == "mfnn-paper")
        assert config["width"] == 128
        assert tuple(config["counts"]) == (2, 4, 10)
        assert not config.get("share_weights")
