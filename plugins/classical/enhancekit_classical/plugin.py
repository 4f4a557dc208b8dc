"""What the plugin registers: descriptions only, so that listing it imports no numpy."""

from __future__ import annotations

from collections.abc import Iterator

from enhancekit import EnhancerSpec, hookimpl


@hookimpl
def enhancekit_enhancers() -> Iterator[EnhancerSpec]:
    """Register the enhancers."""
    yield EnhancerSpec(
        name="lime",
        summary="Divides by an illumination map, smooth but for its edges (Guo et al., 2017)",
        task="low-light",
        config={"alpha": 0.15, "gamma": 0.8},
        target="enhancekit_classical.lime:lime",
    )
    yield EnhancerSpec(
        name="msrcr",
        summary="Multi-scale retinex with colour restoration (Jobson et al., 1997)",
        task="low-light",
        config={"scales": (15.0, 80.0, 250.0), "clip": 0.01},
        target="enhancekit_classical.retinex:msrcr",
    )
    yield EnhancerSpec(
        name="wavelet",
        summary="Wavelet shrinkage, BayesShrink (Chang et al., 2000)",
        task="denoise",
        config={"sigma": None},
        target="enhancekit_classical.denoise:wavelet",
    )
    yield EnhancerSpec(
        name="tv",
        summary="Total variation (Chambolle, 2004)",
        task="denoise",
        config={"weight": 0.1},
        target="enhancekit_classical.denoise:tv",
    )
    for name, attribute, kernel in (
        ("bicubic-x2", "bicubic_x2", "bicubic interpolation"),
        ("lanczos-x2", "lanczos_x2", "Lanczos' kernel of three lobes"),
    ):
        yield EnhancerSpec(
            name=name,
            summary=f"Twice the height and width by {kernel}",
            task="super-resolution",
            scale=2,
            target=f"enhancekit_classical.resample:{attribute}",
        )
