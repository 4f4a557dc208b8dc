"""What MFNN registers: descriptions only, so that listing it imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from enhancekit import BackboneSpec, BlockSpec, EnhancerSpec, LossSpec, hookimpl
from enhancekit_mfnn.variants import VARIANTS


@hookimpl
def enhancekit_backbones() -> Iterator[BackboneSpec]:
    """Register the network."""
    yield BackboneSpec(
        name="mfnn",
        summary="Multi-scale feature network, assembled from block names",
        target="enhancekit_mfnn.network:MFNN",
        global_context=True,
        training_only=("checkpointing", "dropout", "scaled"),
    )


@hookimpl
def enhancekit_blocks() -> Iterator[BlockSpec]:
    """Register the network's blocks."""
    for name, role, target, summary in (
        ("hsc_encoder", "encoder", "blocks:HSCEncoder", "Conv 3x3 then conv 5x5, nothing between"),
        ("scr", "residual", "blocks:SCR", "Skip-connection residual block"),
        ("glsc", "trunk", "blocks:GLSC", "Residual blocks in series, then conv 1x1"),
        ("hsc_decoder", "decoder", "blocks:HSCDecoder", "Conv 5x5"),
        ("reconstruct", "head", "blocks:Reconstruct", "Features to picture, with a long skip"),
        ("exposure", "context", "context:Exposure", "Tone curve towards a chosen brightness"),
        ("noise_level", "context", "context:NoiseLevel", "Strength of the noise, if known"),
    ):
        yield BlockSpec(name=name, role=role, summary=summary, target=f"enhancekit_mfnn.{target}")


@hookimpl
def enhancekit_losses() -> Iterator[LossSpec]:
    """Register the report's two composite losses."""
    for name, attribute, summary in (
        ("mfnn-report-1", "report_first", "0.5*l1 + 0.7*vgg + 0.5*ms_ssim, the report's first"),
        ("mfnn-report-2", "report_second", "l1 + 0.1*ssim + grad, the report's second"),
    ):
        yield LossSpec(name=name, summary=summary, target=f"enhancekit_mfnn.losses:{attribute}")


@hookimpl
def enhancekit_enhancers() -> Iterator[EnhancerSpec]:
    """Register the variants."""
    yield from VARIANTS
