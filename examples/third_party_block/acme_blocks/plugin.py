"""What this plugin registers; descriptions only, so listing it imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from enhancekit import BlockSpec, EnhancerSpec, hookimpl


@hookimpl
def enhancekit_blocks() -> Iterator[BlockSpec]:
    """Register the block."""
    yield BlockSpec(
        name="fast",
        role="residual",
        summary="Gated depthwise-separable residual block, a seventh of the SCR's work",
        target="acme_blocks.blocks:FastBlock",
    )


@hookimpl
def enhancekit_enhancers() -> Iterator[EnhancerSpec]:
    """Register MFNN with the block, so that both can be asked for by name."""
    yield EnhancerSpec(
        name="fast-lite",
        summary="mfnn-lite with the fast block instead of its SCR; bring weights",
        task="low-light",
        backbone="mfnn:mfnn",
        config={
            "width": 16,
            "counts": (1, 2, 4),
            "context": "mfnn:exposure",
            "block": "acme:fast",
        },
        controls={"exposure": (0.05, 0.95)},
        train_hint="enhancekit train acme_blocks:recipes/short.toml --set data.root=FOLDER "
        "--set model.options.block=acme:fast",
    )
