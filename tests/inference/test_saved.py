"""``load("file:PATH")``: what weights say of themselves is enough to use them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import enhancekit
from enhancekit.batch import enhance_folder
from enhancekit.errors import OptionError, PluginError, UnknownNameError, WeightsError
from enhancekit.export import export
from enhancekit.weights import read_card, save_weights

CONFIG = {"width": 4, "counts": (1, 1), "device": "cpu"}


@pytest.fixture
def trained():
    enhancer = enhancekit.load("mfnn-lite", pretrained=False, **CONFIG)
    torch.manual_seed(2)
    torch.nn.init.normal_(enhancer.module.head.final.weight, std=0.2)
    return enhancer


@pytest.fixture
def path(trained, tmp_path):
    trained.save(tmp_path / "mine.safetensors", license="CC0-1.0")
    return tmp_path / "mine.safetensors"


def test_the_file_is_enough(trained, path):
    again = enhancekit.load(f"file:{path}", device="cpu")
    dark = np.random.default_rng(0).integers(0, 60, (13, 18, 3), np.uint8)
    np.testing.assert_array_equal(
        again.enhance(dark, exposure=0.4), trained.enhance(dark, exposure=0.4)
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(again.entry) == f"enhancer file:mfnn-lite ({path} {digest[:12]})"
    assert again.card.license == "CC0-1.0"


def test_how_it_is_loaded_may_be_said(path):
    enhancer = enhancekit.load(f"file:{path}", device="cpu", precision="bf16", tile=64)
    assert enhancer.precision == torch.bfloat16
    with pytest.raises(OptionError, match="has no option width"):
        enhancekit.load(f"file:{path}", width=8)


def test_an_enhancer_that_has_got_another_config_since(tmp_path):
    assert "block_options" in enhancekit.enhancers.get("mfnn-denoise").spec.config
    made = enhancekit.load(
        "mfnn-denoise", pretrained=False, width=4, counts=(1, 1), block_options={}, device="cpu"
    )
    made.save(tmp_path / "new.safetensors")
    card = read_card(tmp_path / "new.safetensors")
    before = {k: v for k, v in card.config.items() if k != "block_options"}
    state = made.module.state_dict()
    save_weights(tmp_path / "old.safetensors", state, replace(card, config=before))
    again = enhancekit.load(f"file:{tmp_path / 'old.safetensors'}")
    assert again.module.trunks[0].blocks[0].conv1.out_channels == 4
    assert again.entry.spec.config == before


def test_of_two_of_a_name_the_one_with_its_config(make_plugin, tmp_path):
    for name, width in (("one", 4), ("two", 6)):
        config = {"width": width, "counts": (1, 1)}
        spec = {"name": "net", "task": name, "backbone": "mfnn:mfnn", "config": config}
        make_plugin(name=name, distribution=f"the-{name}", enhancers=[spec])
    for name in ("one", "two"):
        enhancekit.load(f"{name}:net", pretrained=False).save(tmp_path / "a.safetensors")
        assert enhancekit.load(f"file:{tmp_path / 'a.safetensors'}").entry.spec.task == name


def test_anothers_of_that_name_whose_network_is_missing(make_plugin, tmp_path):
    for name, backbone in (("aa", "gone:net"), ("bb", "mfnn:mfnn")):
        config = {"width": 4, "counts": (1, 1)} if name == "bb" else {}
        spec = {"name": "night", "task": name, "backbone": backbone, "config": config}
        make_plugin(name=name, distribution=f"the-{name}", enhancers=[spec])
    enhancekit.load("bb:night", pretrained=False).save(tmp_path / "a.safetensors")
    assert enhancekit.load(f"file:{tmp_path / 'a.safetensors'}").entry.spec.task == "bb"


def test_a_default_that_changes_later(make_plugin, tmp_path, monkeypatch):
    code = """
        import torch
        from enhancekit.specs import SizeRequirements

        class Net(torch.nn.Module):
            size_requirements = SizeRequirements()

            def __init__(self, gain=DEFAULT):
                super().__init__()
                self.gain, self.weight = gain, torch.nn.Parameter(torch.ones(()))

            def forward(self, x):
                return x * self.weight * self.gain
        """
    spec = {"name": "net", "task": "tone", "backbone": "orbit:net"}
    given = {"backbones": [{"name": "net", "target": "{code}:Net"}], "enhancers": [spec]}
    make_plugin(code=code.replace("DEFAULT", "0.5"), **given)
    enhancekit.load("net", pretrained=False).save(tmp_path / "a.safetensors")
    network = enhancekit.backbones.get("net").target()
    monkeypatch.setattr(network.__init__, "__defaults__", (0.25,))
    assert enhancekit.load("net", pretrained=False).module.gain == 0.25
    again = enhancekit.load(f"file:{tmp_path / 'a.safetensors'}")
    assert again.module.gain == 0.5
    with pytest.raises(WeightsError, match=r"gain: 0\.5 there, 0\.25 asked for"):
        enhancekit.load("net", weights=tmp_path / "a.safetensors")


def test_a_folder_is_not_done_again_for_another_spelling(path, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "a.png")
    monkeypatch.chdir(tmp_path)
    statuses = []
    for name in (f"file:{path}", "file:mine.safetensors"):
        (result,) = enhance_folder("in", "out", name, device="cpu", overwrite="stale")
        statuses.append(result.status)
    assert statuses == ["done", "kept"]
    record = json.loads((tmp_path / "out/manifest.jsonl").read_text().splitlines()[0])
    assert record["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_info_shows_its_own_config(cli, path):
    done = cli("info", f"file:{path}", "--json")
    assert json.loads(done.out)["config"]["width"] == 4


def test_it_is_exported(trained, path, tmp_path, monkeypatch):
    given = []

    def translated(module, **how):
        given.append((module.state_dict(), how["controls"]))
        raise PluginError("far enough")  # translating takes long, and is tested elsewhere

    monkeypatch.setattr("enhancekit.export.whole_graph", translated)
    with pytest.raises(PluginError, match="far enough"):
        export(f"file:{path}", tmp_path / "a.onnx")
    ((state, controls),) = given
    assert controls == ("exposure",)
    for name, value in trained.module.state_dict().items():
        assert torch.equal(state[name], value)


def test_a_network_nobody_has(path, tmp_path):
    card = replace(read_card(path), name="net", backbone="acme:net")
    save_weights(tmp_path / "theirs.safetensors", {"x": torch.ones(1)}, card)
    with pytest.raises(UnknownNameError, match=r"file:.*theirs.* install the plugin 'acme'"):
        enhancekit.load(f"file:{tmp_path / 'theirs.safetensors'}")


def test_a_config_that_would_say_how_to_load(path, trained, tmp_path):
    card = replace(read_card(path), config={"device": "cuda"})
    save_weights(tmp_path / "odd.safetensors", trained.module.state_dict(), card)
    with pytest.raises(WeightsError, match="device in its config are no options"):
        enhancekit.load(f"file:{tmp_path / 'odd.safetensors'}")


def test_on_the_command_line(cli, path, tmp_path):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (11, 9), (40, 30, 20)).save(photo)
    done = cli("enhance", photo, "-o", tmp_path / "out.png", "-e", f"file:{path}")
    assert done.code == 0, done.err
    with Image.open(tmp_path / "out.png") as made:
        assert made.size == (11, 9)
