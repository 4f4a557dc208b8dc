"""Checks of an enhancer as a whole: the picture a user gives and the one that comes back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from enhancekit.errors import ConformanceError, EnhanceKitError, NonFiniteError
from enhancekit.inference.device import PARITY_DB
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.network import resolve_config
from enhancekit.specs import SizeRequirements
from enhancekit.testing.cases import EnhancerCase, NotApplicable
from enhancekit.testing.samples import EXTREMES, extreme, noise, seeded, smooth

__all__ = [
    "ENHANCER_CHECKS",
    "batch_equals_singles",
    "controls_are_true",
    "cpu_equals_cuda",
    "deterministic",
    "finite_on_extremes",
    "input_is_untouched",
    "precisions_are_true",
    "range_is_kept",
    "scale_is_true",
    "takes_every_size",
    "tiled_equals_whole",
]

SIZES = ((1, 1), (1, 9), (7, 5), (16, 21))
HEIGHT, WIDTH = 20, 27


def scale_is_true(case: EnhancerCase) -> None:
    """Require an output `scale` times as high and wide as the input."""
    declared = case.entry.spec.scale
    height, width = _size_of_output(case)
    if (height, width) == (HEIGHT * declared, WIDTH * declared):
        return
    times = height // HEIGHT
    whole = times > 0 and (height, width) == (HEIGHT * times, WIDTH * times)
    raise ConformanceError(
        f"{case.entry} declares scale={declared}, but gives {height}x{width} pixels for "
        f"{HEIGHT}x{WIDTH}; " + (f"declare scale={times}" if whole else "mend its function")
    )


def _size_of_output(case: EnhancerCase) -> tuple[int, int]:
    """Ask the function or the network itself; the pipeline refuses what was not declared."""
    entry = case.entry
    if entry.spec.target:
        given = noise(1, 3, HEIGHT, WIDTH)[0].permute(1, 2, 0).numpy()
        done = np.asarray(entry.target()(given, **{**entry.spec.config, **case.options}))
        return (done.shape[0], done.shape[1]) if done.ndim == 3 else (0, 0)
    options = {k: v for k, v in case.options.items() if k not in ("pretrained", "weights")}
    backbone, config = resolve_config(entry, options)
    needs = getattr(backbone.create(**config), "size_requirements", SizeRequirements())
    return HEIGHT * needs.scale, WIDTH * needs.scale


def _loaded(case: EnhancerCase, *, repeatable: bool = False, **how: Any) -> Enhancer:
    """Load it, if what other checks stand for holds, so that one fault gives one failure."""
    if _size_of_output(case) != (HEIGHT * case.entry.spec.scale, WIDTH * case.entry.spec.scale):
        raise NotApplicable("its scale is not the declared one; see scale_is_true")
    enhancer = case.make(**how)
    if repeatable and not _repeats(enhancer):
        raise NotApplicable("it gives another result each time; see deterministic")
    return enhancer


def _repeats(enhancer: Enhancer) -> bool:
    x, other = smooth(HEIGHT, WIDTH), noise(1, 3, HEIGHT, WIDTH)
    results = []
    state = np.random.get_state()  # noqa: NPY002  others' code draws from the old generator
    try:
        for seed in range(2):
            np.random.seed(seed)  # noqa: NPY002
            with seeded(seed):
                enhancer.run(other / (seed + 1))
                results.append(enhancer.run(x))
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return torch.equal(*results)


def takes_every_size(case: EnhancerCase) -> None:
    """Require that it takes one pixel, odd and non-square sizes."""
    enhancer = _loaded(case)
    scale = case.entry.spec.scale
    for height, width in SIZES:
        try:
            done = enhancer.run(noise(1, 3, height, width))
        except EnhanceKitError as error:
            raise ConformanceError(
                f"{case.entry} fails on {height}x{width} pixels: {error}; an enhancer takes any "
                "size from 1x1"
            ) from error
        if tuple(done.shape) != (1, 3, height * scale, width * scale):
            raise ConformanceError(
                f"{case.entry} gives the shape {tuple(done.shape)} for a picture of "
                f"{height}x{width} pixels"
            )


def range_is_kept(case: EnhancerCase) -> None:
    """Require that pictures in [0, 1] give pictures in [0, 1]."""
    enhancer = _loaded(case)
    for kind in ("noise", "smooth", *EXTREMES):
        x = {"noise": noise(1, 3, HEIGHT, WIDTH), "smooth": smooth(HEIGHT, WIDTH)}.get(kind)
        try:
            done = enhancer.run(extreme(kind, 1, 3, HEIGHT, WIDTH) if x is None else x)
        except NonFiniteError:  # finite_on_extremes says so
            continue
        low, high = float(done.min()), float(done.max())
        if low < -1e-6 or high > 1 + 1e-6:
            raise ConformanceError(
                f"{case.entry} gives values from {low:.3g} to {high:.3g} for a picture ({kind}) in "
                "[0, 1]; clip its result"
            )


def finite_on_extremes(case: EnhancerCase) -> None:
    """Require that black, white and the like give no NaN or infinity."""
    enhancer = _loaded(case)
    for kind in EXTREMES:
        try:
            enhancer.run(extreme(kind, 1, 3, HEIGHT, WIDTH))
        except EnhanceKitError as error:
            raise ConformanceError(
                f"{case.entry} fails on a picture that is {kind}: {error}"
            ) from error


def input_is_untouched(case: EnhancerCase) -> None:
    """Require that the picture given is not changed in place.

    The pipeline hands a function a copy; the function itself is asked here, because others call
    it directly.
    """
    entry = case.entry
    picture = noise(1, 3, HEIGHT, WIDTH)[0].permute(1, 2, 0).contiguous().numpy()
    before = picture.copy()
    if entry.spec.target:
        entry.target()(picture, **{**entry.spec.config, **case.options})
    else:
        _loaded(case).enhance(picture)
    if not np.array_equal(picture, before):
        raise ConformanceError(
            f"{entry} changes the picture it was given; work on a copy (`picture = picture.copy()`)"
        )


def deterministic(case: EnhancerCase) -> None:
    """Require that the same picture gives the same result again, another one between."""
    if not _repeats(_loaded(case)):
        raise ConformanceError(
            f"{case.entry} gives another result for the same picture; draw nothing at random, or "
            "from a generator with a fixed seed, and keep nothing from one picture to the next"
        )


def batch_equals_singles(case: EnhancerCase) -> None:
    """Require that a picture's result does not depend on the others of its batch."""
    enhancer = _loaded(case, repeatable=True)
    x = torch.cat([factor * smooth(HEIGHT, WIDTH, seed) for seed, factor in ((0, 0.2), (1, 1.0))])
    together = enhancer.run(x)
    singly = torch.cat([enhancer.run(one[None]) for one in x])
    if not torch.allclose(together, singly, atol=1e-5):
        raise ConformanceError(
            f"{case.entry} gives a picture another result in a batch than alone; keep nothing from "
            "one picture to the next, and take no mean over the batch"
        )


def tiled_equals_whole(case: EnhancerCase) -> None:
    """Require of tiles what the whole gives, to half a step of 8 bits."""
    whole = _loaded(case, repeatable=True)
    if whole.module is None or _needs(whole).halo is None:
        raise NotApplicable("it is never cut into tiles")
    needs = _needs(whole)
    least = -(-max(needs.minimum, 24) // needs.multiple_of) * needs.multiple_of
    x = smooth(least + (needs.halo or 0) + 29, least + 5)
    wanted = whole.run(x)
    # two sides, because no grid but the declared one fits tiles of both
    for tile in (least, least + needs.multiple_of):
        difference = float((wanted - case.make(tile=tile).run(x)).abs().max())
        if not difference <= 0.5 / 255:
            raise ConformanceError(
                f"{case.entry} gives another picture in tiles of {tile} pixels than whole, by up "
                f"to {difference:.2g}; declare a larger halo, or the true multiple_of, in its "
                "network's size_requirements"
            )


def controls_are_true(case: EnhancerCase) -> None:
    """Require that each declared control is taken at both ends, and does something."""
    controls = case.entry.spec.controls
    if not controls:
        raise NotApplicable("it declares no controls")
    enhancer = _loaded(case, repeatable=True)
    x = smooth(HEIGHT, WIDTH)
    for name, ends in controls.items():
        try:
            low, high = (enhancer.run(x, mode="exact", **{name: end}) for end in ends)
        except EnhanceKitError as error:
            raise ConformanceError(
                f"{case.entry} declares the control {name!r}, but fails when given {ends}: {error}"
                f"; its network's `context` must take {name}="
            ) from error
        if torch.equal(low, high):
            raise ConformanceError(
                f"{case.entry} declares the control {name!r}, but {ends[0]:g} and {ends[1]:g} give "
                "the same picture; use it, or do not declare it"
            )


def precisions_are_true(case: EnhancerCase) -> None:
    """Require that precisions which the weights' card vouches for are close to 32 bits."""
    exact = _loaded(case, repeatable=True)
    stated = exact.card.parity_db if exact.card is not None else {}
    vouched = sorted(name for name, db in stated.items() if db >= PARITY_DB)
    if not vouched:
        raise NotApplicable("no card vouches for a precision below 32 bits")
    x = smooth(48, 56)
    wanted = exact.run(x)
    for name in vouched:
        error = float(((case.make(precision=name).run(x) - wanted) ** 2).mean())
        found = -10 * math.log10(max(error, 1e-20))
        # one small picture may lie below the mean over a test set that the card gives
        if not found >= PARITY_DB - 10:
            raise ConformanceError(
                f"the card of {case.entry} states {stated[name]:.0f} dB between {name} and 32 "
                f"bits, but a smooth dark picture gives {found:.0f} dB; measure again"
            )


def cpu_equals_cuda(case: EnhancerCase) -> None:
    """Require the CPU's result of a GPU, to half a step of 8 bits."""
    if not torch.cuda.is_available():
        raise NotApplicable("this machine has no CUDA device")
    x = smooth(HEIGHT, WIDTH)
    here, there = (_loaded(case, repeatable=True, device=d).run(x) for d in ("cpu", "cuda"))
    difference = float((here - there).abs().max())
    if not difference <= 0.5 / 255:
        raise ConformanceError(
            f"{case.entry} gives another picture on CUDA than on the CPU, by up to {difference:.2g}"
        )


def _needs(enhancer: Enhancer) -> SizeRequirements:
    needs = enhancer.module.size_requirements if enhancer.module is not None else None
    return needs if isinstance(needs, SizeRequirements) else SizeRequirements()


ENHANCER_CHECKS = (
    scale_is_true,
    takes_every_size,
    range_is_kept,
    finite_on_extremes,
    input_is_untouched,
    deterministic,
    batch_equals_singles,
    tiled_equals_whole,
    controls_are_true,
    precisions_are_true,
    cpu_equals_cuda,
)
