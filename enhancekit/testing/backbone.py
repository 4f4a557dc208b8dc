"""Checks of a backbone: declared sizes, scale and reach are true, and pictures stay pictures."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from enhancekit.errors import ConformanceError
from enhancekit.inference.apply import apply_network
from enhancekit.specs import SizeRequirements
from enhancekit.testing.cases import BackboneCase, NotApplicable
from enhancekit.testing.modules import MODULE_CHECKS
from enhancekit.testing.reach import LIMIT, measure_reach
from enhancekit.testing.samples import EXTREMES, extreme, noise, smooth

__all__ = [
    "BACKBONE_CHECKS",
    "context_grid_is_true",
    "cpu_equals_cuda",
    "finite_on_extremes",
    "halo_is_true",
    "range_is_kept",
    "runs_in_bf16",
    "scale_is_true",
    "sizes_are_true",
    "tiled_equals_whole",
    "type_is_kept",
]


def _needs(case: BackboneCase, module: nn.Module) -> SizeRequirements:
    needs = getattr(module, "size_requirements", None)
    if isinstance(needs, SizeRequirements):
        return needs
    raise ConformanceError(
        f"the network of {case.entry} has no `size_requirements`; set it to a "
        "SizeRequirements(multiple_of=..., minimum=..., halo=...)"
    )


def _usable(case: BackboneCase, module: nn.Module) -> SizeRequirements:
    """Return what it needs, if its scale is true; what comes out cannot be placed otherwise."""
    needs = _needs(case, module)
    side = _side(needs)
    with torch.no_grad():
        done = case.apply(module, noise(1, 3, side, side))
    if tuple(done.shape) != (1, 3, side * needs.scale, side * needs.scale):
        raise NotApplicable("its scale is not the declared one; see scale_is_true")
    return needs


def _side(needs: SizeRequirements, least: int = 16) -> int:
    return -(-max(needs.minimum, least) // needs.multiple_of) * needs.multiple_of


def _given(case: BackboneCase, module: nn.Module, height: int, width: int) -> Tensor | None:
    """Return what it gives for that size, or ``None`` where it fails."""
    try:
        with torch.no_grad():
            return case.apply(module, noise(1, 3, height, width))
    except ConformanceError:
        raise
    except Exception:  # noqa: BLE001  that is what is being asked
        return None


def _takes(case: BackboneCase, module: nn.Module, sizes: Iterable[tuple[int, int]]) -> bool:
    def proportional(height: int, width: int) -> bool:
        done = _given(case, module, height, width)
        if done is None or done.dim() != 4 or done.shape[2] % height:
            return False
        times = done.shape[2] // height
        return times >= 1 and done.shape[3] == width * times

    return all(proportional(*size) for size in sizes)


def _sizes(multiple: int, minimum: int) -> list[tuple[int, int]]:
    """Give the smallest allowed size and some above it, square and not."""
    n = -(-minimum // multiple) * multiple
    return [(n, n), (n, n + multiple), (n + 2 * multiple, n + multiple), (n + 3 * multiple, n)]


def sizes_are_true(case: BackboneCase) -> None:
    """Require that it takes every size that `size_requirements` allows."""
    module = case.make()
    needs = _needs(case, module)
    declared = (needs.multiple_of, needs.minimum)
    if _takes(case, module, _sizes(*declared)):
        return
    minima = (16, 32, 64, 128, 256)
    right = next(
        (
            f"multiple_of={multiple}, minimum={least}"
            for multiple in (needs.multiple_of, 2, 4, 8, 16, 32, 64)
            for least in (multiple, *(m for m in minima if m > multiple))
            if (multiple, least) != declared and _takes(case, module, _sizes(multiple, least))
        ),
        "",
    )
    raise ConformanceError(
        f"{case.entry} declares multiple_of={needs.multiple_of}, minimum={needs.minimum}, but "
        "fails or gives another size for a picture that these allow; "
        + (f"declare {right}" if right else "and no other declaration was found that would be true")
    )


def scale_is_true(case: BackboneCase) -> None:
    """Require an output of `scale` times the input's height and width."""
    module = case.make()
    needs = _needs(case, module)
    side = _side(needs)
    x = noise(2, 3, side, side + needs.multiple_of)
    with torch.no_grad():
        done = case.apply(module, x)
    wanted = (2, 3, side * needs.scale, (side + needs.multiple_of) * needs.scale)
    if tuple(done.shape) == wanted:
        return
    times = done.shape[-1] / x.shape[-1] if done.dim() == 4 else 0
    hint = f"declare scale={int(times)}" if times >= 1 and times == int(times) else "mend forward"
    raise ConformanceError(
        f"{case.entry} declares scale={needs.scale}, but gives the shape {tuple(done.shape)} for "
        f"{tuple(x.shape)} instead of {wanted}; {hint}"
    )


def type_is_kept(case: BackboneCase) -> None:
    """Require results of 32 bits for pictures of 32 bits."""
    module = case.make()
    side = _side(_needs(case, module))
    with torch.no_grad():
        done = case.apply(module, noise(1, 3, side, side))
    if done.dtype != torch.float32:
        raise ConformanceError(
            f"{case.entry} gives {done.dtype} for torch.float32; leave the type to the pipeline, "
            "which computes in 16 bits by itself"
        )


def halo_is_true(case: BackboneCase) -> None:
    """Require that an output pixel looks no further than `size_requirements.halo`."""
    module = case.make()
    needs = _usable(case, module)
    if needs.halo is None:
        raise NotApplicable("it declares no halo, so pictures are never cut into tiles")
    measured = measure_reach(
        lambda x, whole: case.apply_within(module, x, whole),
        3,
        expected=needs.halo,
        multiple_of=needs.multiple_of,
        minimum=needs.minimum,
        scale=needs.scale,
    )
    if measured is None:
        raise ConformanceError(
            f"{case.entry} declares halo={needs.halo}, but an output pixel looks at least {LIMIT} "
            "pixels far; declare halo=None, or global_context=True and move what needs the whole "
            "picture into `context(whole)`"
        )
    if measured > needs.halo:
        raise ConformanceError(
            f"{case.entry} declares halo={needs.halo}, but an output pixel looks {measured} pixels "
            f"far; declare halo={measured}"
        )


def tiled_equals_whole(case: BackboneCase) -> None:
    """Require that tiles give what the whole gives, to a ten-thousandth."""
    module = case.make()
    needs = _usable(case, module)
    if needs.halo is None:
        raise NotApplicable("it declares no halo, so pictures are never cut into tiles")
    least = _side(needs, 24)
    x = smooth(2 * least + needs.halo + 5, 2 * least + 3)

    def applied(tile: int | None) -> Tensor:
        return apply_network(module, x, global_context=case.entry.spec.global_context, tile=tile)

    whole = applied(None)
    # two sides, because no grid but the declared one fits tiles of both
    for tile in (least, least + needs.multiple_of):
        difference = float((whole - applied(tile)).abs().max())
        if not difference <= 1e-4:
            raise ConformanceError(
                f"{case.entry} gives another picture in tiles of {tile} pixels than whole, by up "
                f"to {difference:.2g}; declare a larger halo, the multiple_of on whose grid it "
                "pools or cuts windows, or halo=None, or move what needs the whole picture into "
                "`context(whole)` with global_context=True"
            )


def context_grid_is_true(case: BackboneCase) -> None:
    """Require that the context of a picture's averages on `context_grid` is the picture's."""
    module = case.make()
    needs = _usable(case, module)
    grid = getattr(module, "context_grid", None)
    if not case.entry.spec.global_context or grid is None:
        raise NotApplicable("it declares no context_grid, so its context sees the whole picture")
    if not isinstance(grid, int) or grid < 0:
        raise ConformanceError(
            f"{case.entry} declares context_grid = {grid!r}; it is a whole number, or not there"
        )
    # rough, so that what counts besides the averages shows, and no multiple of the grid
    x = noise(1, 3, *(_side(needs, 3 * grid + extra) for extra in (16, 40)))
    averages = F.adaptive_avg_pool2d(x, grid) if grid else x[..., :1, :1]
    with torch.no_grad():
        whole, coarse = (case.apply_within(module, x.clone(), given) for given in (x, averages))
    difference = float((whole - coarse).abs().max())
    if not difference <= 1e-4:
        raise ConformanceError(
            f"{case.entry} declares context_grid = {grid}, but with the context of such averages "
            f"it gives another picture than with the whole one's, by up to {difference:.2g}; let "
            f"`context` begin with adaptive_avg_pool2d(whole, {grid or 'GRID'}), or leave "
            "context_grid out"
        )


def range_is_kept(case: BackboneCase) -> None:
    """Require that in eval mode pictures in [0, 1] give pictures in [0, 1]."""
    module = case.make()
    side = _side(_needs(case, module))
    for kind in ("noise", "black", "white", "chequered"):
        x = noise(1, 3, side, side) if kind == "noise" else extreme(kind, 1, 3, side, side)
        with torch.no_grad():
            done = case.apply(module, x)
        low, high = float(done.min()), float(done.max())
        if low < -1e-6 or high > 1 + 1e-6:
            raise ConformanceError(
                f"{case.entry} gives values from {low:.3g} to {high:.3g} for a picture ({kind}) in "
                "[0, 1]; in eval mode end with clamp(0, 1) or a sigmoid"
            )


def finite_on_extremes(case: BackboneCase) -> None:
    """Require that black, white and the like give no NaN or infinity."""
    module = case.make()
    side = _side(_needs(case, module))
    for kind in EXTREMES:
        with torch.no_grad():
            done = case.apply(module, extreme(kind, 1, 3, side, side))
        if not bool(done.isfinite().all()):
            raise ConformanceError(
                f"{case.entry} gives NaN or infinity for a picture that is {kind}; guard "
                "divisions, logarithms and roots by a small constant"
            )


def runs_in_bf16(case: BackboneCase) -> None:
    """Require finite results in 16 bits, as ``precision="bf16"`` asks for them."""
    module = case.make()
    side = _side(_usable(case, module))
    x = smooth(side, side)
    done = apply_network(
        module, x, global_context=case.entry.spec.global_context, dtype=torch.bfloat16
    )
    if not bool(done.isfinite().all()):
        raise ConformanceError(
            f"{case.entry} gives NaN or infinity under bf16; compute what needs 32 bits inside "
            "torch.autocast(x.device.type, enabled=False)"
        )


def cpu_equals_cuda(case: BackboneCase) -> None:
    """Require the CPU's result of a GPU, to half a step of 8 bits."""
    if not torch.cuda.is_available():
        raise NotApplicable("this machine has no CUDA device")
    module = case.make()
    side = _side(_usable(case, module))
    x = smooth(2 * side, side)
    context = case.entry.spec.global_context
    here = apply_network(module, x, global_context=context)
    there = apply_network(module.to("cuda"), x, global_context=context)
    difference = float((here - there).abs().max())
    if not difference <= 0.5 / 255:
        raise ConformanceError(
            f"{case.entry} gives another picture on CUDA than on the CPU, by up to {difference:.2g}"
        )


BACKBONE_CHECKS = (
    sizes_are_true,
    scale_is_true,
    type_is_kept,
    halo_is_true,
    range_is_kept,
    finite_on_extremes,
    tiled_equals_whole,
    context_grid_is_true,
    runs_in_bf16,
    cpu_equals_cuda,
    *MODULE_CHECKS,
)
