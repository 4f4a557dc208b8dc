"""`load`: from a name to an enhancer, never with random weights in silence."""

from __future__ import annotations

import hashlib
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch

import enhancekit
from enhancekit.errors import OptionError, PluginError, UnknownNameError, WeightsError
from enhancekit.inference.network import build_network, resolve_config
from enhancekit.plugins import host
from enhancekit.registry import Entry, Provider
from enhancekit.specs import BackboneSpec, EnhancerSpec, WeightsSpec
from enhancekit.weights import Card, read_card, save_weights

TINY = {"width": 4, "counts": (1, 1), "pack": 1}
CONFIG = {"width": 4, "counts": [1, 1], "context": "mfnn:exposure"}


def card(**changes):
    stated = {"name": "mfnn-lite", "backbone": "mfnn:mfnn", "config": CONFIG, **changes}
    return Card(**stated)


def noisy_module():
    torch.manual_seed(3)
    module = enhancekit.load("mfnn-lite", pretrained=False, **TINY).module
    torch.nn.init.normal_(module.head.final.weight, std=0.2)
    return module


@pytest.fixture
def trained(tmp_path):
    """A file of weights that make a visible difference."""
    path = tmp_path / "tiny.safetensors"
    save_weights(path, noisy_module().state_dict(), card())
    return path


@pytest.fixture(scope="module")
def dark():
    return np.random.default_rng(0).integers(0, 60, (19, 22, 3), np.uint8)


class TestWithoutWeights:
    @pytest.mark.parametrize("name", ["mfnn-report", "mfnn-paper"])
    def test_none_are_shipped(self, name):
        with pytest.raises(WeightsError) as caught:
            enhancekit.load(name)
        said = str(caught.value)
        assert f"enhancer mfnn:{name} (enhancekit-mfnn" in said
        assert "ships no trained weights" in said
        assert f"`enhancekit train enhancekit_mfnn:recipes/{name}.toml" in said
        assert "pretrained=False" in said

    def test_none_exist_for_this_config(self):
        with pytest.raises(WeightsError, match=r"enhancekit train .*pretrained=False"):
            enhancekit.load("mfnn-lite", width=6)

    def test_untrained_ones_on_request(self, dark):
        enhancer = enhancekit.load("mfnn-lite", pretrained=False, **TINY)
        assert enhancer.card is None
        assert not enhancer.module.training
        assert not any(p.requires_grad for p in enhancer.module.parameters())
        assert enhancer.enhance(dark).shape == dark.shape

    def test_both_at_once_contradict(self, trained):
        with pytest.raises(OptionError, match="contradict"):
            enhancekit.load("mfnn-lite", pretrained=False, weights=trained, **TINY)

    @pytest.mark.parametrize("options", [{"pretrained": False}, {"weights": "a.safetensors"}])
    def test_functions_have_no_weights(self, options):
        with pytest.raises(OptionError, match=r"builtin:gamma .*is a function; it has no weights"):
            enhancekit.load("gamma", **options)

    def test_functions_have_nothing_to_train(self):
        with pytest.raises(OptionError, match="nothing to train"):
            resolve_config(host().enhancers.get("gamma"), {})


class TestNames:
    @pytest.mark.parametrize("name", [None, 3])
    def test_not_a_name(self, name):
        with pytest.raises(OptionError, match=f"by its name, not by {name}"):
            enhancekit.load(name)

    def test_unknown(self):
        with pytest.raises(UnknownNameError, match="did you mean 'mfnn"):
            enhancekit.load("mfnnn")

    @pytest.mark.parametrize("name", ["gamma", "builtin:gamma"])
    def test_short_and_qualified(self, name):
        assert enhancekit.load(name).entry.qualified_name == "builtin:gamma"


class TestOptions:
    def test_unknown_to_a_network(self):
        with pytest.raises(OptionError, match=r"no option widht, zoom; it has .*width"):
            enhancekit.load("mfnn-lite", pretrained=False, widht=4, zoom=2)

    def test_unknown_to_a_function(self):
        with pytest.raises(OptionError, match=r"builtin:gamma .*no option gama; it has gamma"):
            enhancekit.load("gamma", gama=2)

    @pytest.mark.parametrize("value", ["abc", None, True])
    def test_no_number_where_a_function_needs_one(self, value):
        with pytest.raises(OptionError, match=f"gamma is a number, not {value!r}"):
            enhancekit.load("gamma", gamma=value)

    def test_a_function_that_takes_any(self, make_plugin):
        code = "def kept(picture, **options):\n    return picture * options.get('by', 1)"
        make_plugin(
            code=code, enhancers=[{"name": "kept", "task": "tone", "target": "{code}:kept"}]
        )
        dark = np.full((2, 2, 3), 0.5, np.float32)
        assert enhancekit.load("kept", by=0.5).enhance(dark).max() == 0.25

    def test_unknown_to_a_function_without_any(self):
        with pytest.raises(OptionError, match="no option gamma; it has none"):
            enhancekit.load("identity", gamma=2)

    def test_impossible_for_a_network(self):
        with pytest.raises(OptionError, match="width must be an even number"):
            enhancekit.load("mfnn-lite", pretrained=False, width=5)

    def test_an_unknown_block(self):
        with pytest.raises(UnknownNameError, match="no block is called 'acme:fastest'"):
            enhancekit.load("mfnn-lite", pretrained=False, block="acme:fastest")

    def test_they_come_over_the_config(self):
        entry = host().enhancers.get("mfnn-lite")
        backbone, config = resolve_config(entry, {"width": 4, "norm": True})
        assert backbone.qualified_name == "mfnn:mfnn"
        assert config == {**entry.spec.config, "width": 4, "norm": True}


class TestOwnWeights:
    def test_round_trip(self, trained, dark):
        enhancer = enhancekit.load("mfnn-lite", weights=trained, **TINY)
        assert enhancer.card == card()
        wanted = noisy_module().state_dict()
        had = enhancer.module.state_dict()
        assert had.keys() == wanted.keys()
        assert all(torch.equal(had[k], v) for k, v in wanted.items())
        untrained = enhancekit.load("mfnn-lite", pretrained=False, **TINY)
        result = enhancer.enhance(dark, exposure=0.4)
        assert not np.array_equal(result, untrained.enhance(dark, exposure=0.4))
        again = enhancekit.load("mfnn-lite", weights=str(trained), **TINY)
        np.testing.assert_array_equal(again.enhance(dark, exposure=0.4), result)

    def test_another_variant_of_the_same_config_may_use_them(self, trained):
        assert enhancekit.load("mfnn", weights=trained, **TINY).card.name == "mfnn-lite"

    @pytest.mark.parametrize("options", [{"dropout": 0.5}, {"checkpointing": True}])
    def test_options_for_training_only_do_not_matter(self, trained, dark, options):
        plain = enhancekit.load("mfnn-lite", weights=trained, **TINY)
        other = enhancekit.load("mfnn-lite", weights=trained, **TINY, **options)
        np.testing.assert_array_equal(other.enhance(dark), plain.enhance(dark))

    def test_an_option_at_its_default_does_not_matter(self, trained):
        enhancer = enhancekit.load("mfnn-lite", weights=trained, **TINY, norm=False)
        assert enhancer.card == card()

    @pytest.mark.parametrize(
        ("options", "differing", "equal"),
        [
            ({"width": 8}, ["width: 4 there, 8 asked for"], ["counts", "context"]),
            ({"counts": (1, 2)}, ["counts: [1, 1] there, [1, 2] asked for"], ["width"]),
            ({"context": ""}, ["context: 'mfnn:exposure' there, '' asked for"], ["width"]),
            (
                {"width": 2, "share_weights": True},
                ["width: 4 there, 2 asked for", "share_weights: 'unset' there, True asked for"],
                ["counts"],
            ),
        ],
    )
    def test_another_config_names_the_keys(self, trained, options, differing, equal):
        with pytest.raises(WeightsError, match=r"tiny\.safetensors .*'mfnn-lite'") as caught:
            enhancekit.load("mfnn-lite", weights=trained, **{**TINY, **options})
        said = str(caught.value)
        assert all(line in said for line in differing)
        assert not any(f"{key}:" in said for key in equal)
        assert "enhancekit train" in said

    def test_another_backbone_is_refused(self, tmp_path):
        path = tmp_path / "other.safetensors"
        save_weights(path, noisy_module().state_dict(), card(backbone="acme:unet"))
        with pytest.raises(WeightsError, match="backbone: 'acme:unet' there, 'mfnn:mfnn' asked"):
            enhancekit.load("mfnn-lite", weights=path, **TINY)

    def test_missing_file(self, tmp_path):
        with pytest.raises(WeightsError, match=r"none\.safetensors does not exist"):
            enhancekit.load("mfnn-lite", weights=tmp_path / "none.safetensors", **TINY)

    @pytest.mark.parametrize("weights", ["", "."])
    def test_no_file(self, weights):
        with pytest.raises(WeightsError):
            enhancekit.load("mfnn-lite", weights=weights, **TINY)

    def test_parity_of_the_card_decides_the_precision(self, tmp_path, monkeypatch):
        path = tmp_path / "a.safetensors"
        save_weights(path, noisy_module().state_dict(), card(parity_db={"bf16": 60.0}))
        monkeypatch.setattr(
            "enhancekit.inference.device._computes_natively", lambda device, name: True
        )
        auto = enhancekit.load("mfnn-lite", weights=path, device="cpu", **TINY)
        assert auto.precision == torch.bfloat16
        assert "60 dB" in auto.precision_reason
        full = enhancekit.load("mfnn-lite", weights=path, precision="fp32", **TINY)
        assert full.precision == torch.float32


class TestShippedWeights:
    """A plugin that ships weights, as its enhancer would be found in the registry."""

    @pytest.fixture
    def entry(self, trained, tmp_path, monkeypatch):
        package = tmp_path / "acme_shipped"
        package.mkdir()
        (package / "__init__.py").write_text("")
        trained.rename(package / "tiny.safetensors")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "acme_shipped", raising=False)
        digest = hashlib.sha256((package / "tiny.safetensors").read_bytes()).hexdigest()
        spec = EnhancerSpec(
            name="tiny",
            summary="Tiny",
            task="low-light",
            backbone="mfnn:mfnn",
            config=CONFIG,
            weights=WeightsSpec("acme_shipped:tiny.safetensors", digest),
            train_hint="acme train tiny",
        )
        return Entry(spec, Provider("acme", "acme-shipped", "1.0"), "enhancer")

    def test_are_used(self, entry):
        module, stated = build_network(entry, {})
        assert stated == card()
        assert torch.equal(module.head.final.weight, noisy_module().head.final.weight)

    def test_not_for_another_config(self, entry):
        with pytest.raises(WeightsError, match=r"width: 4 there, 8 asked for.*acme train tiny"):
            build_network(entry, {"width": 8})

    def test_untrained_on_request(self, entry):
        module, stated = build_network(entry, {}, pretrained=False)
        assert stated is None
        assert not module.head.final.weight.any()

    def test_changed_files_are_refused(self, entry, tmp_path):
        path = tmp_path / "acme_shipped" / "tiny.safetensors"
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(WeightsError, match="were changed: SHA-256"):
            build_network(entry, {})


class TestScale:
    @pytest.mark.parametrize(
        ("name", "options", "said"),
        [
            ("mfnn-lite", {"scale": 2}, "declares the scale 1, but its network has 2"),
            (
                "mfnn-sr-x2",
                {"scale": 1, "back_projection": False},
                "declares the scale 2, but its network has 1",
            ),
        ],
    )
    def test_of_the_network_is_the_declared_one(self, name, options, said):
        with pytest.raises(PluginError, match=rf"enhancer mfnn:{name} \(enhancekit-mfnn .*{said}"):
            enhancekit.load(name, pretrained=False, **TINY, **options)

    @pytest.mark.parametrize("scale", [1, 3])
    def test_of_a_third_partys_function(self, make_plugin, dark, scale):
        make_plugin(
            enhancers=[
                {"name": "large", "task": "tone", "target": "{code}:enlarge", "scale": scale}
            ],
            code=f"""
            def enlarge(picture):
                return picture.repeat({scale}, axis=0).repeat({scale}, axis=1)
            """,
        )
        wanted = dark.repeat(scale, axis=0).repeat(scale, axis=1)
        np.testing.assert_array_equal(enhancekit.load("orbit:large").enhance(dark), wanted)


class TestBrokenBackbones:
    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("fractions:Fraction", r"made a Fraction, not a torch\.nn\.Module"),
            ("torch.nn:Identity", "has no `size_requirements`"),
            ("acme_nowhere:Net", "cannot be imported: ModuleNotFoundError"),
            ("operator:truediv", r"failed while being created with .*TypeError"),
        ],
    )
    def test_are_blamed_by_name(self, monkeypatch, target, said):
        provider = Provider("acme", "acme-nets", "2.0")
        backbone = Entry(
            BackboneSpec(name="net", summary="A network", target=target), provider, "backbone"
        )
        spec = EnhancerSpec(name="x", summary="X", task="tone", backbone="acme:net")
        monkeypatch.setattr(
            "enhancekit.inference.network.resolve_config", lambda entry, options: (backbone, {})
        )
        with pytest.raises(PluginError, match=rf"backbone acme:net \(acme-nets 2\.0\).*{said}"):
            build_network(Entry(spec, provider, "enhancer"), {}, pretrained=False)


class TestControlsOfFunctions:
    CODE = "def toned(picture, amount=0.5, by=1):\n    return picture * amount * by"
    SPEC: ClassVar = {"name": "toned", "task": "tone", "target": "{code}:toned"}

    def test_go_over_the_options(self, make_plugin):
        make_plugin(code=self.CODE, enhancers=[{**self.SPEC, "controls": {"amount": (0.0, 1.0)}}])
        white = np.ones((2, 2, 3), np.float32)
        enhancer = enhancekit.load("toned", by=0.5)
        assert enhancer.enhance(white).max() == 0.25
        assert enhancer.enhance(white, amount=1.0).max() == 0.5
        assert enhancekit.load("toned", amount=0.25).enhance(white).max() == 0.25
        with pytest.raises(OptionError, match="amount lies between 0 and 1, not 2"):
            enhancekit.load("toned", amount=2)

    def test_that_it_has_not(self, make_plugin):
        make_plugin(code=self.CODE, enhancers=[{**self.SPEC, "controls": {"glow": (0.0, 1.0)}}])
        with pytest.raises(PluginError, match=r"orbit:toned .*controls its target has not: glow"):
            enhancekit.load("toned")


class TestOddTargets:
    def test_what_cannot_be_called(self, make_plugin):
        make_plugin(enhancers=[{"name": "pi", "task": "t", "target": "math:pi"}])
        with pytest.raises(PluginError, match=r"pi .*names 'math:pi', which cannot be called"):
            enhancekit.load("pi")

    def test_one_that_does_not_tell_what_it_takes(self, make_plugin, dark):
        make_plugin(enhancers=[{"name": "max", "task": "t", "target": "builtins:max"}])
        with pytest.raises(PluginError, match=r"max .*failed"):
            enhancekit.load("max").enhance(dark)

    def test_layers_without_a_shape_yet(self, make_plugin):
        code = """
            import enhancekit, torch
            class Net(torch.nn.Module):
                size_requirements = enhancekit.SizeRequirements(halo=0)
                def __init__(self):
                    super().__init__()
                    self.conv = torch.nn.LazyConv2d(3, 1)
        """
        make_plugin(
            code=code,
            backbones=[{"name": "lazy", "target": "{code}:Net"}],
            enhancers=[{"name": "late", "task": "t", "backbone": "lazy"}],
        )
        with pytest.raises(PluginError, match=r"orbit:lazy .*has lazy layers"):
            enhancekit.load("late", pretrained=False)


PARTS = """
import torch
from enhancekit.specs import SizeRequirements


class Net(torch.nn.Module):
    size_requirements = SizeRequirements()

    def __init__(self, opts=None, act={act!r}):
        super().__init__()
        self.n = (opts or {{}}).pop("n", 0)
        self.act = getattr(torch, act)
        self.lut = torch.nn.Parameter(torch.zeros(1, 3, 5, 5, 5))

    def forward(self, x):
        return self.act(x + self.lut.mean())
"""


class TestOddNetworks:
    @pytest.fixture
    def odd(self, make_plugin, fresh_host):
        def make(act="tanh"):
            spec = {"name": "net", "target": "{code}:Net", "config": {"opts": {"n": 3}}}
            enhancer = {"name": "net", "task": "tone", "backbone": "orbit:net"}
            make_plugin(backbones=[spec], enhancers=[enhancer], code=PARTS.format(act=act))

        return make

    def test_a_table_of_colours_has_five_dimensions(self, odd):
        odd()
        enhancer = enhancekit.load("net", pretrained=False, device="cpu")
        assert enhancer.enhance(np.zeros((4, 5, 3), np.uint8)).shape == (4, 5, 3)

    def test_a_config_is_not_changed_by_a_constructor(self, odd):
        odd()
        found = [enhancekit.load("net", pretrained=False).module.n for _ in range(2)]
        assert found == [3, 3]

    def test_the_card_holds_defaults_too(self, odd, tmp_path):
        odd()
        made = enhancekit.load("net", pretrained=False, device="cpu")
        made.save(tmp_path / "a.safetensors")
        assert read_card(tmp_path / "a.safetensors").config == {"opts": {"n": 3}, "act": "tanh"}
