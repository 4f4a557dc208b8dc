"""Each check of blocks and backbones fails on what breaks exactly it, and on nothing else."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from failing import failing
from torch import nn

from enhancekit import BackboneSpec, BlockSpec, SizeRequirements, hookimpl
from enhancekit.errors import ConformanceError
from enhancekit.testing import (
    BackboneCase,
    BlockCase,
    check_backbone,
    check_block,
    checks_of,
    isolated_plugins,
)


class Mended(nn.Module):
    """What the broken blocks would be without their one fault."""

    halo = 2

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(self.conv1(x).relu())


class NeedsTwoPixels(Mended):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1), mode="reflect")[..., 1:-1, 1:-1])


class OfAnotherType(Mended):
    def forward(self, x):
        return super().forward(x).double()


class Remembering(Mended):
    def __init__(self, channels):
        super().__init__(channels)
        self.last = 0.0

    def forward(self, x):
        gain, self.last = 1 + 0.1 * self.last, float(x.detach().abs().mean())
        return gain * super().forward(x)


class Normalised(Mended):
    def __init__(self, channels):
        super().__init__(channels)
        nn.utils.parametrizations.weight_norm(self.conv1)


class Tied(Mended):
    def __init__(self, channels):
        super().__init__(channels)
        self.conv2.weight = self.conv1.weight


class HalfAPixel(Mended):
    halo = 2.5


class LooksFurther(Mended):
    halo = 1


class Pooling(Mended):
    halo = 5

    def forward(self, x):
        height, width = x.shape[2:]
        padded = F.pad(x, (0, width % 2, 0, height % 2))
        done = super().forward(F.avg_pool2d(padded, 2))
        return x + F.interpolate(done, scale_factor=2.0)[..., :height, :width]


class Windowed(Mended):
    """Means over windows, laid from one side or from the middle."""

    halo = 9
    centred = False

    def forward(self, x):
        height, width = x.shape[2:]
        rows, columns = -height % 8, -width % 8
        above, before = (rows // 2, columns // 2) if self.centred else (0, 0)
        padded = F.pad(x, (before, columns - before, above, rows - above))
        means = F.interpolate(F.avg_pool2d(padded, 8), scale_factor=8.0)
        return super().forward(x) + means[..., above:, before:][..., :height, :width]


class WindowedFromTheMiddle(Windowed):
    centred = True


class Darkening(Mended):
    def forward(self, x):
        return super().forward(x) * torch.linspace(1, 0.5, x.shape[3], device=x.device)


class HiddenSpread(Mended):
    def forward(self, x):
        return super().forward(x) * x.detach().std(dim=(1, 2, 3), keepdim=True, correction=0)


class HiddenNeighbour(Mended):
    def forward(self, x):
        return super().forward(x) + x.detach().roll(5, 3)


class Idle(Mended):
    def __init__(self, channels):
        super().__init__(channels)
        self.idle = nn.Parameter(torch.ones(channels))


class Unsaved(Mended):
    def __init__(self, channels):
        super().__init__(channels)
        self.gain = float(torch.rand(()))

    def forward(self, x):
        return super().forward(x) * self.gain


class Complex(Mended):
    """Looks further, once its gain is no longer the zero it starts with."""

    def __init__(self, channels):
        super().__init__(channels)
        self.gain = nn.Parameter(torch.zeros(channels, 1, 1, dtype=torch.complex64))

    def forward(self, x):
        return super().forward(x) + (x.roll(5, 3) * self.gain).real


class Stochastic(Mended):
    def forward(self, x):
        return x if self.training and torch.rand(()) < 0.5 else super().forward(x)


class Detached(Mended):
    def forward(self, x):
        return super().forward(x).detach()


class KeepingComputed(Mended):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.norm = [self.conv1.weight.norm()]


class MixingBlock(Mended):
    def forward(self, x):
        return x + self.conv2(self.conv1(x - x.mean(dim=0, keepdim=True)).relu())


class Viewing(Mended):
    halo = None

    def forward(self, x):
        return super().forward(x) * (1 + x.view(len(x), -1).mean(dim=1)).view(-1, 1, 1, 1)


class ViewingWeights(Mended):
    def forward(self, x):
        return super().forward(x) * self.conv1.weight.view(-1).norm()


class Strided(Mended):
    halo = None

    def forward(self, x):
        _, channels, height, width = x.shape
        strides = (channels * height * width, height * width, width, 1)
        return super().forward(torch.as_strided(x, x.shape, strides))


class PlainTensor(Mended):
    def __init__(self, channels):
        super().__init__(channels)
        self.gain = torch.full((channels, 1, 1), 0.5)

    def forward(self, x):
        return super().forward(x) * self.gain


class PlainKernels(Mended):
    """Its convolution is given what was made of a tensor in a list, in the type of its input."""

    halo = 3

    def __init__(self, channels):
        super().__init__(channels)
        self.kernels = [torch.full((1, 1, 3, 3), 1 / 9)]

    def forward(self, x):
        kernel = self.kernels[0].to(x.dtype).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(super().forward(x), kernel, padding=1, groups=x.shape[1])


class MadeInForward(Mended):
    def forward(self, x):
        return super().forward(x) + torch.zeros(x.shape)


class Movable(Mended):
    """Has no buffers, and yet nothing that would fail on another device."""

    def __init__(self, channels):
        super().__init__(channels)
        self.gain = torch.full((channels, 1, 1), 0.5)
        self.number = torch.tensor(0.5)
        self.order = torch.arange(channels)

    def forward(self, x):
        made = torch.ones(1, device=x.device) + x.new_zeros(1) + torch.ones(1).to(x.device)
        gain = self.number * self.gain.to(x) + self.gain.type_as(x)
        return super().forward(x)[:, self.order] * gain * made


class Dropping(Mended):
    def forward(self, x):
        return x + F.dropout(super().forward(x), 0.3, training=True)


class InPlace(Mended):
    def forward(self, x):
        return self.conv2(x.relu_())

    def __init__(self, channels):
        super().__init__(channels)
        del self.conv1


class Lambda(Mended):
    def __init__(self, channels):
        super().__init__(channels)
        self.activate = lambda x: x.relu()

    def forward(self, x):
        return self.activate(super().forward(x))


BLOCKS = {
    "shapes": (NeedsTwoPixels, "on 8 channels of 1x1 pixels: .*any size from 1x1"),
    "halo_is_true": (LooksFurther, r"declares halo = 1, .* looks 2 pixels far; declare halo = 2"),
    "gradient_reaches_every_parameter": (Idle, "no gradient reaches idle of block kit:idle"),
    "state_round_trip": (Unsaved, "use register_buffer"),
    "deterministic_in_eval": (Dropping, r"self\.training"),
    "input_is_untouched": (InPlace, "no inplace=True on the first layer"),
    "pickles": (Lambda, "keep no lambda"),
    "alike_everywhere": (Pooling, r"begins or ends elsewhere \(by 1\), .*declare halo = None"),
    "copies": (KeepingComputed, r"cannot be copied, .*; keep nothing computed from parameters"),
    "batch_equals_singles": (MixingBlock, "never over the batch"),
    "takes_channels_last": (Viewing, r"channels_last, .*: RuntimeError: .*; use reshape instead"),
    "computes_on_one_device": (PlainTensor, r"on the CPU \(gain\); .* by register_buffer"),
}


class Net(nn.Module):
    """A small network at half the size, what the broken ones would be without their one fault."""

    def __init__(self, scale=1, halo=3):
        super().__init__()
        self.conv = nn.Conv2d(12, 12 * scale**2, 3, padding=1)
        self.scale = scale
        self.size_requirements = SizeRequirements(multiple_of=2, minimum=2, halo=halo, scale=scale)

    def body(self, x):
        return F.pixel_shuffle(self.conv(F.pixel_unshuffle(x, 2)), 2 * self.scale)

    def forward(self, x):
        base = F.interpolate(x, scale_factor=float(self.scale)) if self.scale > 1 else x
        return (base + 0.1 * self.body(x)).clamp(0, 1)


class Context(Net):
    """One that needs the mean of the whole picture, and declares so."""

    def context(self, whole):
        return whole.mean(dim=(1, 2, 3), keepdim=True)

    def forward(self, x, mean):
        return (super().forward(x) * (0.3 + mean)).clamp(0, 1)


class AveragedContext(Context):
    context_grid = 4

    def context(self, whole):
        return F.adaptive_avg_pool2d(whole, 4).mean(dim=(1, 2, 3), keepdim=True)


class GreatestContext(AveragedContext):
    def context(self, whole):
        return 0.5 * whole.amax(dim=(1, 2, 3), keepdim=True)


class BlindContext(Context):
    context_grid = 0


class NeedsEight(Net):
    def forward(self, x):
        return super().forward(F.pad(x, (7, 7, 7, 7), mode="reflect")[..., 7:-7, 7:-7])


class Odd(Net):
    def __init__(self):
        super().__init__()
        self.size_requirements = SizeRequirements(multiple_of=1, minimum=1, halo=3)


class Enlarging(Net):
    def __init__(self):
        super().__init__(scale=2)
        self.size_requirements = SizeRequirements(multiple_of=2, minimum=2, halo=3, scale=1)


class FaintlyFurther(Net):
    def forward(self, x):
        return super().forward(x + 1e-6 * x.roll(9, 2))


class Pooled(Net):
    def __init__(self):
        super().__init__()
        self.size_requirements = SizeRequirements(halo=4)

    def forward(self, x):
        height, width = x.shape[2:]
        pooled = F.avg_pool2d(F.pad(x, (0, width % 2, 0, height % 2)), 2)
        done = self.body(F.interpolate(pooled, scale_factor=2.0))
        return (x + 0.1 * done[..., :height, :width]).clamp(0, 1)


class NetStrided(Net):
    def __init__(self):
        super().__init__(halo=None)

    def forward(self, x):
        _, channels, height, width = x.shape
        strides = (channels * height * width, height * width, width, 1)
        return super().forward(torch.as_strided(x, x.shape, strides))


class NetPlainTensor(Net):
    def __init__(self):
        super().__init__()
        self.gain = torch.full((3, 1, 1), 0.5)

    def forward(self, x):
        return super().forward(x) * self.gain


class NetKeepingComputed(Net):
    def __init__(self):
        super().__init__()
        self.norm = [self.conv.weight.norm()]


class SmallHalo(Net):
    def __init__(self):
        super().__init__(halo=0)


class Everywhere(Net):
    def forward(self, x):
        return super().forward(x) * x.mean(dim=(1, 2, 3), keepdim=True)


class Unclamped(Net):
    def forward(self, x):
        return 1.2 * super().forward(x)


class Dividing(Net):
    def forward(self, x):
        return super().forward(x * x / x)


class MixingBatch(Net):
    def forward(self, x):
        return super().forward((1.1 * x - 0.1 * x.mean(dim=0, keepdim=True)).clamp(0, 1))


class HiddenMean(Net):
    def forward(self, x):
        mean = x.detach().mean(dim=(1, 2, 3), keepdim=True)
        return super().forward(x) * (0.5 + mean).clamp(max=1)


class Vignette(Net):
    def forward(self, x):
        return super().forward(x) * torch.linspace(1, 0.9, x.shape[3], device=x.device)


class ThirtyTwoBits(Net):
    def body(self, x):
        done = torch.zeros_like(x)
        bright = x > 0.01
        done[bright] = super().body(x)[bright]
        return done


class OnCuda(Net):
    def forward(self, x):
        return (super().forward(x) + 0.1 * x.is_cuda).clamp(0, 1)


class NetIdle(Net):
    def __init__(self):
        super().__init__()
        self.idle = nn.Parameter(torch.ones(3))


class NetUnsaved(Net):
    def __init__(self):
        super().__init__()
        self.gain = float(torch.rand(()))

    def forward(self, x):
        return super().forward(x) * self.gain


class InDoubles(Net):
    def forward(self, x):
        return super().forward(x).double()


class NetDropping(Net):
    def forward(self, x):
        noise = 1e-5 * torch.rand(()) if len(x) < 3 and x.shape[2] < 24 else 0
        return super().forward(x * (1 - noise))


class NetInPlace(Net):
    def forward(self, x):
        return super().forward(x.mul_(0.9))


class NetLambda(Net):
    def __init__(self):
        super().__init__()
        self.activate = lambda x: x

    def forward(self, x):
        return self.activate(super().forward(x))


BACKBONES = {
    "sizes_are_true": (NeedsEight, "multiple_of=2, minimum=2, .*declare multiple_of=2, minimum=16"),
    "scale_is_true": (Enlarging, r"declares scale=1, but gives .*; declare scale=2"),
    "type_is_kept": (InDoubles, "gives torch.float64 for torch.float32; leave the type"),
    "halo_is_true": (FaintlyFurther, r"declares halo=3, .* looks 12 pixels far; declare halo=12"),
    "range_is_kept": (Unclamped, r"a picture \(.*\) in \[0, 1\]; .* clamp\(0, 1\)"),
    "finite_on_extremes": (Dividing, "a picture that is black; guard divisions"),
    "batch_equals_singles": (MixingBatch, "never over the batch"),
    "tiled_equals_whole": (Vignette, "in tiles of 24 pixels than whole"),
    "context_grid_is_true": (GreatestContext, "context_grid = 4, .*adaptive_avg_pool2d"),
    "runs_in_bf16": (ThirtyTwoBits, "runs_in_bf16: .*destination dtypes match"),
    "cpu_equals_cuda": (OnCuda, "another picture on CUDA"),
    "gradient_reaches_every_parameter": (NetIdle, "no gradient reaches idle of backbone kit:"),
    "state_round_trip": (NetUnsaved, "use register_buffer"),
    "deterministic_in_eval": (NetDropping, r"self\.training"),
    "input_is_untouched": (NetInPlace, "changes its input in place"),
    "pickles": (NetLambda, "keep no lambda"),
    "copies": (NetKeepingComputed, "keep nothing computed from parameters"),
    "takes_channels_last": (NetStrided, "another result in torch.channels_last"),
    "computes_on_one_device": (NetPlainTensor, r"on the CPU \(gain\)"),
}
OTHERS = (
    *(Net, Context, AveragedContext, BlindContext, Odd, SmallHalo, Everywhere, HiddenMean),
    Pooled,
)


def name_of(made):
    return re.sub(r"(?<!^)(?=[A-Z])", "-", made.__name__).lower()


class Plugin:
    @hookimpl
    def enhancekit_blocks(self):
        for made in (
            Mended,
            OfAnotherType,
            Remembering,
            HalfAPixel,
            HiddenSpread,
            HiddenNeighbour,
            Windowed,
            WindowedFromTheMiddle,
            Darkening,
            Complex,
            Stochastic,
            Detached,
            ViewingWeights,
            Strided,
            PlainKernels,
            MadeInForward,
            Movable,
            Normalised,
            Tied,
            *(b for b, _ in BLOCKS.values()),
        ):
            target = f"{__name__}:{made.__name__}"
            yield BlockSpec(name=name_of(made), role="residual", summary="x", target=target)
        yield BlockSpec(name="conv", role="encoder", summary="x", target="torch.nn:Conv2d")

    @hookimpl
    def enhancekit_backbones(self):
        for made in (*OTHERS, *(b for b, _ in BACKBONES.values())):
            yield BackboneSpec(
                name=name_of(made),
                summary="x",
                target=f"{__name__}:{made.__name__}",
                global_context=issubclass(made, Context),
            )


@pytest.fixture(autouse=True)
def _plugin():
    with isolated_plugins(kit=Plugin()):
        yield


class TestBlock:
    def test_every_check_has_a_block_that_breaks_it(self):
        assert set(BLOCKS) == set(checks_of(BlockCase("kit:mended")))

    @pytest.mark.parametrize("check", BLOCKS)
    def test_breaking_exactly_one(self, check):
        made, said = BLOCKS[check]
        found = failing(BlockCase(f"kit:{name_of(made)}"))
        assert set(found) == {check}
        assert re.search(said, found[check])

    def test_another_type_is_refused(self):
        found = failing(BlockCase("kit:of-another-type"))
        assert "gives torch.float64 for torch.float32" in found["shapes"]

    def test_what_is_kept_from_one_input_to_the_next_is_seen(self):
        found = failing(BlockCase("kit:remembering"))
        assert "must not change its own state" in found["deterministic_in_eval"]

    def test_a_halo_is_a_whole_number(self):
        found = failing(BlockCase("kit:half-a-pixel"))
        assert set(found) == {"halo_is_true"}
        assert "halo = 2.5; it is a whole number of pixels, or None" in found["halo_is_true"]

    @pytest.mark.parametrize(
        ("name", "said"),
        [("spread", "looks at least 512 pixels far"), ("neighbour", "looks 5 pixels far")],
    )
    def test_what_is_detached_is_seen_all_the_same(self, name, said):
        assert said in failing(BlockCase(f"kit:hidden-{name}"))["halo_is_true"]

    @pytest.mark.parametrize("made", [Windowed, WindowedFromTheMiddle, Darkening])
    def test_what_depends_on_the_place_is_seen(self, made):
        assert set(failing(BlockCase(f"kit:{name_of(made)}"))) == {"alike_everywhere"}

    def test_a_complex_parameter_that_starts_at_zero_hides_nothing(self):
        found = failing(BlockCase("kit:complex"))
        assert "looks 5 pixels far" in found["halo_is_true"]

    def test_what_passes_no_gradient_is_refused(self):
        found = failing(BlockCase("kit:detached"))
        said = "no gradient reaches conv1.weight, conv1.bias, conv2.weight, conv2.bias of block"
        assert said in found["gradient_reaches_every_parameter"]

    @pytest.mark.parametrize("made", [ViewingWeights, Strided])
    def test_weights_and_strides_in_the_other_layout(self, made):
        assert set(failing(BlockCase(f"kit:{name_of(made)}"))) == {"takes_channels_last"}

    @pytest.mark.parametrize(
        ("made", "said"),
        [
            (PlainKernels, r"conv2d is given a tensor that stays on the CPU (kernels)"),
            (MadeInForward, r"add is given a tensor that stays on the CPU (made in forward)"),
        ],
    )
    def test_other_tensors_that_stay_on_the_cpu(self, made, said):
        found = failing(BlockCase(f"kit:{name_of(made)}"))
        assert set(found) == {"computes_on_one_device"}
        assert said in found["computes_on_one_device"]

    @pytest.mark.parametrize("name", ["mended", "stochastic", "movable", "tied"])
    def test_mended(self, name):
        assert {o.status for o in check_block(f"kit:{name}")} == {"passed"}

    def test_weights_that_torch_pickles_in_no_block(self):
        found = {o.check: o.status for o in check_block("kit:normalised")}
        assert found.pop("pickles") == "not applicable"
        assert set(found.values()) == {"passed"}

    def test_other_roles_are_described(self):
        with pytest.raises(
            ConformanceError, match=r"role 'encoder', whose interface .* give args="
        ):
            check_block("kit:conv")
        options = {"kernel_size": 5, "padding": 2}
        found = check_block("kit:conv", args=(3, 6), options=options, channels=3, out_channels=6)
        assert {o.check: o.status for o in found}["shapes"] == "passed"
        assert {o.check: o.status for o in found}["halo_is_true"] == "not applicable"

    def test_wrong_number_of_channels(self):
        with pytest.raises(ConformanceError, match=r"shapes: .* gives the shape \(2, 6, 1, 1\)"):
            check_block("kit:conv", args=(3, 6, 1), channels=3)


class TestBackbone:
    def test_every_check_has_a_network_that_breaks_it(self):
        assert set(BACKBONES) == set(checks_of(BackboneCase("kit:net")))

    @pytest.mark.parametrize("check", BACKBONES)
    def test_breaking_exactly_one(self, check):
        if check == "cpu_equals_cuda" and not torch.cuda.is_available():
            pytest.skip("this machine has no CUDA device")
        made, said = BACKBONES[check]
        found = failing(BackboneCase(f"kit:{name_of(made)}"))
        assert set(found) == {check}
        assert re.search(said, found[check])

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("kit:net", {}),
            ("kit:net", {"scale": 2}),
            ("kit:net", {"scale": 3}),
            ("kit:context", {}),
            ("kit:averaged-context", {}),
        ],
    )
    def test_mended(self, name, options):
        assert {o.status for o in check_backbone(name, options=options)} <= {
            "passed",
            "not applicable",
        }

    @pytest.mark.parametrize(
        ("made", "said"),
        [
            (Odd, "multiple_of=1, minimum=1, .*; declare multiple_of=2, minimum=2"),
            (SmallHalo, "declares halo=0, .* looks 3 pixels far; declare halo=3"),
            (SmallHalo, "in tiles of 24 pixels than whole"),
            (Pooled, "in tiles of 25 pixels than whole, .*multiple_of on whose grid it pools"),
            (BlindContext, "context_grid = 0, .*or leave context_grid out"),
            (HiddenMean, "looks at least 512 pixels far"),
            (Everywhere, r"looks at least 512 pixels far; declare halo=None, or global_context"),
        ],
    )
    def test_the_right_declaration_is_suggested(self, made, said):
        found = failing(BackboneCase(f"kit:{name_of(made)}"))
        assert any(re.search(said, text) for text in found.values()), found
