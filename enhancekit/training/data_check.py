"""What a folder of pairs holds, and what is wrong with it: broken pairs, duplicates, leaks."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from enhancekit.errors import DataError
from enhancekit.training.pairs import Pair, is_held_out, read_pair

__all__ = ["ALIKE", "DataReport", "check_pairs"]

ALIKE = 0.98
"""Correlation from which the standardised 16x16 thumbnails of two references are one view."""


@dataclass(slots=True)
class DataReport:
    """What `check_pairs` found."""

    pairs: int = 0
    """Pairs that can be read and fit together."""
    scenes: int = 0
    held_out: int = 0
    """Pairs of the held-out scenes."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Number of pairs by ``"WIDTHxHEIGHT"``."""
    input_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Mean brightness of the inputs in [0, 1]: least, median, greatest."""
    target_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of the references."""
    broken: list[str] = field(default_factory=list)
    """Why a pair cannot be used, one line each."""
    duplicates: list[list[str]] = field(default_factory=list)
    """Pairs whose references hold the same pixels."""
    leaks: list[tuple[str, str]] = field(default_factory=list)
    """Held-out and training pairs whose references show the same view."""

    @property
    def sound(self) -> bool:
        """Whether nothing is broken and nothing leaks."""
        return not self.broken and not self.leaks


def check_pairs(
    pairs: Sequence[Pair], held_out: float, advance: Callable[[], None] = lambda: None
) -> DataReport:
    """Read every pair and look for what spoils a training run or its figures.

    Parameters
    ----------
    pairs : sequence of Pair
        From `enhancekit.training.pairs.find_pairs`.
    held_out : float
        Share of scenes held out.
    advance : callable
        Called after each pair.

    Returns
    -------
    DataReport
        What was found.
    """
    report = DataReport()
    sizes: Counter[str] = Counter()
    means: list[tuple[float, float]] = []
    views: list[NDArray[np.float32]] = []
    good: list[Pair] = []
    same: dict[bytes, list[str]] = defaultdict(list)
    for pair in pairs:
        try:
            low, high = read_pair(pair)
        except DataError as error:
            report.broken.append(str(error))
            continue
        finally:
            advance()
        good.append(pair)
        sizes[f"{high.shape[1]}x{high.shape[0]}"] += 1
        means.append((float(low.mean()) / 255, float(high.mean()) / 255))
        views.append(_view(high))
        pixels = hashlib.sha256(repr(high.shape).encode() + high.tobytes())
        same[pixels.digest()].append(pair.name)
    report.pairs, report.sizes = len(good), dict(sizes.most_common())
    report.scenes = len({pair.scene for pair in good})
    report.held_out = sum(is_held_out(pair.scene, held_out) for pair in good)
    report.duplicates = [names for names in same.values() if len(names) > 1]
    if good:
        inputs, targets = np.array(means).T
        report.input_mean, report.target_mean = _spread(inputs), _spread(targets)
        report.leaks = _leaks(good, np.stack(views), held_out)
    return report


def _view(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = torch.from_numpy(picture).float().mean(2)[None, None]
    small = F.adaptive_avg_pool2d(grey, 16).flatten()
    standard = (small - small.mean()) / (small.std() + 1e-6)
    view: NDArray[np.float32] = standard.numpy()
    return view


def _spread(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values.min()), float(np.median(values)), float(values.max())


def _leaks(
    pairs: Sequence[Pair], views: NDArray[np.float32], held_out: float
) -> list[tuple[str, str]]:
    out = np.array([is_held_out(pair.scene, held_out) for pair in pairs])
    alike = views[out] @ views[~out].T / views.shape[1] > ALIKE
    ours, theirs = np.flatnonzero(out), np.flatnonzero(~out)
    return [(pairs[ours[i]].name, pairs[theirs[j]].name) for i, j in np.argwhere(alike)]
