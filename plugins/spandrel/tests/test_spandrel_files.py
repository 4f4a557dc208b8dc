"""Our side of the bridge to spandrel, against a stand-in; and the real one where it is there."""

from __future__ import annotations

import subprocess
import sys

import fake_spandrel
import numpy as np
import pytest
import torch
from enhancekit_spandrel.__main__ import convert
from safetensors.torch import load_file, save_file

import enhancekit
from enhancekit.errors import DeviceError, OptionError, PluginError, UnknownNameError, WeightsError
from enhancekit.testing import PluginCase, parametrize_with_checks


@parametrize_with_checks(PluginCase("spandrel"))
def test_conformance(check):
    check()


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", fake_spandrel)
    monkeypatch.setattr(fake_spandrel, "seen", [])
    monkeypatch.setattr(fake_spandrel, "changes", {})


def weight(channels=3):
    kernel = torch.rand(channels, channels, 3, 3, generator=torch.Generator().manual_seed(0))
    return kernel / kernel.sum(dim=(1, 2, 3), keepdim=True)


@pytest.fixture
def file(tmp_path):
    return saved(tmp_path / "2x Tiny_Net v1.safetensors", scale=2)


def saved(path, scale=1, channels=3):
    save_file({"conv.weight": weight(channels), "scale": torch.tensor(scale)}, path)
    return path


def picture(height=21, width=34):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))


def load(path, **options):
    return enhancekit.load(f"spandrel:{path}", device="cpu", **options)


class TestWhatTheDescriptorSays:
    def test_scale_and_name(self, file):
        enhancer = load(file)
        assert str(enhancer.entry).startswith(f"enhancer spandrel:2x-tiny-net-v1 ({file.name} ")
        assert enhancer.entry.spec.scale == 2
        assert enhancer.entry.spec.task == "super-resolution"
        assert enhancer.entry.spec.summary == "Fake Net tiny"
        done = enhancer.enhance(picture())
        kernel = weight()
        wanted = torch.nn.functional.conv2d(picture()[None], kernel, padding=1)[0]
        assert done.shape == (3, 42, 68)
        torch.testing.assert_close(done[:, ::2, ::2], wanted)

    def test_another_file_is_another_version(self, file, tmp_path):
        other = saved(tmp_path / "other.safetensors", scale=1)
        assert load(file).entry.provider.version != load(other).entry.provider.version
        assert load(other).entry.spec.task == "restoration"

    def test_a_batch_goes_one_by_one(self, file):
        batch = torch.stack([picture(), 0.5 * picture()])
        done = load(file).enhance(batch)
        assert [s[0] for s in fake_spandrel.seen] == [1, 1]
        torch.testing.assert_close(done[1], load(file).enhance(batch[1]))

    def test_grey_models_get_each_channel(self, tmp_path):
        path = saved(tmp_path / "grey.safetensors", channels=1)
        done = load(path).enhance(picture())
        kernel = weight(1)
        wanted = torch.nn.functional.conv2d(picture()[:, None], kernel, padding=1)[:, 0]
        torch.testing.assert_close(done, wanted)

    def test_sizes(self, file, monkeypatch):
        needs = fake_spandrel.SizeRequirements(minimum=32, multiple_of=16)
        monkeypatch.setattr(fake_spandrel, "changes", {"size_requirements": needs})
        assert load(file).enhance(picture(1, 40)).shape == (3, 2, 80)
        assert fake_spandrel.seen == [(1, 3, 32, 48)]

    @pytest.mark.parametrize("channels", [(4, 4), (1, 3), (3, 1)])
    def test_other_channels_are_refused(self, file, monkeypatch, channels):
        given = dict(zip(("input_channels", "output_channels"), channels, strict=True))
        monkeypatch.setattr(fake_spandrel, "changes", given)
        with pytest.raises(OptionError, match=f"{channels[0]} channels to {channels[1]}; only"):
            load(file)


class TestTiles:
    def test_give_what_the_whole_gives_where_the_overlap_suffices(self, file):
        whole = load(file, tile=None).enhance(picture(90, 70))
        fake_spandrel.seen.clear()
        tiled = load(file, tile=32, overlap=1).enhance(picture(90, 70))
        assert len(fake_spandrel.seen) == 9
        torch.testing.assert_close(tiled, whole)

    def test_auto(self, file):
        load(file).enhance(picture(4, 520))
        assert [s[3] for s in fake_spandrel.seen] == [512 + 8, 8 + 32]

    @pytest.mark.parametrize("tiling", ["DISCOURAGED", "INTERNAL"])
    def test_none_where_they_are_not_supported(self, file, monkeypatch, tiling):
        given = {"tiling": fake_spandrel.ModelTiling[tiling]}
        monkeypatch.setattr(fake_spandrel, "changes", given)
        load(file).enhance(picture(4, 520))
        assert [s[3] for s in fake_spandrel.seen] == [520]
        with pytest.raises(OptionError, match="use tile=None"):
            load(file, tile=256).enhance(picture())

    @pytest.mark.parametrize("overlap", [-1, 1.5, True])
    def test_impossible_overlap(self, file, overlap):
        with pytest.raises(OptionError, match="overlap is a number of pixels, at least 0"):
            load(file, overlap=overlap)


class TestPrecision:
    @pytest.mark.parametrize(
        ("name", "field"), [("fp16", "supports_half"), ("bf16", "supports_bfloat16")]
    )
    def test_what_it_does_not_support(self, file, monkeypatch, name, field):
        monkeypatch.setattr(fake_spandrel, "changes", {field: False})
        with pytest.raises(DeviceError, match=f"Fake Net, which cannot be computed in {name}"):
            load(file, precision=name)

    def test_what_it_does(self, file):
        done = load(file, precision="bf16").enhance(picture())
        torch.testing.assert_close(done, load(file).enhance(picture()), rtol=0, atol=0.02)

    def test_auto_is_32_bits(self, file):
        assert load(file).precision == torch.float32

    def test_other_engines(self, file):
        with pytest.raises(OptionError, match="computed by torch, not by engine='openvino'"):
            load(file, engine="openvino")


class TestRefused:
    def test_a_missing_pickle(self, tmp_path):
        with pytest.raises(WeightsError, match=r"a\.pth does not exist"):
            load(tmp_path / "a.pth")

    def test_missing(self, tmp_path):
        with pytest.raises(WeightsError, match=r"a\.safetensors does not exist"):
            load(tmp_path / "a.safetensors")

    def test_damaged(self, file):
        file.write_bytes(file.read_bytes()[:-7])
        with pytest.raises(WeightsError, match="is damaged"):
            load(file)

    def test_unknown_architecture(self, tmp_path):
        save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
        with pytest.raises(WeightsError, match="no architecture that spandrel knows"):
            load(tmp_path / "a.safetensors")

    def test_a_mask_is_needed(self, tmp_path):
        save_file({"mask": torch.zeros(1)}, tmp_path / "a.safetensors")
        with pytest.raises(WeightsError, match=r"needs more than a picture \(Inpainting\)"):
            load(tmp_path / "a.safetensors")

    def test_other_formats(self, tmp_path):
        (tmp_path / "a.onnx").touch()
        with pytest.raises(WeightsError, match=r"a\.onnx is no \.safetensors file"):
            load(tmp_path / "a.onnx", allow_pickle=True)

    def test_unknown_options(self, file):
        with pytest.raises(OptionError, match="no option width; it has allow_pickle, overlap"):
            load(file, width=4)

    @pytest.mark.parametrize("error", [ModuleNotFoundError("spandrel"), RuntimeError("nms")])
    def test_spandrel_cannot_be_imported(self, file, monkeypatch, error):
        class Broken:
            def find_spec(self, name, path=None, target=None):
                if name == "spandrel":
                    raise error

        monkeypatch.delitem(sys.modules, "spandrel")
        monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
        with pytest.raises(PluginError, match=r"spandrel cannot be imported: .*pip install"):
            load(file)


class TestPickles:
    @pytest.fixture
    def pickled(self, tmp_path):
        path = tmp_path / "model.pth"
        state = {"conv.weight": weight(), "scale": torch.tensor(2)}
        torch.save({"params_ema": state}, path)
        return path

    def test_refused(self, pickled):
        said = r"model\.pth is a pickle, .*python -m enhancekit_spandrel .*model\.pth`"
        with pytest.raises(WeightsError, match=said):
            load(pickled)

    def test_allowed(self, pickled, file):
        wanted = load(file).enhance(picture())
        torch.testing.assert_close(load(pickled, allow_pickle=True).enhance(picture()), wanted)

    def test_converted(self, pickled):
        target = convert(pickled)
        assert target.name == "model.safetensors"
        assert torch.equal(load_file(target)["conv.weight"], weight())
        assert load(target).entry.spec.scale == 2
        with pytest.raises(WeightsError, match="exists already"):
            convert(pickled)

    def test_what_cannot_be_converted(self, tmp_path):
        (tmp_path / "a.pth").write_bytes(b"no pickle")
        with pytest.raises(WeightsError, match=r"a\.pth cannot be read"):
            convert(tmp_path / "a.pth")
        assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]

    def test_usage(self):
        command = [sys.executable, "-m", "enhancekit_spandrel"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (
            1,
            "usage: python -m enhancekit_spandrel model.pth\n",
        )


def test_without_the_plugin_the_schemes_are_told(monkeypatch):
    from enhancekit.plugins import Host, use

    before = use(Host({"ENHANCEKIT_DISABLE_PLUGINS": "spandrel"}))
    try:
        with pytest.raises(UnknownNameError, match="no scheme is called 'spandrel', only"):
            enhancekit.load("spandrel:/models/a.safetensors")
    finally:
        use(before)


def test_on_the_command_line(file, tmp_path, capsys, monkeypatch):
    from PIL import Image

    from enhancekit.cli import main

    Image.fromarray(np.full((6, 9, 3), 90, np.uint8)).save(tmp_path / "small.png")
    names = [str(tmp_path / n) for n in ("small.png", "large.png")]
    command = ["enhancekit", "enhance", names[0], "-o", names[1], "-e", f"spandrel:{file}"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, capsys.readouterr().err
    with Image.open(names[1]) as large:
        assert large.size == (18, 12)


class TestTheRealOne:
    @pytest.fixture(autouse=True)
    def _real(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "spandrel")
        try:
            import spandrel  # noqa: F401
        except Exception as error:  # noqa: BLE001  a torchvision of another build raises RuntimeError
            pytest.skip(f"spandrel cannot be imported here: {error}")

    @pytest.mark.parametrize("upscale", [1, 2])
    def test_a_compact_network(self, tmp_path, upscale):
        from spandrel.architectures.Compact import Compact

        torch.manual_seed(0)
        network = Compact(num_feat=8, num_conv=2, upscale=upscale)
        path = tmp_path / "compact.safetensors"
        save_file(network.state_dict(), path)
        enhancer = load(path)
        assert enhancer.entry.spec.scale == upscale
        with torch.inference_mode():
            wanted = network(picture()[None])[0].clamp(0, 1)
        torch.testing.assert_close(enhancer.enhance(picture()), wanted)
        tiled = load(path, tile=16, overlap=8).enhance(picture())
        torch.testing.assert_close(tiled, wanted)
