"""The core's own losses, metrics and enhancers pass the kit that plugins are held to."""

from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from enhancekit.builtin.vgg import vgg19_trunk
from enhancekit.plugins import Host
from enhancekit.testing import (
    EnhancerCase,
    LossCase,
    MetricCase,
    PluginCase,
    checks_of,
    parametrize_with_checks,
)


def psnr(output, reference):
    return peak_signal_noise_ratio(reference, output, data_range=1)


def ssim(output, reference):
    return structural_similarity(
        output,
        reference,
        data_range=1,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


LOSSES = [
    LossCase("builtin:l1"),
    LossCase("builtin:charbonnier"),
    LossCase("builtin:luma"),
    LossCase("builtin:ssim"),
    LossCase("builtin:ms_ssim", size=176),
    LossCase("builtin:grad"),
]
METRICS = [
    MetricCase("builtin:psnr", reference=psnr),
    MetricCase("builtin:ssim", reference=ssim),
    MetricCase("builtin:ms_ssim", size=176),
    MetricCase("builtin:mae"),
    MetricCase("builtin:delta_e"),
]
ENHANCERS = [
    EnhancerCase(f"builtin:{name}")
    for name in ("identity", "gamma", "clahe", "equalize", "nl-means", "spline-x2")
]


@parametrize_with_checks(PluginCase("builtin"), *LOSSES, *METRICS, *ENHANCERS)
def test_conformance(check):
    check()


@pytest.mark.parametrize("name", list(checks_of(LossCase("builtin:vgg"))))
def test_perceptual_loss(name, vgg_weights):
    case = LossCase("builtin:vgg", options={"weights": vgg_weights}, size=16)
    checks_of(case)[name]()


@pytest.fixture(scope="module")
def vgg_weights(tmp_path_factory):
    """Random weights of VGG19's shapes, each drawn once and repeated: the file stays small."""
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    state = {}
    generator = torch.Generator().manual_seed(0)
    for key, value in vgg19_trunk().state_dict().items():
        fan_in = value[0].numel() if value.dim() > 1 else 1e4
        drawn = torch.randn(value[:1].shape, generator=generator) * math.sqrt(2 / fan_in)
        state[f"features.{key}"] = drawn.expand(value.shape)
    torch.save(state, path)
    return path


def test_everything_registered_is_checked():
    (core,) = [s for s in Host({"ENHANCEKIT_PLUGINS": "builtin"}).statuses() if s.entries]
    checked = {case.name for case in (*LOSSES, *METRICS, *ENHANCERS)} | {"builtin:vgg"}
    # the kit has no checks of schemes beyond those of the package
    assert checked == {e.qualified_name for e in core.entries if e.kind != "scheme"}
