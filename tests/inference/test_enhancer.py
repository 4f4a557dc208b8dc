"""The `Enhancer`: precision, controls, strength, batches, devices."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import ClassVar

import numpy as np
import pytest
import torch

import enhancekit
from enhancekit.errors import DeviceError, NonFiniteError, OptionError, PluginError
from enhancekit.inference import device as devices
from enhancekit.inference.device import PARITY_DB, choose_device, choose_precision

CPU = torch.device("cpu")
TINY = {"width": 4, "counts": (1, 1), "pack": 1}
SIZES = [(1, 1), (1, 2), (2, 1), (1, 9), (3, 5), (7, 4), (13, 1), (33, 31)]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def load_tiny(**options):
    torch.manual_seed(0)
    return enhancekit.load("mfnn-lite", pretrained=False, **{**TINY, "device": "cpu", **options})


def excite(enhancer):
    """Give an untrained network an effect: its last layer starts at zero."""
    torch.manual_seed(1)
    torch.nn.init.normal_(enhancer.module.head.final.weight, std=0.1)
    return enhancer


@pytest.fixture(scope="module")
def untrained():
    return load_tiny()


class TestNonFinite:
    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    def test_is_done_again_in_32_bits_with_a_warning(self, enhancer_of, caplog, bad):
        asked = []

        def run(pictures, dtype, controls):
            asked.append(dtype)
            done = pictures * 2
            if dtype != torch.float32:
                done[0, 1, 2, 3] = bad
            return done

        x = torch.rand(3, 4, 5) / 2
        with caplog.at_level(logging.WARNING, logger="enhancekit"):
            result = enhancer_of(run, torch.bfloat16).enhance(x)
        assert torch.equal(result, x * 2)
        assert asked == [torch.bfloat16, torch.float32]
        assert [r.levelname for r in caplog.records] == ["WARNING"]
        assert "acme:probe gave non-finite pixels in bf16" in caplog.text

    def test_finite_results_are_not_done_again(self, enhancer_of, caplog):
        asked = []

        def run(pictures, dtype, controls):
            asked.append(dtype)
            return pictures

        enhancer_of(run, torch.bfloat16).enhance(torch.rand(3, 4, 5))
        assert asked == [torch.bfloat16]
        assert not caplog.records

    @pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    def test_also_in_32_bits_is_an_error(self, enhancer_of, precision, bad):
        def run(pictures, dtype, controls):
            done = pictures.clone()
            done[0, 0, 0, :2] = bad
            return done

        with pytest.raises(NonFiniteError, match=r"acme:probe \(acme-probe 1\.2\) gave 2 values"):
            enhancer_of(run, precision).enhance(torch.rand(3, 4, 5))

    def test_a_network_of_nan_is_an_error_and_never_a_black_picture(self):
        enhancer = excite(load_tiny(precision="bf16"))
        enhancer.module.head.final.bias[0] = torch.nan
        with pytest.raises(NonFiniteError, match="in 32 bits"):
            enhancer.enhance(np.full((8, 8, 3), 100, np.uint8))

    def test_overflow_of_16_bits_is_redone(self, caplog):
        enhancer = load_tiny(precision="fp16")
        torch.nn.init.constant_(enhancer.module.head.conv4.bias, 1e5)  # past the end of fp16
        torch.nn.init.constant_(enhancer.module.head.final.weight, 1e-7)
        x = torch.rand(3, 8, 8)
        with caplog.at_level(logging.WARNING, logger="enhancekit"):
            result = enhancer.enhance(x)
        assert "non-finite pixels in fp16" in caplog.text
        assert torch.isfinite(result).all()


class TestControls:
    @pytest.mark.parametrize("wanted", [0.1, 0.3, 0.5, 0.8])
    @pytest.mark.parametrize("size", [(48, 48), (60, 95)])
    def test_the_mean_is_what_was_asked_for(self, untrained, wanted, size):
        # away from 48x48 the gain is found on a thumbnail, which is exact for smooth pictures only
        x = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 5) * 0.4, size, mode="bilinear")[0]
        result = untrained.enhance(x, exposure=wanted)
        assert float(result.mean()) == pytest.approx(wanted, abs=1e-4 if size == (48, 48) else 0.01)

    def test_more_exposure_is_brighter(self, untrained):
        x = torch.rand(3, 30, 41) * 0.3
        means = [float(untrained.enhance(x, exposure=e).mean()) for e in (0.05, 0.2, 0.5, 0.9)]
        assert means == sorted(means)
        assert means[-1] - means[0] > 0.5

    def test_without_it_a_brightness_is_predicted(self, untrained):
        x = torch.rand(3, 48, 48) * 0.1
        context = untrained.module.context_block
        predicted = context.predict(context.summarise(x[None]))
        assert float(untrained.enhance(x).mean()) == pytest.approx(float(predicted), abs=1e-4)

    def test_untrained_output_is_the_curved_picture(self, untrained):
        x = torch.rand(3, 20, 21)
        log_gain = untrained.module.context(x[None], exposure=torch.tensor([0.6]))
        wanted = untrained.module.context_block.tone(x[None], log_gain)[0]
        torch.testing.assert_close(untrained.enhance(x, exposure=0.6), wanted)

    def test_each_picture_of_a_batch_is_exposed(self, untrained):
        batch = torch.rand(3, 3, 48, 48) * torch.tensor([0.1, 0.4, 1.0]).view(3, 1, 1, 1)
        means = untrained.enhance(batch, exposure=0.5).mean(dim=(1, 2, 3))
        torch.testing.assert_close(means, torch.full((3,), 0.5), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("value", [0.04, 0.96, -1, 5, float("nan"), float("inf")])
    def test_out_of_range(self, untrained, value):
        with pytest.raises(OptionError, match=r"exposure lies between 0\.05 and 0\.95, not"):
            untrained.enhance(torch.rand(3, 4, 4), exposure=value)

    @pytest.mark.parametrize("value", [0.05, 0.95])
    def test_the_ends_of_the_range_are_allowed(self, untrained, value):
        untrained.enhance(torch.rand(3, 4, 4), exposure=value)

    def test_unknown(self, untrained):
        with pytest.raises(OptionError, match=r"no control 'exposur'; it has exposure"):
            untrained.enhance(torch.rand(3, 4, 4), exposur=0.5)

    def test_functions_have_none(self):
        with pytest.raises(OptionError, match=r"no control 'exposure'; it has none"):
            enhancekit.load("gamma").enhance(torch.rand(3, 4, 4), exposure=0.5)

    def test_they_reach_the_code(self, enhancer_of):
        seen = []

        def run(pictures, dtype, controls):
            seen.append(dict(controls))
            return pictures

        enhancer_of(run, controls={"warmth": (0, 1)}).enhance(torch.rand(3, 4, 4), warmth=0.25)
        assert seen == [{"warmth": 0.25}]

    def test_they_are_checked_at_strength_zero_too(self, untrained):
        with pytest.raises(OptionError, match="exposure"):
            untrained.enhance(torch.rand(3, 4, 4), strength=0, exposure=7)


class TestStrength:
    @pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), float("inf")])
    def test_out_of_range(self, untrained, strength):
        with pytest.raises(OptionError, match="strength lies between 0"):
            untrained.enhance(torch.rand(3, 4, 4), strength=strength)

    @pytest.mark.parametrize("strength", ["0.5", None])
    def test_what_is_no_number(self, untrained, strength):
        with pytest.raises(OptionError, match=f"strength lies .*, not {strength!r}"):
            untrained.enhance(torch.rand(3, 4, 4), strength=strength)

    def test_numbers_of_numpy(self, untrained):
        x = torch.rand(3, 8, 8)
        wanted = untrained.enhance(x, exposure=0.5)
        assert torch.equal(untrained.enhance(x, exposure=np.float32(0.5)), wanted)

    def test_zero_never_runs_the_network(self, enhancer_of):
        def run(pictures, dtype, controls):
            raise AssertionError

        x = torch.rand(3, 4, 4)
        assert torch.equal(enhancer_of(run).enhance(x, strength=0), x)

    def test_halfway(self, untrained):
        x = torch.rand(3, 9, 9) * 0.3
        half, full = (untrained.enhance(x, strength=s) for s in (0.5, 1.0))
        torch.testing.assert_close(half, (x + full) / 2)


class TestEnlarging:
    @pytest.mark.parametrize("strength", [0, 0.5, 0.999])
    def test_a_larger_picture_is_not_mixed_with_the_one_that_came(self, enhancer_of, strength):
        def run(pictures, dtype, controls):
            raise AssertionError

        with pytest.raises(OptionError, match=r"acme:probe .*enlarges.*leave strength at 1"):
            enhancer_of(run, scale=2).enhance(torch.rand(3, 4, 4), strength=strength)

    @pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
    def test_an_impossible_strength_is_still_told_as_such(self, enhancer_of, strength):
        with pytest.raises(OptionError, match="strength lies between 0"):
            enhancer_of(lambda *_: None, scale=2).enhance(torch.rand(3, 4, 4), strength=strength)

    @pytest.mark.parametrize("tile", [None, 8])
    @pytest.mark.parametrize("size", SIZES, ids=str)
    def test_any_size_is_doubled(self, size, tile):
        torch.manual_seed(0)
        options = {"pretrained": False, "width": 2, "counts": (0, 1, 1), "device": "cpu"}
        enhancer = excite(enhancekit.load("mfnn-sr-x2", tile=tile, **options))
        for image in (
            np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8),
            np.random.default_rng(0).random(size, np.float32),
        ):
            result = enhancer.enhance(image)
            assert result.shape == (2 * size[0], 2 * size[1], *image.shape[2:])
            assert result.dtype == image.dtype

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_untrained_it_is_cubic_interpolation(self, precision):
        options = {"width": 2, "counts": (0, 1), "back_projection": False, "precision": precision}
        enhancer = enhancekit.load("mfnn-sr-x2", pretrained=False, device="cpu", **options)
        x = torch.rand(3, 9, 8)
        wanted = torch.nn.functional.interpolate(x[None], scale_factor=2.0, mode="bicubic")[0]
        inside = (slice(None), slice(4, -4), slice(4, -4))  # nine rows were padded to ten
        torch.testing.assert_close(enhancer.enhance(x)[inside], wanted.clamp(0, 1)[inside])


class TestSizes:
    @pytest.mark.parametrize("size", SIZES, ids=str)
    @pytest.mark.parametrize("counts", [(1,), (1, 1), (1, 1, 1)], ids=str)
    @pytest.mark.parametrize("tile", [None, 8])
    def test_any(self, size, counts, tile):
        enhancer = excite(load_tiny(counts=counts, tile=tile))
        for image in (
            np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8),
            np.random.default_rng(0).random(size, np.float32),
        ):
            result = enhancer.enhance(image)
            assert result.shape == image.shape
            assert result.dtype == image.dtype
            assert result.max() <= (255 if image.dtype == np.uint8 else 1)

    @pytest.mark.parametrize("context", ["", "mfnn:exposure"])
    def test_a_batch_is_its_pictures(self, context):
        enhancer = excite(load_tiny(context=context))
        batch = torch.rand(3, 3, 18, 23) * torch.tensor([0.1, 0.4, 1.0]).view(3, 1, 1, 1)
        singles = torch.stack([enhancer.enhance(one) for one in batch])
        torch.testing.assert_close(enhancer.enhance(batch), singles, rtol=0, atol=2e-6)

    def test_the_same_picture_gives_the_same_result(self):
        enhancer = excite(load_tiny())
        x = torch.rand(3, 18, 23)
        first = enhancer.enhance(x)
        enhancer.enhance(torch.rand(3, 31, 9))
        assert torch.equal(enhancer.enhance(x), first)

    @pytest.mark.parametrize("tile", [0, -1, "big", 1.5])
    def test_impossible_tiles(self, tile):
        with pytest.raises(OptionError, match="tile is 'auto', None or a number"):
            load_tiny(tile=tile).enhance(torch.rand(3, 4, 4))

    def test_a_wrong_size_from_a_function_is_the_plugins_fault(self, monkeypatch):
        monkeypatch.setattr("enhancekit.builtin.classical.identity", lambda picture: picture[1:])
        with pytest.raises(PluginError, match=r"builtin:identity .*gave the shape \(4, 5, 3\)"):
            enhancekit.load("identity").enhance(np.zeros((5, 5, 3), np.uint8))

    @pytest.mark.parametrize("factor", [1, 3])
    def test_another_scale_from_a_function_is_the_plugins_fault(self, monkeypatch, factor):
        monkeypatch.setattr(
            "enhancekit.builtin.classical.spline_x2",
            lambda picture: picture.repeat(factor, axis=0).repeat(factor, axis=1),
        )
        with pytest.raises(PluginError) as caught:
            enhancekit.load("spline-x2").enhance(np.zeros((5, 4, 3), np.uint8))
        shape = (5 * factor, 4 * factor, 3)
        said = f"gave the shape {shape} for one of (5, 4, 3); it must be (10, 8, 3)"
        assert "enhancer builtin:spline-x2 (enhancekit" in str(caught.value)
        assert said in str(caught.value)

    def test_a_failing_function_is_blamed(self, monkeypatch):
        def broken(picture):
            raise KeyError("oh")

        monkeypatch.setattr("enhancekit.builtin.classical.identity", broken)
        with pytest.raises(PluginError, match=r"builtin:identity .*failed: KeyError"):
            enhancekit.load("identity").enhance(np.zeros((5, 5, 3), np.uint8))


class TestDevice:
    @pytest.mark.parametrize("device", ["tpu", "gpu", "", "cpu:x", "cuda:-1", "meta", "mps"])
    def test_names_that_are_none(self, device):
        with pytest.raises(DeviceError, match=r"use 'auto', 'cpu'"):
            choose_device(device)

    @pytest.mark.parametrize("device", ["cuda:99", "cuda:7"])
    def test_one_too_many(self, device, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        with pytest.raises(DeviceError, match=rf"'{device}' was asked for.*has 2 CUDA devices"):
            choose_device(device)
        assert choose_device("cuda:1") == torch.device("cuda", 1)

    def test_cuda_without_cuda(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        with pytest.raises(DeviceError, match="use device='cpu' or 'auto'"):
            choose_device("cuda")
        assert choose_device("auto") == CPU

    def test_auto_takes_cuda_where_there_is_one(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert choose_device("auto") == torch.device("cuda")

    @pytest.mark.parametrize("name", ["mfnn-lite", "gamma", "identity"])
    @pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
    def test_load_refuses_it(self, name, device):
        options = {"pretrained": False, **TINY} if name == "mfnn-lite" else {}
        with pytest.raises(DeviceError, match="'cpu'"):
            enhancekit.load(name, device=device, **options)

    @needs_cuda
    @pytest.mark.parametrize("kind", ["numpy", "torch"])
    def test_cuda_agrees_with_the_cpu(self, kind):
        cpu, cuda = excite(load_tiny()), excite(load_tiny(device="cuda"))
        cuda.module.load_state_dict(cpu.module.state_dict())
        x = torch.rand(3, 37, 53)
        image = x.permute(1, 2, 0).numpy() if kind == "numpy" else x
        a, b = (torch.as_tensor(e.enhance(image)) for e in (cpu, cuda))
        assert b.device == CPU
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)

    @needs_cuda
    def test_a_tensor_comes_back_to_its_device(self):
        x = torch.rand(3, 9, 9, device="cuda")
        for device in ("cpu", "cuda"):
            assert load_tiny(device=device).enhance(x).device == x.device

    @needs_cuda
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_cuda_precisions(self, precision):
        enhancer = excite(load_tiny(device="cuda", precision=precision))
        assert np.isfinite(enhancer.enhance(np.full((20, 30, 3), 0.2, np.float32))).all()


class TestPrecision:
    @pytest.fixture(autouse=True)
    def native(self, monkeypatch):
        able = {"bf16", "fp16"}
        monkeypatch.setattr(devices, "_computes_natively", lambda device, name: name in able)
        return able

    @pytest.mark.parametrize(
        ("asked", "dtype"),
        [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
    )
    def test_what_was_asked_for(self, native, asked, dtype):
        native.clear()
        assert choose_precision(asked, CPU, {}) == (dtype, "asked for")

    @pytest.mark.parametrize("asked", ["fp64", "", "half", "torch.float32"])
    def test_unknown(self, asked):
        with pytest.raises(OptionError, match="'auto', 'fp32', 'bf16', 'fp16'"):
            choose_precision(asked, CPU, {})

    @pytest.mark.parametrize("parity", [{}, {"bf16": PARITY_DB - 0.1}, {"fp16": 20.0}])
    def test_auto_stays_at_32_bits_without_measured_parity(self, parity):
        dtype, reason = choose_precision("auto", CPU, parity)
        assert dtype == torch.float32
        assert "parity" in reason

    @pytest.mark.parametrize(
        ("parity", "dtype"),
        [
            ({"bf16": PARITY_DB}, torch.bfloat16),
            ({"fp16": 60.0}, torch.float16),
            ({"bf16": 55.0, "fp16": 70.0}, torch.bfloat16),
            ({"bf16": 30.0, "fp16": 70.0}, torch.float16),
        ],
    )
    def test_auto_goes_lower_where_the_card_allows_it(self, parity, dtype):
        chosen, reason = choose_precision("auto", CPU, parity)
        assert chosen == dtype
        assert "by the card" in reason

    def test_auto_stays_at_32_bits_where_it_is_not_native(self, native):
        native.clear()
        dtype, reason = choose_precision("auto", CPU, {"bf16": 60.0})
        assert dtype == torch.float32
        assert "natively" in reason

    def test_an_untrained_network_computes_in_32_bits(self):
        assert load_tiny().precision == torch.float32

    def test_it_reaches_the_enhancer(self):
        enhancer = excite(load_tiny(precision="bf16"))
        assert enhancer.precision == torch.bfloat16
        assert "bf16" in repr(enhancer)
        x = torch.rand(3, 16, 16)
        exact = excite(load_tiny(precision="fp32")).enhance(x)
        half = enhancer.enhance(x)
        assert half.dtype == torch.float32
        assert not torch.equal(half, exact)
        torch.testing.assert_close(half, exact, rtol=0, atol=0.05)


def test_a_cpu_never_computes_fp16_natively():
    assert not devices._computes_natively(CPU, "fp16")


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, pickle.dumps])
def test_copies_are_refused_with_what_to_do(copied):
    with pytest.raises(TypeError, match=r"Enhancer builtin:gamma .*call enhancekit\.load there"):
        copied(enhancekit.load("gamma"))


class TestDefaultsOfTorch:
    """What a caller has set for the whole process, or the thread."""

    OPTIONS: ClassVar = {"width": 4, "counts": (1, 1), "pack": 1}

    @pytest.fixture(params=[torch.float64, torch.float16, torch.bfloat16], ids=str)
    def dtype(self, request):
        before = torch.get_default_dtype()
        torch.set_default_dtype(request.param)
        yield request.param
        torch.set_default_dtype(before)

    @pytest.mark.parametrize("controls", [{}, {"exposure": 0.5}], ids=str)
    def test_another_dtype(self, dtype, controls):
        enhancer = enhancekit.load(
            "mfnn-lite", pretrained=False, precision="fp32", device="cpu", **self.OPTIONS
        )
        assert torch.get_default_dtype() == dtype
        assert {p.dtype for p in enhancer.module.parameters()} == {torch.float32}
        picture = np.full((8, 8, 3), 60, np.uint8)
        assert enhancer.enhance(picture, **controls).shape == picture.shape

    def test_pictures_that_memory_is_measured_for(self, dtype):
        enhancer = enhancekit.load(
            "mfnn-denoise-lite", pretrained=False, precision="fp32", device="cpu", **self.OPTIONS
        )
        picture = np.full((270, 270, 3), 60, np.uint8)
        assert enhancer.enhance(picture).shape == picture.shape
        large = np.full((700, 700, 3), 60, np.uint8)
        assert enhancekit.load("gamma").enhance(large, mode="fast").shape == large.shape

    def test_another_device(self):
        with torch.device("meta"):
            enhancer = enhancekit.load(
                "mfnn-lite", pretrained=False, precision="fp32", device="cpu", **self.OPTIONS
            )
        assert {p.device.type for p in enhancer.module.parameters()} == {"cpu"}


class TestRun:
    @pytest.mark.parametrize(
        "pictures",
        [torch.zeros(3, 4, 4), torch.zeros(1, 4, 4, 4), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)],
        ids=["one picture", "alpha", "bytes"],
    )
    def test_other_shapes_and_kinds(self, pictures):
        with pytest.raises(OptionError, match=r"run takes floats of shape \(N, 3, H, W\), not"):
            enhancekit.load("gamma").run(pictures)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
    def test_other_floats(self, dtype):
        done = enhancekit.load("mfnn-lite", precision="fp32").run(torch.rand(1, 3, 8, 8).to(dtype))
        assert done.dtype == torch.float32
