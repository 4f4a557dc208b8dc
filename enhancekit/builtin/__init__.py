"""The core's own losses, metrics, enhancers and schemes, registered like everybody's."""

from __future__ import annotations

from collections.abc import Iterator

from enhancekit.hookspecs import hookimpl
from enhancekit.specs import EnhancerSpec, LossSpec, MetricSpec, SchemeSpec


@hookimpl
def enhancekit_losses() -> Iterator[LossSpec]:
    """Register the losses."""
    for name, attribute, summary in (
        ("l1", "L1", "Mean absolute difference"),
        ("charbonnier", "Charbonnier", "Smooth L1: mean of sqrt(d^2 + eps^2)"),
        ("luma", "Luma", "Charbonnier of the BT.601 luma"),
        ("ssim", "SSIM", "1 - SSIM, Gaussian window of sigma 1.5"),
        ("ms_ssim", "MSSSIM", "1 - MS-SSIM, five scales"),
        ("grad", "Gradient", "L1 of horizontal and vertical differences"),
    ):
        yield LossSpec(name=name, summary=summary, target=f"enhancekit.builtin.losses:{attribute}")
    yield LossSpec(
        name="vgg", summary="L1 of VGG19 features", target="enhancekit.builtin.vgg:VGGLoss"
    )


@hookimpl
def enhancekit_metrics() -> Iterator[MetricSpec]:
    """Register the metrics."""
    for name, higher, unit, summary, protocol in (
        ("psnr", True, "dB", "Peak signal-to-noise ratio", "over all channels, peak 1"),
        (
            "ssim",
            True,
            "",
            "Structural similarity",
            "scikit-image, Gaussian window of sigma 1.5, use_sample_covariance=False",
        ),
        (
            "ms_ssim",
            True,
            "",
            "Multi-scale structural similarity",
            "five scales of Wang et al. 2003, valid windows, means of 2x2 between",
        ),
        ("mae", False, "", "Mean absolute error", "over all channels, range [0, 1]"),
        (
            "delta_e",
            False,
            "",
            "Mean colour difference CIEDE2000",
            "sRGB to CIELAB (D65), scikit-image's deltaE_ciede2000, mean over pixels",
        ),
    ):
        yield MetricSpec(
            name=name,
            summary=summary,
            higher_is_better=higher,
            unit=unit,
            protocol=protocol,
            needs_colour=name == "delta_e",
            target=f"enhancekit.builtin.metrics:{name}",
        )


@hookimpl
def enhancekit_enhancers() -> Iterator[EnhancerSpec]:
    """Register the classical enhancers."""
    for name, summary, config in (
        ("identity", "Gives the picture back; the baseline of every comparison", {}),
        ("gamma", "Power law, x ** gamma", {"gamma": 1 / 2.2}),
        (
            "clahe",
            "Contrast-limited adaptive histogram equalisation of the luma",
            {"clip_limit": 0.02, "kernel_size": None},
        ),
        ("equalize", "Histogram equalisation of the luma", {}),
    ):
        yield EnhancerSpec(
            name=name,
            summary=summary,
            task="tone",
            config=config,
            target=f"enhancekit.builtin.classical:{name}",
        )
    yield EnhancerSpec(
        name="nl-means",
        summary="Non-local means, the noise's strength estimated or given",
        task="denoise",
        config={"sigma": None},
        target="enhancekit.builtin.classical:nl_means",
    )
    yield EnhancerSpec(
        name="spline-x2",
        summary="Twice the size by cubic splines; the baseline of super-resolution",
        task="super-resolution",
        scale=2,
        target="enhancekit.builtin.classical:spline_x2",
    )


@hookimpl
def enhancekit_schemes() -> Iterator[SchemeSpec]:
    """Register where enhancers are loaded from besides the registry."""
    yield SchemeSpec(
        name="file",
        summary="Weights that training or `Enhancer.save` wrote, with the network they name",
        target="enhancekit.inference.saved:load_saved",
    )
    yield SchemeSpec(
        name="hub",
        summary="Weights that `enhancekit.push` uploaded to the Hugging Face Hub",
        target="enhancekit.hub:load_from_hub",
    )
    yield SchemeSpec(
        name="onnx",
        summary="A file written by `enhancekit export`",
        target="enhancekit.inference.exported:load_exported",
    )
