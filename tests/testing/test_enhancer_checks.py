"""Each check of an enhancer fails on what breaks exactly it, and on nothing else."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from failing import failing
from torch import nn

from enhancekit import BackboneSpec, EnhancerSpec, SizeRequirements, hookimpl
from enhancekit.errors import ConformanceError
from enhancekit.testing import (
    EnhancerCase,
    check_enhancer,
    checks_of,
    isolated_plugins,
)
from enhancekit.weights import Card, save_weights


def mended(picture):
    return np.sqrt(picture)


def enlarging(picture):
    return picture.repeat(2, axis=0).repeat(2, axis=1)


def needs_two_pixels(picture):
    if min(picture.shape[:2]) < 2:
        raise ValueError("too small")
    return picture


def too_bright(picture):
    return 1.5 * picture


def dividing(picture):
    with np.errstate(all="ignore"):
        return picture * (picture.max() / picture.max())


def in_place(picture):
    picture *= 0.5
    return picture


def random(picture):
    return picture * np.float32(np.random.uniform(0.5, 1))  # noqa: NPY002  what is being checked


def remembering(picture, kept=[0.5]):  # noqa: B006  what is being checked
    gain, kept[0] = 0.9 + 0.1 * kept[0], float(picture.mean())
    return picture * np.float32(gain)


class Net(nn.Module):
    """What the broken networks would be without their one fault."""

    def __init__(self, scale=1):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.size_requirements = SizeRequirements(halo=0, scale=scale)

    def forward(self, x, exposure=None):
        gain = 0.5 if exposure is None else exposure.view(-1, 1, 1, 1)
        return (x * gain + 0.1 * self.conv(x)).clamp(0, 1)

    def context(self, whole, exposure=None):
        return whole.new_full((len(whole),), 0.5) if exposure is None else exposure


class MixingBatch(Net):
    def forward(self, x):
        return super().forward(x * x.mean(dim=0, keepdim=True))


class HiddenMean(Net):
    def forward(self, x):
        return super().forward(x) * (0.5 + x.mean(dim=(1, 2, 3), keepdim=True)).clamp(max=1)


class Pooling(Net):
    def __init__(self):
        super().__init__()
        self.size_requirements = SizeRequirements(halo=2)

    def forward(self, x):
        height, width = x.shape[2:]
        pooled = F.avg_pool2d(F.pad(x, (0, width % 2, 0, height % 2)), 2)
        return super().forward(F.interpolate(pooled, scale_factor=2.0)[..., :height, :width])


class DeafContext(Net):
    def context(self, whole, exposure=None):
        return super().context(whole)


class NoControl(Net):
    def context(self, whole):
        return super().context(whole)


class Fragile(Net):
    """Magnifies what a convolution loses in 16 bits."""

    def forward(self, x):
        return (x + 40 * (self.conv(x) - x)).clamp(0, 1)


class OnCuda(Net):
    def forward(self, x):
        return (super().forward(x) + 0.1 * x.is_cuda).clamp(0, 1)


BROKEN = {
    "scale_is_true": (enlarging, "declares scale=1, .* 40x54 pixels for 20x27; declare scale=2"),
    "takes_every_size": (needs_two_pixels, "fails on 1x1 pixels: .*too small.* from 1x1"),
    "range_is_kept": (too_bright, r"to 1\.\d+ for a picture \(.*\) in \[0, 1\]; clip"),
    "finite_on_extremes": (dividing, "fails on a picture that is black: .*NaN or infinite"),
    "input_is_untouched": (in_place, r"picture = picture\.copy\(\)"),
    "deterministic": (random, "draw nothing at random"),
    "batch_equals_singles": (MixingBatch, "no mean over the batch"),
    "tiled_equals_whole": (HiddenMean, "in tiles of 24 pixels than whole"),
    "controls_are_true": (DeafContext, r"'exposure', but 0\.1 and 0\.9 give the same picture"),
    "precisions_are_true": (Fragile, r"states 60 dB between bf16 and 32 bits, .* gives \d\d dB"),
    "cpu_equals_cuda": (OnCuda, "another picture on CUDA"),
}
WITH_CONTEXT = (Net, DeafContext, NoControl)


def name_of(made):
    return re.sub(r"(?<!^)(?=[A-Z])", "-", made.__name__).lower().replace("_", "-")


class Plugin:
    @hookimpl
    def enhancekit_backbones(self):
        for made in {Net, NoControl, Pooling, *(b for b, _ in BROKEN.values())}:
            if isinstance(made, type):
                yield BackboneSpec(
                    name=name_of(made),
                    summary="x",
                    target=f"{__name__}:{made.__name__}",
                    global_context=made in WITH_CONTEXT,
                )

    @hookimpl
    def enhancekit_enhancers(self):
        for made in {
            mended,
            remembering,
            Net,
            NoControl,
            Pooling,
            *(b for b, _ in BROKEN.values()),
        }:
            is_network = isinstance(made, type)
            yield EnhancerSpec(
                name=name_of(made),
                summary="x",
                task="tone",
                target="" if is_network else f"{__name__}:{made.__name__}",
                backbone=f"kit:{name_of(made)}" if is_network else "",
                controls={"exposure": (0.1, 0.9)} if made in WITH_CONTEXT else {},
            )
        yield EnhancerSpec(
            name="twice", summary="x", task="tone", backbone="kit:net", config={"scale": 2}
        )


@pytest.fixture(autouse=True)
def _plugin():
    with isolated_plugins(kit=Plugin()):
        yield


@pytest.fixture
def case(tmp_path):
    """Make the case of a function, or of a network with weights whose card vouches for bf16."""

    def make(made):
        if not isinstance(made, type):
            return EnhancerCase(f"kit:{name_of(made)}")
        module = made()
        nn.init.dirac_(module.conv.weight)
        nn.init.zeros_(module.conv.bias)
        name = f"kit:{name_of(made)}"
        card = Card(name=name, backbone=name, config={}, parity_db={"bf16": 60.0})
        save_weights(tmp_path / "it.safetensors", module.state_dict(), card)
        return EnhancerCase(name, options={"weights": tmp_path / "it.safetensors"})

    return make


def test_every_check_has_an_enhancer_that_breaks_it():
    assert set(BROKEN) == set(checks_of(EnhancerCase("kit:mended")))


@pytest.mark.parametrize("check", BROKEN)
def test_breaking_exactly_one(check, case):
    if check == "cpu_equals_cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    made, said = BROKEN[check]
    found = failing(case(made))
    assert set(found) == {check}
    assert re.search(said, found[check])


def test_a_control_that_the_network_does_not_take(case):
    found = failing(case(NoControl))
    assert set(found) == {"controls_are_true"}
    assert "`context` must take exposure=" in found["controls_are_true"]


def test_a_grid_that_is_not_declared(case):
    found = failing(case(Pooling))
    assert set(found) == {"tiled_equals_whole"}
    assert "in tiles of 25 pixels than whole" in found["tiled_equals_whole"]


def test_what_is_kept_from_one_picture_to_the_next_is_seen(case):
    found = failing(case(remembering))
    assert set(found) == {"deterministic"}


@pytest.mark.parametrize("made", [mended, Net])
def test_mended(made, case):
    assert failing(case(made)) == {}


def test_untrained(case):
    found = check_enhancer("kit:net", options={"pretrained": False})
    applied = {o.check: o.status for o in found}
    assert applied["controls_are_true"] == applied["tiled_equals_whole"] == "passed"
    assert applied["precisions_are_true"] == "not applicable"


def test_a_network_of_another_scale_than_declared():
    with pytest.raises(ConformanceError, match=r"declares scale=1, but gives 40x54 .*scale=2"):
        check_enhancer("kit:twice", options={"pretrained": False})
