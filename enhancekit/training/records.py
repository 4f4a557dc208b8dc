"""What a run leaves behind: recipe, environment, metrics (CSV and TensorBoard), samples."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from enhancekit.errors import DataError
from enhancekit.plugins import host
from enhancekit.training.recipe import Recipe

__all__ = ["Records", "are_empty"]

_FIELDS = ("step", "name", "value")


def are_empty(metrics: Path) -> bool:
    """Tell whether a ``metrics.csv`` holds no figure yet, as that of a run that failed at once."""
    return metrics.read_bytes().split() == [",".join(_FIELDS).encode()]


class Records:
    """Writer of a run's folder.

    Parameters
    ----------
    folder : Path
        Made if missing.
    recipe : Recipe
        Written as ``recipe.json``, with ``environment.json`` beside it.
    step : int
        The step the run goes on from; what an interrupted run wrote beyond it is dropped.
    """

    def __init__(self, folder: Path, recipe: Recipe, step: int) -> None:
        self.folder = folder
        self._metrics = folder / "metrics.csv"
        with self._writing():
            self._begin(recipe, step)

    def _begin(self, recipe: Recipe, step: int) -> None:
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".enhancekit-*"):  # by a process killed while saving
            left_over.unlink()
        (folder / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n")
        (folder / "environment.json").write_text(json.dumps(_environment(), indent=2) + "\n")
        kept = []
        if step and self._metrics.exists():
            with self._metrics.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with self._metrics.open("w", newline="") as file:
            writer = csv.DictWriter(file, _FIELDS)
            writer.writeheader()
            writer.writerows(kept)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Add figures of a step to both records."""
        with self._writing():
            with self._metrics.open("a", newline="") as file:
                csv.writer(file).writerows((step, name, f"{v:.6g}") for name, v in values.items())
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def sample(self, step: int, name: str, pictures: tuple[Tensor, ...]) -> None:
        """Write pictures (1, 3, H, W) side by side: input, output, reference."""
        joined = torch.cat(pictures, dim=3)[0].clamp(0, 1)
        pixels = (joined * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        folder = self.folder / "samples"
        with self._writing():
            folder.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{name}-{step:07d}.jpg", quality=92)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"the run's folder {self.folder} cannot be written: {error}") from error

    def close(self) -> None:
        """Write out what is buffered."""
        self._board.close()


def _environment() -> dict[str, object]:
    statuses = host().statuses()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "plugins": {s.provider.plugin: str(s.provider) for s in statuses},
    }
