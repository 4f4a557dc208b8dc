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
    """Register a small MFNN with its own block and with ours, so that both have a name."""
    for name, block in (("small-scr", "mfnn:scr"), ("small-fast", "acme:fast")):
        yield EnhancerSpec(
            name=name,
            summary=f"MFNN of width 16 with 7 blocks {block}; bring weights",
            task="low-light",
            backbone="mfnn:mfnn",
            config={
                "width": 16,
                "counts": (1, 2, 4),
                "context": "mfnn:exposure",
                "block": block,
            },
            controls={"exposure": (0.05, 0.95)},
            train_hint="enhancekit train acme_blocks:recipes/short.toml --set data.root=FOLDER "
            f"--set model.enhancer=acme:{name}",
        )
