"""The losses: values, gradients, errors, and sums of them written as text."""

from __future__ import annotations

import math
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torch import nn

import enhancekit
from enhancekit.builtin.composite import CompositeLoss, parse
from enhancekit.builtin.losses import MSSSIM, SCALE_WEIGHTS, multi_scale_ssim
from enhancekit.builtin.vgg import VGG19_URL, VGGLoss, vgg19_trunk
from enhancekit.errors import OptionError, UnknownNameError, WeightsError

SMALLEST = {"l1": 1, "charbonnier": 1, "luma": 1, "grad": 1, "ssim": 11, "ms_ssim": 176}


def create(name, **options):
    return enhancekit.losses.create(name, **options)


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def pair(side, count=2, seed=0):
    """A picture with some structure, and a noisy, darker one."""
    smooth = torch.nn.functional.interpolate(
        noise(count, 3, 4, 4, seed=seed), size=(side, side), mode="bicubic"
    ).clamp(0, 1)
    return (smooth * 0.8 + 0.1 * noise(count, 3, side, side, seed=seed + 1)), smooth


class TestEvery:
    @pytest.mark.parametrize("name", SMALLEST)
    def test_zero_at_identity_and_above_it_elsewhere(self, name):
        side = max(16, SMALLEST[name])
        other, picture = pair(side, count=1)
        assert float(create(name)(picture, picture)) == pytest.approx(0, abs=2e-6)
        assert float(create(name)(other, picture)) > 0.01

    @pytest.mark.parametrize("name", SMALLEST)
    def test_scalar_and_one_value_a_picture(self, name):
        side = max(16, SMALLEST[name])
        output, reference = pair(side)
        singles = create(name, reduction="none")(output, reference)
        assert singles.shape == (2,)
        mean = create(name)(output, reference)
        assert mean.shape == ()
        torch.testing.assert_close(mean, singles.mean())
        torch.testing.assert_close(singles[0], create(name)(output[:1], reference[:1]))
        assert singles[0] != singles[1]

    @pytest.mark.parametrize("name", SMALLEST)
    def test_reductions(self, name):
        with pytest.raises(OptionError, match="'mean' or 'none', not 'sum'"):
            create(name, reduction="sum")

    @pytest.mark.parametrize("name", SMALLEST)
    @pytest.mark.parametrize("other", [(1, 3, 16, 16), (2, 1, 16, 16), (2, 3, 16, 15), (3, 16, 16)])
    def test_shapes_that_differ(self, name, other):
        with pytest.raises(OptionError, match="compare equal shapes only") as caught:
            create(name)(torch.zeros(2, 3, 16, 16), torch.zeros(other))
        assert str(other) in str(caught.value)
        assert "(2, 3, 16, 16)" in str(caught.value)

    @pytest.mark.parametrize("name", ["l1", "charbonnier", "grad", "ssim"])
    @pytest.mark.parametrize("channels", [1, 3, 5])
    def test_any_number_of_channels(self, name, channels):
        output, reference = noise(1, channels, 12, 13), noise(1, channels, 12, 13, seed=1)
        assert math.isfinite(float(create(name)(output, reference)))

    @pytest.mark.parametrize("name", SMALLEST)
    def test_symmetric(self, name):
        output, reference = pair(max(16, SMALLEST[name]), count=1)
        loss = create(name)
        torch.testing.assert_close(loss(output, reference), loss(reference, output))

    @pytest.mark.parametrize("name", SMALLEST)
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_computed_in_32_bits(self, name, dtype):
        output, reference = (t.to(dtype) for t in pair(max(16, SMALLEST[name]), count=1))
        value = create(name)(output, reference)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, create(name)(output.float(), reference.float()))

    @pytest.mark.parametrize("name", SMALLEST)
    def test_computed_in_32_bits_under_autocast_too(self, name):
        output, reference = pair(max(16, SMALLEST[name]), count=1)
        wanted = create(name)(output, reference)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(create(name)(output, reference), wanted)

    @pytest.mark.parametrize("name", SMALLEST)
    def test_gradients_are_finite_and_point_the_right_way(self, name):
        output, reference = pair(max(16, SMALLEST[name]), count=1)
        output.requires_grad_()
        loss = create(name)
        before = loss(output, reference)
        before.backward()
        assert torch.isfinite(output.grad).all()
        assert output.grad.abs().max() > 0
        step = 1e-3 / output.grad.abs().max()
        assert loss(output.detach() - step * output.grad, reference) < before

    @pytest.mark.parametrize("name", ["charbonnier", "ssim", "ms_ssim"])
    def test_gradients_are_finite_at_identity(self, name):
        picture = pair(max(16, SMALLEST[name]), count=1)[0].requires_grad_()
        create(name)(picture, picture.detach()).backward()
        assert torch.isfinite(picture.grad).all()
        torch.testing.assert_close(picture.grad, torch.zeros_like(picture.grad), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("name", SMALLEST)
    def test_gradients_on_flat_pictures(self, name):
        side = max(16, SMALLEST[name])
        output = torch.zeros(1, 3, side, side, requires_grad=True)
        create(name)(output, torch.ones(1, 3, side, side)).backward()
        assert torch.isfinite(output.grad).all()


class TestDerivatives:
    """The formulas themselves, in 64 bits, below the cast to 32."""

    @pytest.mark.parametrize("name", ["l1", "charbonnier", "grad", "ssim"])
    def test_gradcheck(self, name):
        loss = create(name)
        side = max(4, SMALLEST[name])
        output = noise(2, 2, side, side + 1).double().requires_grad_()
        reference = noise(2, 2, side, side + 1, seed=1).double()
        assert torch.autograd.gradcheck(lambda x: loss.per_picture(x, reference), output)

    def test_ms_ssim_along_a_line(self):
        output, reference = (t.double() for t in pair(176, count=1))
        output.requires_grad_()
        multi_scale_ssim(output, reference).sum().backward()
        direction = noise(1, 3, 176, 176, seed=5).double() - 0.5
        step = 1e-5
        with torch.no_grad():
            ahead, behind = (
                multi_scale_ssim(output + s * direction, reference).sum() for s in (step, -step)
            )
        measured = (ahead - behind) / (2 * step)
        torch.testing.assert_close(measured, (output.grad * direction).sum(), rtol=1e-5, atol=1e-8)


class TestLuma:
    @pytest.mark.parametrize(("channel", "weight"), [(0, 0.299), (1, 0.587), (2, 0.114)])
    def test_weighs_as_bt601(self, channel, weight):
        x = noise(2, 3, 5, 7)
        y = x.clone()
        y[:, channel] += 0.5
        assert float(create("luma", eps=1e-6)(y, x)) == pytest.approx(0.5 * weight, rel=1e-4)

    def test_a_change_of_colour_alone_costs_nothing(self):
        x = noise(1, 3, 5, 7)
        y = x + torch.tensor([0.587, -0.299, 0.0]).view(1, 3, 1, 1)
        assert float(create("luma")(y, x)) == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize("channels", [1, 4])
    def test_colour_pictures_only(self, channels):
        x = torch.zeros(1, channels, 4, 4)
        with pytest.raises(OptionError, match=f"luma is for colour pictures .* not {channels}"):
            create("luma")(x, x)


class TestL1:
    @pytest.mark.parametrize("difference", [0.25, -0.5, 1.0])
    def test_known_value(self, difference):
        x = noise(2, 3, 5, 7)
        assert float(create("l1")(x + difference, x)) == pytest.approx(abs(difference))

    def test_mean_of_absolute_values(self):
        x, y = noise(2, 3, 5, 7), noise(2, 3, 5, 7, seed=1)
        assert float(create("l1")(x, y)) == pytest.approx(np.abs(x.numpy() - y.numpy()).mean())


class TestCharbonnier:
    @pytest.mark.parametrize("eps", [1e-3, 0.1])
    @pytest.mark.parametrize("difference", [0.0, 0.05, 0.5])
    def test_known_value(self, eps, difference):
        x = torch.full((1, 3, 4, 5), 0.2, dtype=torch.float64)
        value = float(create("charbonnier", eps=eps)(x + difference, x))
        assert value == pytest.approx(math.sqrt(difference**2 + eps**2) - eps, abs=1e-7)

    def test_is_l1_far_from_zero(self):
        x = torch.zeros(1, 3, 4, 5)
        assert float(create("charbonnier")(x + 1, x)) == pytest.approx(0.999, abs=1e-5)


class TestGradient:
    def test_a_constant_shift_costs_nothing(self):
        x = noise(1, 3, 6, 6)
        assert float(create("grad")(x + 0.3, x)) == pytest.approx(0, abs=1e-7)

    @pytest.mark.parametrize(("axis", "slope"), [(2, 0.1), (3, 0.25)])
    def test_slopes(self, axis, slope):
        ramp = torch.arange(6.0) * slope
        x = ramp.view(-1, 1) if axis == 2 else ramp
        x = x.expand(1, 3, 6, 6)
        assert float(create("grad")(x, torch.zeros_like(x))) == pytest.approx(slope)

    def test_both_directions_add_up(self):
        x, y = noise(1, 2, 5, 7).numpy(), noise(1, 2, 5, 7, seed=1).numpy()
        wanted = sum(np.abs(np.diff(x - y, axis=axis)).mean() for axis in (2, 3))
        value = create("grad")(torch.from_numpy(x), torch.from_numpy(y))
        assert float(value) == pytest.approx(wanted, rel=1e-5)

    @pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 1)])
    def test_a_single_row_or_column_has_no_slope(self, size):
        value = create("grad")(noise(1, 3, *size), torch.zeros(1, 3, *size))
        assert math.isfinite(float(value))
        assert (float(value) == 0) == (size == (1, 1))


class TestSsim:
    @pytest.mark.parametrize("size", [(11, 11), (11, 30), (33, 24), (64, 51)])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_is_scikit_images(self, size, channels):
        reference = noise(1, channels, *size)
        output = (reference * 0.6 + 0.4 * noise(1, channels, *size, seed=1)).clamp(0, 1)
        arrays = (t[0].permute(1, 2, 0).double().numpy() for t in (reference, output))
        wanted = structural_similarity(
            *arrays,
            data_range=1.0,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert 0.05 < wanted < 0.99
        assert float(create("ssim")(output, reference)) == pytest.approx(1 - wanted, abs=1e-5)

    def test_flat_pictures(self):
        black, white = torch.zeros(1, 3, 12, 12), torch.ones(1, 3, 12, 12)
        wanted = 0.01**2 / (1 + 0.01**2)  # only the luminance term's constant is left
        assert 1 - float(create("ssim")(black, white)) == pytest.approx(wanted, abs=1e-5)

    def test_an_inverted_picture_is_worse_than_noise(self):
        x = noise(1, 3, 32, 32)
        assert float(create("ssim")(1 - x, x)) > 1.5

    @pytest.mark.parametrize("size", [(10, 30), (30, 10), (1, 1)])
    def test_too_small(self, size):
        with pytest.raises(OptionError, match=rf"at least 11x11, not {size[0]}x{size[1]}.*crops"):
            create("ssim")(torch.zeros(1, 3, *size), torch.zeros(1, 3, *size))


class TestMsSsim:
    def test_opposite_detail_leaves_a_gradient(self):
        chance = torch.Generator().manual_seed(0)
        coarse = nn.functional.interpolate(
            torch.rand(1, 3, 6, 6, generator=chance), (192, 192), mode="bilinear"
        )
        fine = 0.2 * torch.randn(1, 3, 192, 192, generator=chance)
        output = (coarse - fine).requires_grad_()
        loss = MSSSIM()(output, coarse + fine)
        loss.backward()
        assert loss.item() < 1
        assert output.grad.isfinite().all()
        assert output.grad.abs().max() > 0

    def test_the_five_scales_written_out(self):
        output, reference = pair(180, count=1)
        product = np.ones(3)
        a, b = (t[0].permute(1, 2, 0).double().numpy() for t in (output, reference))
        for scale, weight in enumerate(SCALE_WEIGHTS):
            full, luminance = [], []
            for channel in range(3):
                x, y = a[..., channel], b[..., channel]
                _, image = structural_similarity(
                    x,
                    y,
                    data_range=1.0,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                    full=True,
                )
                # contrast and structure alone: SSIM with the luminance divided out
                mx, my = (gaussian_filter(t, 1.5, truncate=3.5) for t in (x, y))
                bright = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
                inside = (slice(5, -5), slice(5, -5))
                full.append(image[inside].mean())
                luminance.append((image / bright)[inside].mean())
            last = scale == len(SCALE_WEIGHTS) - 1
            product *= np.array(full if last else luminance) ** weight
            a, b = (
                t[: len(t) // 2 * 2, : t.shape[1] // 2 * 2]
                .reshape(len(t) // 2, 2, t.shape[1] // 2, 2, 3)
                .mean((1, 3))
                for t in (a, b)
            )
        value = 1 - float(create("ms_ssim")(output, reference))
        assert value == pytest.approx(product.mean(), abs=1e-5)

    def test_the_weights_are_those_of_the_paper(self):
        assert SCALE_WEIGHTS == (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
        assert sum(SCALE_WEIGHTS) == pytest.approx(1, abs=2e-4)

    @pytest.mark.parametrize("size", [(175, 300), (300, 175), (16, 16)])
    def test_too_small(self, size):
        with pytest.raises(OptionError, match=rf"at least 176x176, not {size[0]}x{size[1]}"):
            create("ms_ssim")(torch.zeros(1, 3, *size), torch.zeros(1, 3, *size))

    def test_an_inverted_picture_has_a_finite_loss(self):
        x = noise(1, 3, 176, 176).requires_grad_()
        value = create("ms_ssim")(x, (1 - x).detach())
        value.backward()
        assert 0.9 < float(value.detach()) <= 1
        assert torch.isfinite(x.grad).all()


class TestParse:
    @pytest.mark.parametrize(
        ("text", "terms"),
        [
            ("l1", [(1, "l1")]),
            ("l1+grad", [(1, "l1"), (1, "grad")]),
            ("  0.5 * l1  +  .25*ssim ", [(0.5, "l1"), (0.25, "ssim")]),
            ("1e-3*l1 + 1e+2*grad", [(0.001, "l1"), (100, "grad")]),
            ("1E-3*l1 + 2E+1*grad", [(0.001, "l1"), (20, "grad")]),
            ("2.*l1", [(2, "l1")]),
            ("0.5*l1 + 0.7*vgg + 0.5*ms_ssim", [(0.5, "l1"), (0.7, "vgg"), (0.5, "ms_ssim")]),
            ("l1+1e+2*acme:edge-loss", [(1, "l1"), (100, "acme:edge-loss")]),
            ("+1*l1", None),
            ("", None),
            ("+", None),
            ("l1 +", None),
            ("l1 + + grad", None),
            ("l1 grad", None),
            ("l1 - grad", None),
            ("l1*0.5", None),
            ("0.5*l1*grad", None),
            ("0.5l1", None),
            ("2nd", None),
            ("acme:2nd", [(1.0, "acme:2nd")]),
            ("l1e+grad", [(1.0, "l1e"), (1.0, "grad")]),
            ("1e+2*l1", [(100.0, "l1")]),
            ("two*l1", None),
            ("L1", None),
            ("1,5*l1", None),
        ],
    )
    def test_text(self, text, terms):
        if terms is not None:
            assert parse(text) == terms
            return
        with pytest.raises(OptionError, match=r"cannot read.*weighted names|not a positive"):
            parse(text)

    @pytest.mark.parametrize("weight", ["0", "-1", "0.0", "1e", "1e999", "--1", "1.2.3", "."])
    def test_weights_that_are_no_positive_number(self, weight):
        with pytest.raises(OptionError, match=r"is not a positive number|cannot read"):
            parse(f"{weight}*l1 + grad")

    def test_twice_the_same(self):
        with pytest.raises(OptionError, match="'l1' stands twice"):
            parse("l1 + grad + 0.5*l1")


class TestComposite:
    def test_is_the_weighted_sum(self):
        output, reference = pair(16)
        loss = create("0.5*l1 + 2*grad + 1e-1*ssim")
        single = {name: float(create(name)(output, reference)) for name in ("l1", "grad", "ssim")}
        wanted = 0.5 * single["l1"] + 2 * single["grad"] + 0.1 * single["ssim"]
        assert float(loss(output, reference)) == pytest.approx(wanted, rel=1e-6)
        assert loss.values == pytest.approx(single)
        assert list(loss.values) == ["l1", "grad", "ssim"]

    def test_values_are_those_of_the_last_call(self):
        loss = create("l1 + grad")
        assert loss.values == {}
        x = torch.zeros(1, 3, 4, 4)
        loss(x + 0.5, x)
        loss(x + 0.25, x)
        assert loss.values == {"l1": 0.25, "grad": 0.0}

    @pytest.mark.parametrize("options", [{"reduction": "none"}, {"eps": 3}])
    def test_options_of_a_sum_go_by_the_names_of_its_losses(self, options):
        with pytest.raises(OptionError, match="takes options by the names of its losses"):
            create("l1 + ssim", **options)

    def test_a_single_weighted_loss(self):
        loss = create("3*l1")
        assert isinstance(loss, CompositeLoss)
        assert float(loss(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))) == 3

    def test_gradient_flows_through_every_term(self):
        output, reference = pair(16, count=1)
        output.requires_grad_()
        create("l1 + ssim")(output, reference).backward()
        both = output.grad.clone()
        parts = []
        for name in ("l1", "ssim"):
            output.grad = None
            create(name)(output, reference).backward()
            parts.append(output.grad.clone())
        torch.testing.assert_close(both, parts[0] + parts[1])

    def test_options_for_single_losses(self):
        loss = create("l1 + charbonnier", options={"charbonnier": {"eps": 0.5}})
        assert loss.losses[1].eps == 0.5
        singles = create(
            "l1 + grad", options={"l1": {"reduction": "none"}, "grad": {"reduction": "none"}}
        )
        assert singles(*pair(16)).shape == (2,)

    def test_options_for_a_loss_that_is_not_there(self):
        with pytest.raises(OptionError, match=r"options for \['vgg'\]"):
            create("l1 + grad", options={"vgg": {}})

    def test_an_unknown_loss(self):
        with pytest.raises(UnknownNameError, match="did you mean 'charbonnier'"):
            create("l1 + 0.1*charbonier")

    def test_shows_its_text(self):
        assert "0.5*l1 + grad" in repr(create("0.5*l1 + grad"))

    def test_the_second_loss_of_the_report(self):
        output, reference = pair(16)
        torch.testing.assert_close(
            create("mfnn-report-2")(output, reference),
            create("l1 + 0.1*ssim + grad")(output, reference),
        )


@pytest.fixture(scope="module")
def vgg_state():
    """Random tensors of VGG19's shapes, small on disk as .pth: they overlap in one storage."""
    torch.manual_seed(0)
    state = {}
    for key, value in vgg19_trunk().state_dict().items():
        scale = (2 / value[0].numel()) ** 0.5 if value.ndim == 4 else 0.01
        numbers = torch.randn(3000) * scale
        strides = (7, 5, 3, 1)[-value.ndim :] if value.ndim < 4 else (1, 2, 11, 4)
        state[f"features.{key}"] = numbers.as_strided(value.shape, strides)
    state["classifier.0.bias"] = torch.zeros(3)
    return state


@pytest.fixture(scope="module")
def vgg_path(vgg_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(vgg_state, path)
    assert path.stat().st_size < 1_000_000
    return path


@pytest.fixture(scope="module")
def vgg(vgg_path):
    return create("vgg", weights=vgg_path)


class TestVgg:
    def test_the_trunk_is_vgg19s(self):
        with torch.device("meta"):
            trunk = vgg19_trunk()
        assert len(trunk) == 37
        widths = (64, 64, 128, 128, *[256] * 4, *[512] * 8)
        wanted = list(zip((3, *widths[:-1]), widths, strict=True))
        convolutions = [m for m in trunk if isinstance(m, nn.Conv2d)]
        assert [m.weight.shape for m in convolutions] == [(o, i, 3, 3) for i, o in wanted]
        assert [i for i, m in enumerate(trunk) if isinstance(m, nn.MaxPool2d)] == [
            4,
            9,
            18,
            27,
            36,
        ]
        assert sum(p.numel() for p in trunk.parameters()) == 20_024_384
        # the names torchvision's file has
        places = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
        assert list(trunk.state_dict()) == [f"{i}.{k}" for i in places for k in ("weight", "bias")]

    def test_zero_at_identity_and_above_it_elsewhere(self, vgg):
        output, reference = pair(16)
        assert float(vgg(reference, reference)) == 0
        assert float(vgg(output, reference)) > 1e-4

    def test_is_the_mean_l1_of_five_features(self, vgg, vgg_state):
        output, reference = pair(18, count=1)
        trunk = vgg19_trunk()
        trunk.load_state_dict({k[9:]: v for k, v in vgg_state.items() if k.startswith("features.")})
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        features = []
        for picture in (output, reference):
            x, taken = (picture - mean) / std, []
            with torch.no_grad():
                for index, layer in enumerate(trunk[:-1]):
                    x = layer(x)
                    if index in (3, 8, 17, 26, 35):
                        taken.append(x)
            features.append(taken)
        wanted = sum((a - b).abs().mean() for a, b in zip(*features, strict=True)) / 5
        torch.testing.assert_close(vgg(output, reference), wanted)

    def test_gradient_reaches_the_output_but_not_the_weights(self, vgg):
        output, reference = pair(16, count=1)
        output.requires_grad_()
        vgg(output, reference).backward()
        assert torch.isfinite(output.grad).all()
        assert output.grad.abs().max() > 0
        assert not any(p.requires_grad for p in vgg.parameters())

    def test_one_value_a_picture(self, vgg):
        output, reference = pair(16)
        vgg.reduction = "none"
        try:
            singles = vgg(output, reference)
        finally:
            vgg.reduction = "mean"
        assert singles.shape == (2,)
        torch.testing.assert_close(singles.mean(), vgg(output, reference))

    @pytest.mark.parametrize("size", [(15, 40), (40, 15), (1, 1)])
    def test_too_small(self, vgg, size):
        with pytest.raises(OptionError, match="at least 16x16"):
            vgg(torch.zeros(1, 3, *size), torch.zeros(1, 3, *size))

    def test_shapes_that_differ(self, vgg):
        with pytest.raises(OptionError, match="compare equal shapes only"):
            vgg(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 17))

    def test_in_a_sum_with_a_path(self, vgg_path, vgg):
        output, reference = pair(16, count=1)
        loss = create("l1 + 0.5*vgg", options={"vgg": {"weights": str(vgg_path)}})
        loss(output, reference)
        assert loss.values["vgg"] == pytest.approx(float(vgg(output, reference)))

    def test_safetensors(self, vgg_state, vgg, tmp_path):
        path = tmp_path / "vgg19.safetensors"
        whole = {k: v.to(torch.bfloat16).contiguous() for k, v in vgg_state.items()}
        safetensors.torch.save_file(whole, path)
        output, reference = pair(16, count=1)
        value = create("vgg", weights=path)(output, reference)
        assert float(value) == pytest.approx(float(vgg(output, reference)), rel=0.05)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.pth", {"features.0.weight": torch.zeros(1)}),
            ("a.pth", {"conv1.weight": torch.zeros(64, 3, 3, 3)}),
            ("a.pth", {}),
            ("a.pth", [1, 2, 3]),
            ("a.pth", torch.zeros(3)),
            ("a.pth", {1: torch.zeros(3)}),
            ("a.pth", b"this is text"),
            ("a.pth", b""),
            ("a.pth", b"PK\3\4 broken"),
            ("a.safetensors", b"this is text"),
            ("a.safetensors", b""),
        ],
    )
    def test_a_wrong_file(self, tmp_path, name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(WeightsError, match=rf"VGG19|{name}"):
            create("vgg", weights=path)

    @pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
    def test_a_missing_file(self, tmp_path, name):
        with pytest.raises(WeightsError, match=rf"{name} do not exist"):
            create("vgg", weights=tmp_path / name)

    @pytest.mark.parametrize(
        "error", [URLError("no network"), OSError("disk full"), RuntimeError("invalid hash value")]
    )
    def test_a_failed_download_says_to_give_a_path(self, monkeypatch, error):
        asked = []

        def download(url, **options):
            asked.append((url, options))
            raise error

        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
        with pytest.raises(WeightsError, match=r"give its path.*weights='vgg19\.pth'") as caught:
            create("vgg")
        assert VGG19_URL in str(caught.value)
        ((url, options),) = asked
        assert url == VGG19_URL
        assert options["check_hash"]
        assert options["weights_only"]

    def test_a_download_is_used(self, monkeypatch, vgg_state, vgg):
        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: vgg_state)
        output, reference = pair(16, count=1)
        torch.testing.assert_close(VGGLoss()(output, reference), vgg(output, reference))

    def test_the_first_loss_of_the_report(self, vgg_path):
        loss = create("mfnn-report-1", vgg_weights=str(vgg_path))
        assert list(zip(loss.weights, loss.names, strict=True)) == [
            (0.5, "l1"),
            (0.7, "vgg"),
            (0.5, "ms_ssim"),
        ]
