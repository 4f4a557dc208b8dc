"""What this plugin registers; descriptions only, so listing it imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from enhancekit import BlockSpec, hookimpl


@hookimpl
def enhancekit_blocks() -> Iterator[BlockSpec]:
    """Register the block."""
    yield BlockSpec(
        name="fast",
        role="residual",
        summary="Depthwise-separable residual block, a fraction of the SCR's work",
        target="acme_blocks.blocks:FastBlock",
    )
