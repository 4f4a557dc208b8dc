"""What a plugin hands over is checked where it is made, and imported only on use."""

from __future__ import annotations

import dataclasses
import inspect
import sys

import pytest

from enhancekit.errors import EnhanceKitError, PluginError, SpecError
from enhancekit.inference.loading import load
from enhancekit.serve.asked import OPTIONS
from enhancekit.specs import (
    LOAD_ARGUMENTS,
    BackboneSpec,
    BlockSpec,
    EnhancerSpec,
    LossSpec,
    MetricSpec,
    SchemeSpec,
    SizeRequirements,
    WeightsSpec,
    load_target,
)

GOOD = {
    BackboneSpec: {},
    BlockSpec: {"role": "residual"},
    LossSpec: {},
    MetricSpec: {"higher_is_better": True, "protocol": "RGB"},
    EnhancerSpec: {"task": "tone"},
    SchemeSpec: {},
}
BASE = {"name": "tiny", "summary": "A thing", "target": "acme.things:Thing"}


def make(kind, **changes):
    return kind(**{**BASE, **GOOD[kind], **changes})


@pytest.mark.parametrize("kind", GOOD)
class TestEveryKind:
    def test_frozen(self, kind):
        spec = make(kind)
        with pytest.raises(dataclasses.FrozenInstanceError):
            spec.name = "other"
        assert spec.name == "tiny"

    def test_equal_by_value(self, kind):
        assert make(kind) == make(kind)
        assert make(kind) != make(kind, name="other")

    @pytest.mark.parametrize("name", ["a", "mfnn-lite", "ms_ssim", "v1.2", "2x", "a-b_c.d"])
    def test_good_names(self, kind, name):
        assert make(kind, name=name, aliases=(f"{name}0",)).name == name

    @pytest.mark.parametrize(
        "name",
        ["", "Gamma", "two words", "-a", "a-", "a--b", "plugin:name", "a\n", "é", "a+b", "2*l1"],
    )
    @pytest.mark.parametrize("field", ["name", "aliases"])
    def test_bad_names(self, kind, name, field):
        given = name if field == "name" else (name,)
        with pytest.raises(SpecError, match=rf"{kind.__name__} name .* is not lower-case") as info:
            make(kind, **{field: given})
        assert repr(name) in str(info.value)

    @pytest.mark.parametrize("summary", ["", "  ", "two\nlines"])
    def test_summary_is_one_line(self, kind, summary):
        with pytest.raises(SpecError, match="'tiny' needs a one-line summary"):
            make(kind, summary=summary)

    @pytest.mark.parametrize(
        "target", ["acme.things", "acme.things:", ":Thing", "acme things:Thing", "a:b:c", "a/b:c"]
    )
    def test_target_names_a_module_and_an_attribute(self, kind, target):
        with pytest.raises(SpecError, match=r"'tiny'.*is not 'package\.module:attribute'"):
            make(kind, target=target)

    def test_target_is_not_imported(self, kind):
        make(kind, target="nowhere_to_be_found:Thing")
        assert "nowhere_to_be_found" not in sys.modules

    def test_no_target(self, kind):
        with pytest.raises(SpecError, match=r"'tiny' (names no target|needs either)"):
            make(kind, target="")


def test_errors_are_of_the_family():
    with pytest.raises(EnhanceKitError):
        make(LossSpec, name="No Good")
    with pytest.raises(ValueError, match="No Good"):
        make(LossSpec, name="No Good")


@pytest.mark.parametrize("kind", [BackboneSpec, EnhancerSpec])
def test_config_cannot_be_changed(kind):
    given = {"width": 4}
    spec = make(kind, config=given)
    given["width"] = 8
    assert spec.config["width"] == 4
    with pytest.raises(TypeError):
        spec.config["width"] = 8


def test_controls_cannot_be_changed():
    spec = make(EnhancerSpec, controls={"exposure": (0.0, 1.0)})
    with pytest.raises(TypeError):
        spec.controls["exposure"] = (0.0, 2.0)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (BlockSpec, {"role": ""}, "block 'tiny' names no role"),
        (MetricSpec, {"protocol": ""}, "metric 'tiny' names no protocol"),
        (EnhancerSpec, {"backbone": "acme:net"}, "needs either a target or a backbone"),
        (EnhancerSpec, {"target": "", "backbone": ""}, "needs either a target or a backbone"),
        (MetricSpec, {"name": "enhancer"}, "reports have a column of that name"),
        (BackboneSpec, {"training_only": "dropout"}, "training_only is a tuple, not text"),
        (BlockSpec, {"name": 3}, "name 3 is not lower-case"),
        (EnhancerSpec, {"controls": {"x": (1.0, 0.0)}}, "two rising numbers"),
        (EnhancerSpec, {"controls": {"x": 3}}, "two rising numbers"),
        (EnhancerSpec, {"controls": {"x": "ab"}}, "two rising numbers"),
        (EnhancerSpec, {"controls": {"strength": (0, 1)}}, "which `enhance` takes for itself"),
    ],
)
def test_what_a_kind_needs(kind, changes, message):
    with pytest.raises(SpecError, match=message):
        make(kind, **changes)


def test_enhancer_by_backbone():
    spec = make(EnhancerSpec, target="", backbone="acme:net", config={"width": 4})
    assert (spec.backbone, dict(spec.config), spec.weights) == ("acme:net", {"width": 4}, None)
    assert not spec.default
    assert spec.scale == 1


@pytest.mark.parametrize("scale", [0, -2, 1.5])
def test_no_enhancer_makes_nothing_of_a_picture(scale):
    with pytest.raises(
        SpecError, match=f"enhancer 'tiny': scale is a whole number of at least 1, not {scale}"
    ):
        make(EnhancerSpec, scale=scale)


@pytest.mark.parametrize(
    "wrong",
    [
        {"multiple_of": 2.5},
        {"halo": 1.5},
        {"multiple_of": 0},
        {"multiple_of": -2},
        {"minimum": 0},
        {"halo": -1},
        {"scale": 0},
        {"multiple_of": "8"},
        {"halo": "3"},
    ],
    ids=str,
)
def test_impossible_size_requirements(wrong):
    with pytest.raises(SpecError, match="impossible"):
        SizeRequirements(**wrong)


def test_size_requirements_by_default_ask_nothing():
    assert SizeRequirements() == SizeRequirements(multiple_of=1, minimum=1, halo=None, scale=1)
    assert SizeRequirements(halo=0).halo == 0


@pytest.mark.parametrize(
    "resource", ["acme/x.safetensors", "acme:x.pth", "acme:x.bin", "x.safetensors"]
)
def test_weights_are_safetensors_in_a_package(resource):
    with pytest.raises(SpecError, match="only safetensors") as info:
        WeightsSpec(resource, "0" * 64)
    assert resource in str(info.value)


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64])
def test_weights_have_a_hash(digest):
    with pytest.raises(SpecError, match="64 lower-case hex"):
        WeightsSpec("acme:x.safetensors", digest)


@pytest.mark.parametrize(
    ("target", "value"), [("math:pi", 3.141592653589793), ("os:path.sep", "/")]
)
def test_load_target(target, value):
    assert load_target(target, "a test") == value


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("nowhere_to_be_found:x", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("math:no_such_thing", "AttributeError: .*no_such_thing"),
        ("math:pi.no_such_thing", "AttributeError: .*no_such_thing"),
    ],
)
def test_target_that_cannot_be_imported(target, cause):
    with pytest.raises(PluginError, match=cause) as info:
        load_target(target, "block acme:fast (acme 1.0)")
    assert str(info.value).startswith(f"block acme:fast (acme 1.0) names {target!r}")
    assert info.value.__cause__ is not None


@pytest.mark.parametrize("raised", ["ZeroDivisionError('no')", "ImportError('libfoo.so')"])
def test_target_whose_module_raises(tmp_path, monkeypatch, raised):
    (tmp_path / "raising_target.py").write_text(f"raise {raised}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match=raised.split("(")[0]):
        load_target("raising_target:x", "a test")


class TestNamesThatAreTaken:
    """What could never be given by name is refused where it is declared."""

    def test_the_list_is_what_load_takes(self):
        parameters = inspect.signature(load).parameters.values()
        named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        assert tuple(named) == LOAD_ARGUMENTS

    @pytest.mark.parametrize("option", [*LOAD_ARGUMENTS, "two words", "block-size", ""])
    @pytest.mark.parametrize("kind", [BackboneSpec, EnhancerSpec])
    def test_options(self, kind, option):
        with pytest.raises(SpecError, match=r"'tiny'.*option"):
            make(kind, config={option: 1})

    @pytest.mark.parametrize("control", ["image", *OPTIONS, "two words", "a&b", ""])
    def test_controls(self, control):
        with pytest.raises(SpecError, match=r"'tiny'.*control"):
            make(EnhancerSpec, controls={control: (0, 1)})

    def test_others_are_free(self):
        made = make(EnhancerSpec, config={"name_": 1}, controls={"amount": (0, 1)})
        assert (dict(made.config), dict(made.controls)) == ({"name_": 1}, {"amount": (0, 1)})


class TestWeightsOfEnhancers:
    weights = WeightsSpec(resource="acme:net.safetensors", sha256="0" * 64)

    def test_of_another_kind(self):
        with pytest.raises(SpecError, match=r"'tiny': weights is a WeightsSpec, not 'net\.saf"):
            make(EnhancerSpec, target="", backbone="net", weights="net.safetensors")

    def test_of_a_function(self):
        with pytest.raises(SpecError, match="'tiny' is a function, which takes no weights"):
            make(EnhancerSpec, weights=self.weights)

    def test_of_a_network(self):
        spec = make(EnhancerSpec, target="", backbone="net", weights=self.weights)
        assert spec.weights is self.weights


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (BackboneSpec, {"config": ["width"]}, r"config is a mapping of options, not \['width'\]"),
        (EnhancerSpec, {"config": None}, "config is a mapping of options, not None"),
        (EnhancerSpec, {"controls": ("amount",)}, r"controls maps names to ranges, and is not \("),
    ],
)
def test_what_is_no_mapping(kind, given, said):
    with pytest.raises(SpecError, match=f"'tiny': {said}"):
        make(kind, **given)
