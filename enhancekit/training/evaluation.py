"""Figures of an enhancer on pairs of pictures, each with its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enhancekit.errors import DataError
from enhancekit.imaging.files import read_rgb8
from enhancekit.inference.enhancer import Enhancer
from enhancekit.plugins import host
from enhancekit.training.pairs import Pair, find_pairs, is_held_out

__all__ = ["Evaluation", "chosen_pairs"]

_LAYOUTS = (("low", "high"), ("input", "target"))


def chosen_pairs(data: Path, *, scene: str = "", held_out: float | None = None) -> list[Pair]:
    """Find the pairs of a folder that holds two.

    Parameters
    ----------
    data : Path
        Holds ``low`` and ``high``, or ``input`` and ``target``.
    scene : str
        See `enhancekit.training.pairs.find_pairs`.
    held_out : float, optional
        Only the scenes that training with this share holds out.

    Raises
    ------
    DataError
        If there are no such folders, or nothing is left.
    """
    for low, high in _LAYOUTS:
        if (data / low).is_dir() and (data / high).is_dir():
            pairs = find_pairs(data / low, data / high, scene)
            break
    else:
        raise DataError(f"{data} holds neither low/ and high/ nor input/ and target/")
    if held_out is not None:
        pairs = [p for p in pairs if is_held_out(p.scene, held_out)]
        if not pairs:
            raise DataError(f"no scene of {data} is held out at a share of {held_out}")
    return pairs


class Evaluation:
    """Measures an enhancer pair by pair.

    Parameters
    ----------
    enhancer : Enhancer
        What is measured.
    metrics : sequence of str
        Registered metrics.
    """

    def __init__(self, enhancer: Enhancer, metrics: Sequence[str]) -> None:
        self.enhancer = enhancer
        self._metrics = [(entry, entry.target()) for entry in map(host().metrics.get, metrics)]
        self._rows: list[dict[str, Any]] = []

    def add(self, pair: Pair) -> dict[str, Any]:
        """Enhance one input as 8-bit pixels and compare it with its reference.

        Raises
        ------
        DataError
            If the two sizes differ; nothing is ever resized.
        """
        low, high = read_rgb8(pair.input), read_rgb8(pair.target)
        if low.shape != high.shape:
            raise DataError(
                f"the pair {pair.name!r} has two sizes: {low.shape[1]}x{low.shape[0]} and "
                f"{high.shape[1]}x{high.shape[0]}"
            )
        output = self.enhancer.enhance(low)
        arrays = (output / np.float32(255), high / np.float32(255))
        row = {"picture": pair.name, "scene": pair.scene}
        row |= {entry.spec.name: function(*arrays) for entry, function in self._metrics}
        self._rows.append(row)
        return row

    def result(self) -> dict[str, Any]:
        """Return the means, the worst picture of each metric, and every row."""
        metrics = {}
        for entry, _ in self._metrics:
            spec = entry.spec
            values = [row[spec.name] for row in self._rows]
            worst = int(np.argmin(values) if spec.higher_is_better else np.argmax(values))
            metrics[spec.name] = {
                "mean": float(np.mean(values)),
                "worst": float(values[worst]),
                "worst_picture": self._rows[worst]["picture"],
                "unit": spec.unit,
                "higher_is_better": spec.higher_is_better,
                "protocol": spec.protocol,
            }
        return {
            "enhancer": self.enhancer.entry.qualified_name,
            "pairs": len(self._rows),
            "metrics": metrics,
            "pictures": self._rows,
        }
