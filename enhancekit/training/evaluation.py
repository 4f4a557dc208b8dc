"""Figures of enhancers on pairs of pictures: by picture, and as means with an interval by scene."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from enhancekit.errors import DataError, EnhanceKitError, OptionError, PluginError
from enhancekit.imaging.reading import read_rgb8
from enhancekit.inference.enhancer import Enhancer
from enhancekit.plugins import host
from enhancekit.training.batches import seeded
from enhancekit.training.pairs import Pair, find_pairs, is_held_out, pictures_in
from enhancekit.training.protocols import Protocol, with_reference_mean
from enhancekit.training.synthetic import SHRINKING, draw_degradation

__all__ = [
    "Evaluation",
    "Sample",
    "Summary",
    "chosen_pairs",
    "held_out_share",
    "interval_by_scene",
    "read_sample",
]

GT_MEAN = " (GT-mean)"
_LAYOUTS = (("low", "high"), ("input", "target"))
_RESAMPLES = 2000
_SHARE = 0.1
"""That recipes hold out by default."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One pair of pictures, read."""

    name: str
    scene: str
    input: NDArray[Any]
    """Shape (H, W, 3), uint8, or float32 where noise was added that nothing clipped."""
    reference: NDArray[np.uint8]
    """Shape (H, W, 3), or larger for enhancers that enlarge."""


def read_sample(pair: Pair, make: str = "") -> Sample:
    """Read a pair, or make the input from the reference.

    Parameters
    ----------
    pair : Pair
        Where the pictures are.
    make : str
        How the input is made: a kind of `enhancekit.training.synthetic.draw_degradation`, with
        ``:level`` for a fixed strength, e.g. ``"gaussian:25"``. What is random follows from the
        picture's name. References are cut to even sides for ``"bicubic-x2"``,
        to multiples of 3 and of 4 for ``"bicubic-x3"`` and ``"bicubic-x4"``.

    Raises
    ------
    DataError
        If a picture cannot be read or is too small, or there is no such kind.
    """
    reference = read_rgb8(pair.target)
    if not make:
        return Sample(pair.name, pair.scene, read_rgb8(pair.input), reference)
    if min(reference.shape[:2]) < 4:
        raise DataError(
            f"{pair.target} is {reference.shape[1]}x{reference.shape[0]}, too small to make an "
            "input from"
        )
    kind, colon, text = make.partition(":")
    try:
        level = float(text) if colon else None
    except ValueError:
        raise DataError(f"{make!r}: the level {text!r} is no number") from None
    times = SHRINKING.get(kind, 1)
    height, width = (side // times * times for side in reference.shape[:2])
    reference = reference[:height, :width]
    draw = seeded(*os.fsencode(pair.name))
    degradation = draw_degradation(kind, draw, level)
    clean = torch.from_numpy(reference).permute(2, 0, 1).float() / 255
    made = degradation(clean, draw, True).permute(1, 2, 0).numpy()
    whole = np.rint(made * 255)
    # counted photons are whole numbers, too, and may lie above white
    if whole.max() <= 255 and whole.min() >= 0 and np.array_equal(whole / np.float32(255), made):
        made = whole.astype(np.uint8)
    return Sample(pair.name, pair.scene, made, reference)


def held_out_share(asked: float | None, scene: str | None, enhancers: Sequence[Enhancer]) -> float:
    """Decide the share of scenes to measure on: at most what each of the enhancers held out.

    Parameters
    ----------
    asked : float, optional
        By default what their cards say, or 0.1.
    scene : str or None
        By which scenes are told apart here, as in `Card.split`; a warning says so if training did
        it otherwise.
    enhancers : sequence of Enhancer
        What is to be measured.

    Raises
    ------
    OptionError
        If one of them was trained on some of these scenes.
    """
    # one enhancer may come twice, with other weights
    known = [(e.entry.qualified_name, e.card.split) for e in enhancers if e.card and e.card.split]
    shares = [float(split.get("held_out", 0)) for _, split in known]
    share = min(shares, default=_SHARE) if asked is None else asked
    for (name, split), had in zip(known, shares, strict=True):
        if share > had:
            raise OptionError(
                f"{name} held out a share of {had:g} in training, so a share of {share:g} holds "
                "pictures it was trained on"
            )
        if scene not in (scenes := split.get("scenes", [scene])):
            warnings.warn(
                f"{name} held out {' and '.join(map(_told_apart, scenes))} in training, not "
                f"{_told_apart(scene)}: some of these pictures may be ones it was trained on",
                stacklevel=2,
            )
    return share


def _told_apart(scene: str | None) -> str:
    if scene is None:
        return "each photograph by itself"
    return f"scenes by --scene {scene!r}" if scene else "scenes by their references"


def chosen_pairs(
    data: Path,
    *,
    scene: str = "",
    held_out: float | None = None,
    made: bool = False,
    skipped: list[str] | None = None,
) -> list[Pair]:
    """Find the pairs of a folder that holds two, or the references of one whose inputs are made.

    Parameters
    ----------
    data : Path
        Holds ``low`` and ``high``, or ``input`` and ``target``; or the references themselves.
    scene : str
        See `enhancekit.training.pairs.find_pairs`.
    held_out : float, optional
        Only the scenes that training with this share holds out.
    made : bool
        The folder holds references, each a scene of its own.
    skipped : list of str, optional
        See `enhancekit.training.pairs.find_pairs`.

    Raises
    ------
    DataError
        If there are no such folders, or nothing is left.
    """
    if not data.is_dir():
        raise DataError(f"{data} is not a folder")
    for low, high in () if made else _LAYOUTS:
        if (data / low).is_dir() and (data / high).is_dir():
            pairs = find_pairs(data / low, data / high, scene, skipped)
            break
    else:
        if not made:
            raise DataError(f"{data} holds neither low/ and high/ nor input/ and target/")
        pairs = [Pair(stem, path, path, stem) for stem, path in pictures_in(data).items()]
    if held_out is not None:
        pairs = [p for p in pairs if is_held_out(p.scene, held_out)]
        if not pairs:
            raise DataError(f"no scene of {data} is held out at a share of {held_out}")
    return pairs


def interval_by_scene(values: Sequence[float], scenes: Sequence[str]) -> tuple[float, float]:
    """Return a 95% interval of the mean over pictures, resampling whole scenes.

    Pictures of one scene are alike, so an interval that took them for independent would be too
    narrow. The resampling is seeded: equal input gives equal output.

    Examples
    --------
    >>> interval_by_scene([1.0, 1.0], ["a", "b"])
    (1.0, 1.0)
    """
    grouped: dict[str, list[float]] = defaultdict(list)
    for value, scene in zip(values, scenes, strict=True):
        grouped[scene].append(value)
    if not np.isfinite(values).all():  # equal pictures have an infinite PSNR
        return float(np.mean(values)), float(np.mean(values))
    sums = np.array([sum(group) for group in grouped.values()])
    counts = np.array([len(group) for group in grouped.values()])
    drawn = np.random.default_rng(0).integers(len(sums), size=(_RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Summary:
    """One metric over all pictures."""

    mean: float
    """Over pictures."""
    interval: tuple[float, float]
    """95%, by scene."""
    worst: float
    """Of one picture."""
    worst_picture: str
    """Its name."""
    unit: str
    higher_is_better: bool
    protocol: str
    """How it was computed."""


@dataclass(slots=True)
class Evaluation:
    """Measures one enhancer pair by pair.

    Attributes
    ----------
    enhancer : Enhancer
        What is measured.
    protocol : Protocol
        What is compared.
    metrics : sequence of str
        Registered metrics; the protocol's own if empty.
    reference_mean : bool
        Also give every figure after scaling to the reference's mean, labelled ``(GT-mean)``.
    controls : mapping of str to float
        Given with every picture, e.g. ``sigma``.
    options : mapping of str to object
        What the enhancer was loaded with over its config.
    weights : Path, optional
        What it was loaded with instead of the shipped ones.
    mode : str
        See `Enhancer.enhance`.
    data : mapping of str to object
        Which pairs these are, for reports: ``folder``, ``make``, ``split`` and the like.
    rows : list of dict
        One for every picture measured.
    """

    enhancer: Enhancer
    protocol: Protocol
    metrics: Sequence[str] = ()
    reference_mean: bool = False
    controls: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    mode: str = "exact"
    data: Mapping[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, sample: Sample) -> NDArray[np.uint8]:
        """Enhance one input, compare it with its reference in 8 bits, and return it.

        Raises
        ------
        DataError
            If the two sizes differ; nothing is ever resized.
        OptionError
            If a metric does not fit the protocol.
        """
        output, reference = self._enhanced(sample.input), sample.reference
        if output.shape != reference.shape:
            raise DataError(
                f"the pair {sample.name!r} has two sizes: the output is "
                f"{output.shape[1]}x{output.shape[0]}, the reference is "
                f"{reference.shape[1]}x{reference.shape[0]}; nothing is resized"
            )
        figures = self._figures(sample.name, output, reference)
        row = {"picture": sample.name, "scene": sample.scene, **figures}
        if self.reference_mean:
            corrected = with_reference_mean(output, reference)
            row |= {
                f"{name}{GT_MEAN}": value
                for name, value in self._figures(sample.name, corrected, reference).items()
            }
        self.rows.append(row)
        return output

    def _enhanced(self, given: NDArray[Any]) -> NDArray[np.uint8]:
        if given.dtype == np.uint8:
            done: NDArray[np.uint8] = self.enhancer.enhance(given, mode=self.mode, **self.controls)
            return done
        # unclipped noise leaves the range that enhance() takes from users
        noisy = torch.from_numpy(given).permute(2, 0, 1)[None]
        output = self.enhancer.run(noisy, mode=self.mode, **self.controls)
        rounded = (output[0].clamp(0, 1) * 255).round().byte()
        return rounded.permute(1, 2, 0).contiguous().numpy()

    def summaries(self) -> dict[str, Summary]:
        """Return the mean of each metric, its interval, and its worst picture."""
        result = {}
        scenes = [row["scene"] for row in self.rows]
        suffixes = ("", GT_MEAN) if self.reference_mean else ("",)
        for column, entry, _ in self._functions():
            for suffix in suffixes:
                spec, name = entry.spec, column + suffix
                values = [row[name] for row in self.rows]
                worst = int(np.argmin(values) if spec.higher_is_better else np.argmax(values))
                result[name] = Summary(
                    mean=float(np.mean(values)),
                    interval=interval_by_scene(values, scenes),
                    worst=float(values[worst]),
                    worst_picture=self.rows[worst]["picture"],
                    unit=spec.unit,
                    higher_is_better=spec.higher_is_better,
                    protocol=self.protocol.text
                    + (", scaled to the reference's mean" if suffix else "")
                    + f"; {spec.protocol}",
                )
        return result

    def notes(self) -> dict[str, str]:
        """Return how each metric is computed, in its own words, by column."""
        return {column: entry.spec.protocol for column, entry, _ in self._functions()}

    def _functions(self) -> list[tuple[str, Any, Callable[..., float]]]:
        """Return each metric's column, entry and function; columns of one name are qualified."""
        found = [host().metrics.get(name) for name in self.metrics or self.protocol.metrics]
        entries = list({entry.qualified_name: entry for entry in found}.values())
        bare = [entry.spec.name for entry in entries]
        return [
            (n if bare.count(n) == 1 else entry.qualified_name, entry, entry.target())
            for n, entry in zip(bare, entries, strict=True)
        ]

    def _figures(
        self, name: str, output: NDArray[np.uint8], reference: NDArray[np.uint8]
    ) -> dict[str, float]:
        compared = self.protocol.prepare(output), self.protocol.prepare(reference)
        found = {}
        for column, entry, function in self._functions():
            if self.protocol.luma and entry.spec.needs_colour:
                raise OptionError(
                    f"{entry} compares colours, but protocol {self.protocol.name!r} is luma alone"
                )
            try:
                # copies, since a plugin's metric may write into what it is given
                found[column] = float(function(*(given.copy() for given in compared)))
            except EnhanceKitError as error:
                raise type(error)(f"{name}: {error}") from error
            except Exception as error:  # a plugin's metric may raise anything
                raise PluginError(
                    f"{entry} failed on {name}: {type(error).__name__}: {error}"
                ) from error
        return found
