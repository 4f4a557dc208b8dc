"""What the plugin registers: a description only, so that listing it imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from enhancekit import SchemeSpec, hookimpl


@hookimpl
def enhancekit_schemes() -> Iterator[SchemeSpec]:
    """Register the scheme."""
    yield SchemeSpec(
        name="spandrel",
        summary="A model file of any architecture that spandrel knows: ESRGAN, SwinIR, NAFNet, ...",
        target="enhancekit_spandrel.files:load_model",
    )
