"""MFNN passes the kit that plugins are held to: its package, blocks, network, losses, variants."""

from __future__ import annotations

from enhancekit_mfnn.blocks import SCR
from enhancekit_mfnn.variants import VARIANTS

from enhancekit.plugins import host
from enhancekit.testing import (
    BackboneCase,
    BlockCase,
    EnhancerCase,
    LossCase,
    PluginCase,
    parametrize_with_checks,
)

BLOCKS = [
    BlockCase("mfnn:scr"),
    BlockCase("mfnn:scr", options={"residual": False}),
    BlockCase("mfnn:hsc_encoder", args=(3, 6), channels=3, out_channels=6),
    BlockCase("mfnn:hsc_decoder", args=(6, 4), channels=6, out_channels=4),
    BlockCase(
        "mfnn:glsc",
        args=(6, 4),
        options={"count": 2, "residual_block": SCR},
        channels=6,
        out_channels=4,
    ),
    BlockCase(
        "mfnn:reconstruct",
        args=(12, 4),
        options={"norm": True, "output": "residual"},
        channels=12,
        out_channels=3,
    ),
    BlockCase(
        "mfnn:exposure",
        options={"width": 4},
        channels=3,
        out_channels=4,
        # every parameter takes part where the prediction itself is the gain
        call=lambda block, x: block(x, block.predict(block.summarise(x)).view(-1, 1, 1, 1)),
    ),
    BlockCase(
        "mfnn:noise_level",
        args=(),
        channels=3,
        out_channels=4,
        call=lambda block, x: block(x, block.context(x)),
    ),
]
BACKBONES = [
    BackboneCase("mfnn:mfnn", options={"width": 4, "counts": counts, **options})
    for counts, options in (
        ((1,), {}),
        ((1, 1, 1), {"context": "mfnn:exposure"}),
        ((1, 2), {"share_weights": True, "output": "sigmoid", "dropout": 0.5, "norm": True}),
        ((1, 1), {"pack": 2, "scale": 2}),
    )
]
TINY = {"pretrained": False, "width": 4, "counts": (1, 1, 1)}
ENHANCERS = [
    EnhancerCase("mfnn:mfnn-lite"),
    *(
        EnhancerCase(f"mfnn:{v.name}", options=TINY)
        for v in VARIANTS
        if v.name not in ("mfnn", "mfnn-lite")
    ),
]
LOSSES = [LossCase("mfnn:mfnn-report-2")]


@parametrize_with_checks(PluginCase("mfnn"), *BLOCKS, *BACKBONES, *LOSSES, *ENHANCERS)
def test_conformance(check):
    check()


def test_everything_registered_is_checked():
    (status,) = [s for s in host().statuses() if s.provider.plugin == "mfnn"]
    # the other report's loss needs weights of VGG19; the pretrained mfnn differs in depth alone
    left_out = {"mfnn:mfnn-report-1", "mfnn:mfnn"}
    checked = {case.name for case in (*BLOCKS, *BACKBONES, *LOSSES, *ENHANCERS)}
    assert {e.qualified_name for e in status.entries} == checked | left_out
