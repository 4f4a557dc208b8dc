"""The training loop: batches in, weights out, resumable at any checkpoint to the bit."""

from __future__ import annotations

import copy
import csv
import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from enhancekit._version import __version__
from enhancekit.builtin.metrics import psnr
from enhancekit.errors import DataError, NonFiniteError, RecipeError
from enhancekit.imaging.files import read_rgb8
from enhancekit.inference.apply import apply_network, blaming
from enhancekit.inference.device import choose_device
from enhancekit.inference.network import build_network, resolve_config
from enhancekit.plugins import host
from enhancekit.training.batches import Batches, seeded
from enhancekit.training.checkpoint import load_checkpoint, save_checkpoint
from enhancekit.training.pairs import Pair, find_pairs, is_held_out, pictures_in
from enhancekit.training.recipe import Data, Optimiser, Recipe
from enhancekit.weights import Card, save_weights

__all__ = ["Progress", "Trainer", "learning_rate", "split_pairs"]

_MAY_CHANGE = {"out", "validate_every", "validate_pictures", "save_every"}


@dataclass(frozen=True, slots=True)
class Progress:
    """What is reported after every step."""

    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    loss: float
    """Mean loss of the step."""
    terms: dict[str, float]
    """Each term of the loss, of the step's last batch."""
    psnr: dict[str, float]
    """Held-out PSNR in dB by source, if the step was validated."""


def split_pairs(data: Data) -> tuple[list[Pair], dict[str, list[Pair]]]:
    """Find all pairs and split them by scene.

    Returns
    -------
    training : list of Pair
        All sources pooled.
    held_out : dict of str to list of Pair
        By source.
    """
    training: list[Pair] = []
    held_out: dict[str, list[Pair]] = {}
    for source in data.sources:
        root = Path(data.root)
        pairs = find_pairs(root / source.input, root / source.target, source.scene)
        training += [p for p in pairs if not is_held_out(p.scene, data.held_out)]
        held_out[source.input] = [p for p in pairs if is_held_out(p.scene, data.held_out)]
    return training, held_out


def training_photographs(data: Data) -> list[Path]:
    """List the clean photographs that are not held out; each is a scene of its own."""
    found = [p for folder in data.clean for p in pictures_in(Path(data.root) / folder).values()]
    return [p for p in found if not is_held_out(p.stem, data.held_out)]


def learning_rate(optim: Optimiser, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0.

    Examples
    --------
    >>> learning_rate(Optimiser(lr=1.0, warm_up=2), 0, 10)
    0.5
    >>> learning_rate(Optimiser(lr=1.0, schedule="constant"), 9, 10)
    1.0
    """
    if step < optim.warm_up:
        return optim.lr * (step + 1) / optim.warm_up
    if optim.schedule == "constant":
        return optim.lr
    done = (step - optim.warm_up) / max(1, steps - optim.warm_up)
    return optim.lr * 0.5 * (1 + math.cos(math.pi * done))


class Trainer:
    """A training run.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    resume : bool
        Go on from the run's checkpoint instead of starting anew.
    device : str
        See `enhancekit.load`.

    Raises
    ------
    RecipeError
        If the run's folder already holds a run and `resume` is false, or it was made with
        another recipe.
    DataError
        If data are missing or do not fit.
    """

    def __init__(self, recipe: Recipe, *, resume: bool = False, device: str = "auto") -> None:
        self.recipe = recipe
        self.out = Path(recipe.run.out)
        self._checkpoint = self.out / "state.pt"
        if self._checkpoint.exists() and not resume:
            raise RecipeError(
                f"{self.out} already holds a run; continue it with --resume, or set run.out"
            )
        state = load_checkpoint(self._checkpoint) if resume else None
        if state:
            _refuse_other_recipe(json.loads(state["recipe"]), recipe.model_dump(mode="json"))
        self.device = choose_device(device)
        self.entry = host().enhancers.get(recipe.model.enhancer)
        self.backbone, self.config = resolve_config(self.entry, recipe.model.options)
        torch.manual_seed(recipe.run.seed)
        weights = recipe.model.weights or None
        self.module, _ = build_network(
            self.entry, recipe.model.options, weights=weights, pretrained=weights is not None
        )
        layout = torch.channels_last if recipe.run.channels_last else torch.contiguous_format
        self.module.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.module).eval().requires_grad_(False)
        self.loss = host().losses.create(recipe.loss or "l1").to(self.device)
        _refuse_context(recipe, self.backbone.spec.global_context)
        trained = self._select(recipe.model.only)
        optim = recipe.optim
        kind = torch.optim.AdamW if optim.weight_decay else torch.optim.Adam
        self.optimiser = kind(
            trained, optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay
        )
        training, self.held_out = split_pairs(recipe.data)
        self.data = Batches(
            training,
            clean=training_photographs(recipe.data),
            crop=recipe.data.crop,
            shrink=recipe.data.shrink,
            augment=recipe.data.augment,
            seed=recipe.run.seed,
        )
        self.step = 0
        self.best = -math.inf
        if state:
            self._restore(state)

    def run(self) -> Iterator[Progress]:
        """Train to the last step, yielding after each; validates and saves on the way.

        Raises
        ------
        NonFiniteError
            If a loss is NaN or infinite; names the step and the batch.
        """
        run = self.recipe.run
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "recipe.json").write_text(self.recipe.model_dump_json(indent=2))
        while self.step < run.steps:
            loss = self._optimise()
            self.step += 1
            last = self.step == run.steps
            psnrs = self.validate() if last or self.step % run.validate_every == 0 else {}
            if psnrs:
                self._record(loss, psnrs)
            if last or self.step % run.save_every == 0:
                self._save()
            values = dict(getattr(self.loss, "values", {}))
            yield Progress(self.step, run.steps, loss, values, psnrs)

    def _optimise(self) -> float:
        """Do one optimiser step over ``accumulate`` batches."""
        run, optim = self.recipe.run, self.recipe.optim
        rate = learning_rate(optim, self.step, run.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # dropout follows from the step, so that a resumed run draws what the first would have
        torch.manual_seed(seeded(run.seed, 4, self.step).initial_seed())
        self.module.train()
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for part in range(run.accumulate):
            number = self.step * run.accumulate + part
            loss = self._loss(number) / run.accumulate
            if not torch.isfinite(loss):
                raise NonFiniteError(
                    f"the loss is {float(loss)} at step {self.step}, batch {number}; lower "
                    "optim.lr, set optim.clip, or use run.precision='fp32'"
                )
            loss.backward()
            total += float(loss.detach())
        if optim.clip:
            trained = [p for group in self.optimiser.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(trained, optim.clip)
        self.optimiser.step()
        self._update_average()
        return total

    def _loss(self, number: int) -> Tensor:
        run = self.recipe.run
        if not self.recipe.loss:
            return self._context_loss(number)
        loss = self._picture_loss(number)
        return loss + self._context_loss(number) if run.context_batch else loss

    def _picture_loss(self, number: int) -> Tensor:
        run = self.recipe.run
        batch = self.data.batch(number, run.batch)
        low, high = batch.input.to(self.device), batch.target.to(self.device)
        if run.channels_last:
            low = low.contiguous(memory_format=torch.channels_last)
        arguments: list[Any] = []
        if self.backbone.spec.global_context:
            wholes = batch.input_whole.to(self.device), batch.target_whole.to(self.device)
            arguments.append(self.module.context_for(*wholes))  # type: ignore[operator]
        reduced = run.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced), blaming(low):
            output = self.module(low, *arguments)
        loss: Tensor = self.loss(output, high)
        return loss

    def _context_loss(self, number: int) -> Tensor:
        """Loss of what the network decides from the whole picture, on thumbnails."""
        thumbnails = self.data.thumbnails(number, self.recipe.run.context_batch)
        inputs, targets = (t.to(self.device) for t in thumbnails)
        loss: Tensor = self.module.context_loss(inputs, targets)  # type: ignore[operator]
        return loss

    def validate(self) -> dict[str, float]:
        """Return the mean held-out PSNR in dB of each source, outputs rounded to 8 bits."""
        result = {}
        for source, pairs in self.held_out.items():
            count = min(len(pairs), self.recipe.run.validate_pictures)
            values = []
            for i in range(count):
                pair = pairs[i * len(pairs) // count]
                low, high = (_tensor(p) for p in (pair.input, pair.target))
                output = apply_network(
                    self.average,
                    low,
                    global_context=self.backbone.spec.global_context,
                    dtype=torch.bfloat16 if self.recipe.run.precision == "bf16" else torch.float32,
                )
                arrays = [
                    ((t[0] * 255).round() / 255).permute(1, 2, 0).numpy() for t in (output, high)
                ]
                values.append(psnr(*arrays))
            if values:
                result[source] = sum(values) / len(values)
        return result

    def card(self, psnrs: dict[str, float]) -> Card:
        """Describe the present weights."""
        fixed = {k: v for k, v in self.config.items() if k not in self.backbone.spec.training_only}
        pairs = [f"{s.input} -> {s.target}" for s in self.recipe.data.sources]
        data = "; ".join([*pairs, *(f"darkened {folder}" for folder in self.recipe.data.clean)])
        return Card(
            name=self.entry.spec.name,
            backbone=self.backbone.qualified_name,
            config=fixed,
            task=self.entry.spec.task,
            data=f"{data}; {self.recipe.data.held_out:.0%} of the scenes held out",
            figures={"held-out PSNR in dB, a sample, 8 bits": psnrs},
            training=f"{self.step} steps, {self.recipe.loss}, enhancekit {__version__}",
            date=time.strftime("%Y-%m-%d"),
        )

    def _update_average(self) -> None:
        decay = self.recipe.optim.ema
        # short runs would otherwise average in their random start
        decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            ours, theirs = self.average.state_dict(), self.module.state_dict()
            for name, value in ours.items():
                if value.is_floating_point():
                    value.lerp_(theirs[name], 1 - decay)
                else:
                    value.copy_(theirs[name])

    def _select(self, pattern: str) -> list[nn.Parameter]:
        chosen = []
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(bool(re.match(pattern, name)))
            if parameter.requires_grad:
                chosen.append(parameter)
        if not chosen:
            raise RecipeError(f"model.only = {pattern!r} matches no parameter")
        return chosen

    def _record(self, loss: float, psnrs: dict[str, float]) -> None:
        path = self.out / "metrics.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "loss", *(f"psnr {name}" for name in psnrs)])
            writer.writerow([self.step, f"{loss:.6f}", *(f"{v:.4f}" for v in psnrs.values())])
        mean = sum(psnrs.values()) / len(psnrs)
        card = self.card(psnrs)
        save_weights(self.out / "last.safetensors", self.average.state_dict(), card)
        if mean > self.best:
            self.best = mean
            save_weights(self.out / "best.safetensors", self.average.state_dict(), card)

    def _save(self) -> None:
        state = {
            "recipe": self.recipe.model_dump_json(),
            "step": self.step,
            "best": self.best,
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        save_checkpoint(self._checkpoint, state)

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.module.load_state_dict(state["module"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.best = int(state["step"]), float(state["best"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise DataError(f"{self._checkpoint} does not fit this network: {error}") from error


def _tensor(path: Path) -> Tensor:
    return torch.from_numpy(read_rgb8(path)).permute(2, 0, 1)[None].float() / 255


def _refuse_context(recipe: Recipe, global_context: bool) -> None:
    if recipe.run.context_batch and not global_context:
        raise RecipeError(
            f"run.context_batch: the network of {recipe.model.enhancer!r} declares no global "
            "context, so there is nothing to train on thumbnails; set it to 0"
        )
    if not recipe.loss and not recipe.run.context_batch:
        raise RecipeError("loss: empty, and run.context_batch is 0, so nothing would be trained")


def _refuse_other_recipe(had: dict[str, Any], now: dict[str, Any]) -> None:
    def flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in table.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    before, after = dict(flat(had)), dict(flat(now))
    changed = [
        f"{key} ({before.get(key)!r} then, {after.get(key)!r} now)"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key) and key.removeprefix("run.") not in _MAY_CHANGE
    ]
    if changed:
        raise RecipeError(
            "a run is resumed with the recipe it began with, but this differs: "
            + ", ".join(changed)
            + "; to train further, start a new run with model.weights"
        )
