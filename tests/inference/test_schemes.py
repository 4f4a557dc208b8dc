"""``load("scheme:place")``: plugins own schemes, the core's own goes the same way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import enhancekit
from enhancekit.errors import (
    AmbiguousNameError,
    DeviceError,
    OptionError,
    PluginError,
    UnknownNameError,
)
from enhancekit.plugins import host

SCHEME = {"name": "times", "target": "{code}:load_times"}
CODE = """
import torch
from enhancekit.inference.assembly import network_enhancer
from enhancekit.registry import Entry, Provider
from enhancekit.specs import EnhancerSpec, SizeRequirements


class Times(torch.nn.Module):
    size_requirements = SizeRequirements(halo=0)

    def __init__(self, factor):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return x * self.factor


def load_times(place, *, device, precision, tile, engine, clip=1.0):
    if place == "nothing":
        return None
    spec = EnhancerSpec(name="times", summary="Times", task="tone", backbone="orbit:times")
    return network_enhancer(
        Entry(spec, Provider("orbit", "orbit-plugin", "1.0"), "enhancer"),
        Times(min(float(place), clip)),
        device=device, precision=precision, tile=tile, engine=engine,
    )
"""


@pytest.fixture
def times(make_plugin):
    return make_plugin(schemes=[SCHEME], code=CODE)


@pytest.fixture
def white():
    return np.ones((5, 7, 3), np.float32)


@pytest.mark.usefixtures("times")
class TestOfAPlugin:
    @pytest.mark.parametrize("name", ["times:0.5", "orbit:times:0.5"])
    def test_is_asked(self, name, white):
        enhancer = enhancekit.load(name, device="cpu")
        np.testing.assert_array_equal(enhancer.enhance(white), white / 2)
        assert isinstance(enhancer.module, torch.nn.Module)

    def test_options_are_its_own(self, white):
        enhancer = enhancekit.load("times:0.5", device="cpu", clip=0.25)
        np.testing.assert_array_equal(enhancer.enhance(white), white / 4)

    def test_unknown_options_are_refused(self):
        said = r"scheme orbit:times \(orbit-plugin 1\.0\) has no option width; it has clip"
        with pytest.raises(OptionError, match=said):
            enhancekit.load("times:0.5", width=4)

    @pytest.mark.parametrize("more", [{"weights": "a.safetensors"}, {"pretrained": False}])
    def test_it_takes_no_weights(self, more):
        with pytest.raises(OptionError, match=r"times:0\.5 is a finished network"):
            enhancekit.load("times:0.5", **more)

    def test_arguments_reach_it(self):
        with pytest.raises(DeviceError, match="device 'cuda:99'"):
            enhancekit.load("times:0.5", device="cuda:99")
        assert enhancekit.load("times:0.5", precision="bf16").precision == torch.bfloat16

    def test_its_failure_names_it(self):
        said = r"scheme orbit:times \(orbit-plugin 1\.0\) failed .*ValueError"
        with pytest.raises(PluginError, match=said):
            enhancekit.load("times:half")

    def test_what_is_no_enhancer(self):
        with pytest.raises(PluginError, match=r"orbit:times .*made a NoneType, not an Enhancer"):
            enhancekit.load("times:nothing")

    def test_its_enhancers_have_nothing_to_save(self, tmp_path):
        with pytest.raises(OptionError, match=r"orbit:times .*no weights that can be saved"):
            enhancekit.load("times:0.5").save(tmp_path / "a.safetensors")

    def test_unknown(self):
        said = (
            r"no scheme is called 'timse', only .*onnx.*times, and no enhancer is called 'timse:1'"
        )
        with pytest.raises(UnknownNameError, match=said):
            enhancekit.load("timse:1")

    def test_listed(self, cli):
        assert "times" in cli("list", "schemes").out
        assert "onnx" in cli("list", "all").out


def test_a_clash(make_plugin):
    for name in ("one", "two"):
        make_plugin(schemes=[SCHEME], name=name, distribution=f"d-{name}", code=CODE)
    with pytest.raises(AmbiguousNameError, match=r"one:times .*two:times .*qualified names"):
        enhancekit.load("times:0.5")
    assert enhancekit.load("two:times:0.5").module.factor == 0.5


def test_a_registered_enhancer_goes_first(make_plugin, white):
    make_plugin(
        enhancers=[{"name": "negative", "task": "tone", "target": "{code}:negative"}],
        code="def negative(picture):\n    return 1 - picture\n",
    )
    make_plugin(
        schemes=[{"name": "orbit", "target": "{code}:load_times"}],
        name="other",
        distribution="other",
        code=CODE,
    )
    assert enhancekit.load("orbit:negative").enhance(white).max() == 0
    assert enhancekit.load("orbit:0.5").enhance(white).max() == 0.5


def test_a_failed_plugin_is_told(make_plugin):
    make_plugin("import absent_thing", name="luts", distribution="d-luts")
    with pytest.warns(UserWarning, match="plugin left out"):
        host().statuses()
    with pytest.raises(UnknownNameError, match=r"no scheme is called 'luts'[\s\S]*absent_thing"):
        enhancekit.load("luts:film.cube")


def test_the_cores_own():
    assert str(host().schemes.get("onnx")).startswith("scheme builtin:onnx (enhancekit")


def test_a_scheme_may_take_any_options(make_plugin, white):
    loose = CODE.replace("engine, clip=1.0):", "engine, **options):").replace(
        "min(float(place), clip)", "min(float(place), options['clip'])"
    )
    make_plugin(schemes=[SCHEME], code=loose)
    enhancer = enhancekit.load("times:0.5", device="cpu", clip=0.25)
    np.testing.assert_array_equal(enhancer.enhance(white), white / 4)
