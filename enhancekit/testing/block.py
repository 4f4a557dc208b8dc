"""Checks of a block: any size, a true halo, no grid, and what every module must do."""

from __future__ import annotations

import torch
from torch import nn

from enhancekit.errors import ConformanceError
from enhancekit.testing.cases import BlockCase, NotApplicable
from enhancekit.testing.modules import MODULE_CHECKS, alike, repeatable
from enhancekit.testing.reach import LIMIT, measure_reach
from enhancekit.testing.samples import noise

__all__ = ["BLOCK_CHECKS", "alike_everywhere", "halo_is_true", "shapes"]

SIZES = ((1, 1), (1, 9), (7, 5), (8, 12))
SHIFTS = (1, 2, 3)
"""One pixel shows a grid laid from one side, more show one laid from the middle."""


def shapes(case: BlockCase) -> None:
    """Require that it takes any size from 1x1, and keeps batch, height, width and dtype."""
    channels, out_channels = case.widths
    module = case.make()
    for height, width in SIZES:
        x = noise(2, channels, height, width)
        try:
            with torch.no_grad():
                done = case.apply(module, x)
        except ConformanceError:
            raise
        except Exception as error:
            raise ConformanceError(
                f"{case.entry} fails on {channels} channels of {height}x{width} pixels: "
                f"{type(error).__name__}: {error}; a block takes any size from 1x1"
            ) from error
        wanted = (2, out_channels, height, width)
        if tuple(done.shape) != wanted:
            raise ConformanceError(
                f"{case.entry} gives the shape {tuple(done.shape)} for {tuple(x.shape)}; it must "
                f"be {wanted} (pad convolutions by half their kernel, crop what is too large)"
            )
        if done.dtype != x.dtype:
            raise ConformanceError(
                f"{case.entry} gives {done.dtype} for {x.dtype}; leave the type to the pipeline, "
                "which computes in 16 bits by itself"
            )
        if not bool(done.isfinite().all()):
            raise ConformanceError(
                f"{case.entry} gives NaN or infinity for noise of {height}x{width} pixels"
            )


def _declared(module: nn.Module) -> object:
    declared = getattr(module, "halo", None)
    if declared is None:
        raise NotApplicable("it declares no halo, so pictures are never cut into tiles with it")
    return declared


def halo_is_true(case: BlockCase) -> None:
    """Require that an output pixel looks no further than `halo` says."""
    module = case.make()
    declared = _declared(module)
    if not isinstance(declared, int) or isinstance(declared, bool) or declared < 0:
        raise ConformanceError(
            f"{case.entry} declares halo = {declared!r}; it is a whole number of pixels, or None"
        )
    measured = measure_reach(lambda x, _: case.apply(module, x), case.widths[0], expected=declared)
    if measured is None:
        raise ConformanceError(
            f"{case.entry} declares halo = {declared}, but an output pixel looks at least {LIMIT} "
            "pixels far, perhaps at everything; declare halo = None"
        )
    if measured > declared:
        raise ConformanceError(
            f"{case.entry} declares halo = {declared}, but an output pixel looks {measured} "
            f"pixels far; declare halo = {measured}"
        )


def alike_everywhere(case: BlockCase) -> None:
    """Require that what it gives does not depend on where a tile begins and ends."""
    module = repeatable(case)
    declared = _declared(module)
    if not isinstance(declared, int):
        raise NotApplicable("its halo is no number; see halo_is_true")
    away = declared + 16  # what lies nearer to a cut is for halo_is_true to judge
    side = away + 24
    x = noise(1, case.widths[0], side, side) - 0.5
    with torch.no_grad():
        whole = case.apply(module, x.clone())
        for shift in SHIFTS:
            left = side - shift - away
            for cut, judged in (
                (slice(shift, side), slice(-left, None)),
                (slice(side - shift), slice(left)),
            ):
                done = case.apply(module, x[..., cut, cut].contiguous())[..., judged, judged]
                wanted = whole[..., cut, cut][..., judged, judged]
                if not alike(done, wanted):
                    raise ConformanceError(
                        f"{case.entry} declares halo = {declared}, but gives other values where "
                        f"its input begins or ends elsewhere (by {shift}), as tiles do; if it "
                        "pools, cuts windows or looks at places, declare halo = None"
                    )


BLOCK_CHECKS = (shapes, halo_is_true, alike_everywhere, *MODULE_CHECKS)
