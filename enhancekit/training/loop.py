"""The training loop: batches in, weights out, resumable at any checkpoint to the bit."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import random
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from enhancekit._version import __version__
from enhancekit.builtin.composite import parse
from enhancekit.errors import (
    DataError,
    EnhanceKitError,
    NonFiniteError,
    PluginError,
    RecipeError,
)
from enhancekit.inference.apply import apply_network, blaming
from enhancekit.inference.device import choose_device
from enhancekit.inference.layout import to_channels_last
from enhancekit.inference.network import build_network, resolve_config, weights_config
from enhancekit.plain import first_line, to_json
from enhancekit.plugins import host
from enhancekit.registry import Entry
from enhancekit.specs import BackboneSpec
from enhancekit.training.batches import THUMBNAIL, Batch, seeded
from enhancekit.training.checkpoint import load_checkpoint, save_checkpoint
from enhancekit.training.objective import Objective
from enhancekit.training.recipe import Data, Optimiser, Recipe
from enhancekit.training.records import Records, are_empty
from enhancekit.training.sources import load_sources, split_for_card
from enhancekit.training.synthetic import SHRINKING
from enhancekit.training.validation import validate
from enhancekit.weights import Card, save_weights

__all__ = ["Progress", "Trainer", "learning_rate"]

_MAY_CHANGE = {"out", "validate_every", "validate_pictures", "save_every", "log_every"}


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
    """A training run, on one process or, under ``torchrun``, on many.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    resume : bool
        Go on from the run's checkpoint instead of starting anew.
    device : str
        See `enhancekit.load`.

    Attributes
    ----------
    network : torch.nn.Module
        What is trained.
    average : torch.nn.Module
        Its moving average, which is validated and saved.
    skipped : list of str
        What was left out because it is broken, one line each, if the recipe allows it.
    notes : list of str
        What a user should know of this run, though it is no error.
    step, best : int, float
        Steps done, and the best mean held-out PSNR so far.
    is_main : bool
        Whether this process writes files and speaks.

    Raises
    ------
    RecipeError
        If the run's folder already holds a run and `resume` is false, or it was made with
        another recipe.
    DataError
        If data are missing or do not fit.
    """

    def __init__(self, recipe: Recipe, *, resume: bool = False, device: str = "auto") -> None:
        self.recipe, run, optim = recipe, recipe.run, recipe.optim
        self.out = Path(run.out)
        self._checkpoint = self.out / "state.pt"
        if not resume:
            _refuse_run_in(self.out, self._checkpoint)
        state = load_checkpoint(self._checkpoint) if resume else None
        if state:
            if "recipe" not in state:
                raise DataError(f"the checkpoint {self._checkpoint} is damaged: it has no recipe")
            _refuse_other_recipe(*(json.loads(s) for s in (state["recipe"], _as_json(recipe))))
        self.fabric = _fabric(recipe, choose_device(device))
        self.is_main = self.fabric.is_global_zero
        self.entry = host().enhancers.get(recipe.model.enhancer)
        self.backbone, self.config = resolve_config(self.entry, recipe.model.options)
        self._global_context = self.backbone.spec.global_context
        _refuse_contradictions(recipe, self._global_context)
        torch.manual_seed(run.seed)
        # a run that goes on has its own; those it began with may be gone
        weights = None if state else recipe.model.weights or None
        self.network, self._start = build_network(
            self.entry, recipe.model.options, weights=weights, pretrained=weights is not None
        )
        if self._global_context and not hasattr(self.network, "context_for"):
            raise PluginError(
                f"{self.backbone} cannot be trained: it declares global_context=True, but its "
                "network has no `context_for(batch)`; see `BackboneSpec`"
            )
        _refuse_crop(recipe.data, self.network.size_requirements)
        if run.channels_last:
            to_channels_last(self.network)
        self.notes: list[str] = []
        if self._global_context:
            self._examine_context(begun=weights is not None or state is not None)
        trained = _select(self.network, recipe.model.only)
        self._frozen = [module for module in self.network.modules() if _keeps_frozen_counts(module)]
        self._phases = [(0, recipe.loss), *((p.step, p.loss) for p in recipe.phases)]
        texts = [text for _, text in self._phases if text]
        losses = _losses(texts, recipe.loss_options)
        _try_later_losses([*zip(texts, losses, strict=True)][1:], recipe.data.crop)
        # the weights of a sum may be learnt, say
        trained += [p for loss in losses for p in loss.parameters() if p.requires_grad]
        kind = torch.optim.AdamW if optim.weight_decay else torch.optim.Adam
        optimiser = kind(
            trained, optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay
        )
        objective = Objective(
            self.network,
            losses,
            global_context=self._global_context,
            channels_last=run.channels_last,
        )
        self.objective: Any
        self.objective, self.optimiser = self.fabric.setup(objective, optimiser)
        self.average = _copied(self.network, self.backbone).eval().requires_grad_(False)
        self.skipped: list[str] = []
        skipped = self.skipped if recipe.data.skip_broken else None
        sources = load_sources(recipe, skipped)
        self.data, self.held_out, self._contents = sources.batches, sources.held_out, sources.digest
        self.step, self.best = 0, -math.inf
        if state:
            self._restore(state)

    def run(self) -> Iterator[Progress]:
        """Train to the last step, yielding after each; validates and saves on the way.

        Raises
        ------
        NonFiniteError
            If a loss or gradient is NaN or infinite; names the step and the batch.
        """
        run = self.recipe.run
        records = Records(self.out, self.recipe, self.step) if self.is_main else None
        while self.step < run.steps:
            phase = self._phase()
            loss = self._optimise(phase)
            self.step += 1
            last = self.step == run.steps
            due = last or self.step % run.validate_every == 0
            psnrs = self._validate(records) if due and records else {}
            terms = self.objective.module.terms(phase)
            done = Progress(self.step, run.steps, loss, terms, psnrs)
            if records and (psnrs or self.step % run.log_every == 0):
                records.metrics(self.step, _figures(done, self.optimiser.param_groups[0]["lr"]))
            if self.is_main and (last or self.step % run.save_every == 0):
                self._save()
            yield done
        if records:
            records.close()
        # a process that ends while gloo's threads still drop its last exchange is aborted
        self.fabric.barrier()

    def _optimise(self, phase: int) -> float:
        """Do one optimiser step over ``accumulate`` batches, shared out over the processes."""
        run, fabric = self.recipe.run, self.fabric
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe.optim, self.step, run.steps)
        self.objective.train()
        for module in self._frozen:
            module.eval()
        self.optimiser.zero_grad(set_to_none=True)
        own = range(fabric.global_rank, run.accumulate, fabric.world_size)
        total = torch.zeros((), device=fabric.device)
        for part in own:
            number = self.step * run.accumulate + part
            # dropout follows from the batch, so that neither resuming nor sharing out changes it
            _seed_all(seeded(run.seed, 4, number).initial_seed())
            with fabric.no_backward_sync(self.objective, enabled=part != own[-1]):
                batch, thumbnails = self._inputs(number)
                loss = self.objective(batch, thumbnails, phase)
                _refuse_non_finite(loss, f"the loss at step {self.step}, batch {number},")
                with blaming(batch.input, "in the backward pass for"):
                    fabric.backward(loss / len(own))
            total += loss.detach() / len(own)
        trained = [p for g in self.optimiser.param_groups for p in g["params"]]
        if self.recipe.optim.clip:
            norm = nn.utils.clip_grad_norm_(trained, self.recipe.optim.clip)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        _refuse_non_finite(norm, f"the gradient at step {self.step}")
        self.optimiser.step()
        self._update_average()
        mean: Any = fabric.all_reduce(total, reduce_op="mean")
        return float(mean)

    def _inputs(self, number: int) -> tuple[Batch, tuple[Tensor, Tensor] | None]:
        run, device = self.recipe.run, self.fabric.device
        batch = self.data.batch(number, run.batch).to(device)
        if not run.context_batch:
            return batch, None
        inputs, targets = self.data.thumbnails(number, run.context_batch)
        return batch, (inputs.to(device), targets.to(device))

    def _phase(self) -> int:
        return sum(step <= self.step for step, _ in self._phases) - 1

    def validate(self) -> dict[str, float]:
        """Return the mean held-out PSNR in dB of each source, outputs rounded to 8 bits."""
        return self._validate(None)

    def _validate(self, records: Records | None) -> dict[str, float]:
        dtype = torch.bfloat16 if self.recipe.run.precision == "bf16" else torch.float32

        def enhance(low: Tensor) -> Tensor:
            return apply_network(
                self.average, low, global_context=self._global_context, dtype=dtype
            )

        def show(name: str, pictures: tuple[Tensor, ...]) -> None:
            if records:
                records.sample(self.step, name, pictures)

        for name, parameter in self.average.named_parameters():
            _refuse_non_finite(parameter, f"the weight {name} after step {self.step}")
        psnrs = validate(enhance, self.held_out, self.recipe.run.validate_pictures, show)
        for source, value in psnrs.items():
            if math.isnan(value):
                raise NonFiniteError(
                    f"the network gives NaN for a held-out picture of {source} after step "
                    f"{self.step}, though its weights are finite; look for a block that divides "
                    "by zero, or use run.precision='fp32'"
                )
        if records:
            self._keep(psnrs)
        return psnrs

    def _keep(self, psnrs: dict[str, float]) -> None:
        """Write the averaged weights, as the last and perhaps as the best."""
        card, state = self._card(psnrs), self.average.state_dict()
        save_weights(self.out / "last.safetensors", state, card)
        # with nothing held out there is no better or worse, and the last weights are the result
        mean = sum(psnrs.values()) / len(psnrs) if psnrs else self.best
        if mean > self.best or not psnrs:
            self.best = mean
            save_weights(self.out / "best.safetensors", state, card)

    def _card(self, psnrs: dict[str, float]) -> Card:
        data = self.recipe.data
        sources = [f"{s.input} -> {s.target}" for s in data.sources]
        made = [f"{c.folder} (inputs made: {c.make})" for c in data.clean]
        losses = [loss for begins, loss in self._phases if begins < self.step]
        seen = f"{'; '.join(sources + made)}; {data.held_out:.0%} of the scenes held out"
        done = f"{self.step} steps, loss {', then '.join(losses)}, enhancekit {__version__}"
        if only := self.recipe.model.only:
            done += f", only {only}"
        start = self._start
        if start is not None:  # what they learnt, and on whose terms, is still in these weights
            done = f"weights of {start.name} ({start.training or 'no word of how'}), then {done}"
            if start.data != seen:
                seen += f"; before, for the weights it began with: {start.data or 'unknown'}"
        return Card(
            name=self.entry.spec.name,
            backbone=self.backbone.qualified_name,
            config=weights_config(self.backbone, self.config),
            task=self.entry.spec.task,
            license=start.license if start else "",
            data=seen,
            split=split_for_card(data),
            figures={"held-out PSNR in dB, a sample, 8 bits": psnrs},
            training=done,
            date=time.strftime("%Y-%m-%d"),
        )

    def _update_average(self) -> None:
        # short runs would otherwise average in their random start
        decay = min(self.recipe.optim.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            # these name what several places share once
            pairs = itertools.chain(
                zip(self.average.parameters(), self.network.parameters(), strict=True),
                zip(self.average.buffers(), self.network.buffers(), strict=True),
            )
            for value, theirs in pairs:
                if value.is_floating_point() or value.is_complex():
                    mean = torch.lerp(value, theirs, 1 - decay)
                    value.copy_(mean.where(value != theirs, theirs))  # a mask may hold infinity
                else:
                    value.copy_(theirs)

    def _save(self) -> None:
        state = {
            "recipe": _as_json(self.recipe),
            "data": self._contents,
            "start": None if self._start is None else asdict(self._start),
            "step": self.step,
            "best": self.best,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "losses": self._state_of_losses(),
        }
        save_checkpoint(self._checkpoint, state)

    def _state_of_losses(self) -> dict[str, Tensor]:
        """Return what losses learn or count; frozen parameters are large and made anew."""
        losses = self.objective.module.losses
        frozen = {name for name, p in losses.named_parameters() if not p.requires_grad}
        return {name: v for name, v in losses.state_dict().items() if name not in frozen}

    def _examine_context(self, *, begun: bool) -> None:
        """Refuse thumbnails that teach nothing, and tell of decisions that nothing is taught."""
        given = torch.full((2, 3, THUMBNAIL, THUMBNAIL), 0.5)
        with torch.random.fork_rng(devices=[]), blaming(given, "in context_loss on"):
            learns = self.network.context_loss(given, given).requires_grad  # type: ignore[operator]
        wanted, name = self.recipe.run.context_batch, self.recipe.model.enhancer
        if wanted and not learns:
            raise RecipeError(
                f"run.context_batch: the context of {name!r} learns nothing from thumbnails; set "
                "it to 0" + ("" if self.recipe.loss else ", and give a loss")
            )
        if learns and not wanted and not begun:
            self.notes.append(
                f"run.context_batch is 0 and no weights are given to begin with, so what {name!r} "
                "decides of whole pictures stays as it happens to start"
            )

    def _restore(self, state: dict[str, Any]) -> None:
        if state.get("data", self._contents) != self._contents:
            raise DataError(
                f"{self.out}: the pictures are not those the run began with, so it cannot go on as "
                "it would have; bring them back, or start a new run with model.weights"
            )
        before = json.loads(state["recipe"])["run"]
        try:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            losses = self.objective.module.losses
            losses.load_state_dict({**losses.state_dict(), **state["losses"]})
            self.step, self.best = int(state["step"]), float(state["best"])
            start = state.get("start")
            self._start = None if start is None else Card(**start)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(f"{self._checkpoint} does not fit this network: {error}") from error
        if before.get("validate_pictures") != self.recipe.run.validate_pictures:
            self.best = -math.inf  # of other pictures, so that it cannot be compared


class _Autocast(MixedPrecision):
    """Autocast of the network alone: pictures rounded to 16 bits would be poor references."""

    def convert_input(self, data: Any) -> Any:
        return data


def _fabric(recipe: Recipe, device: torch.device) -> Fabric:
    """Set up one process, or join those that ``torchrun`` started."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if recipe.run.accumulate % world:
        raise RecipeError(
            f"run.accumulate: {recipe.run.accumulate} batches cannot be shared out evenly over "
            f"{world} processes; set it to a multiple"
        )
    fabric = Fabric(
        accelerator=device.type,
        devices=local if device.index is None or world > 1 else [device.index],
        num_nodes=world // local,
        # a context that is not trained leaves parameters without a gradient
        strategy=DDPStrategy(find_unused_parameters=True) if world > 1 else "auto",
        **(
            {"plugins": _Autocast("bf16-mixed", device.type)}
            if recipe.run.precision == "bf16"
            else {"precision": "32-true"}
        ),
    )
    fabric.launch()
    return fabric


def _seed_all(seed: int) -> None:
    """Seed whatever a block may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  the global generator is the point


def _keeps_frozen_counts(module: nn.Module) -> bool:
    """Tell whether it is a batch norm that is not trained, whose statistics shall stay as well."""
    parameters = list(module.parameters(recurse=False))
    frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
    return frozen and bool(getattr(module, "track_running_stats", False))


def _try_later_losses(losses: Iterable[tuple[str, nn.Module]], crop: int) -> None:
    """Try the losses of later phases on a crop, so that none ends a run hours on."""
    picture = torch.linspace(0.1, 0.9, crop).expand(1, 3, crop, crop)
    for text, loss in losses:
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                copy.deepcopy(loss)(picture, picture.mT)  # it may count its calls
        except EnhanceKitError as error:
            raise RecipeError(f"the loss {text!r} fails on crops of {crop}: {error}") from error


def _copied(network: nn.Module, backbone: Entry[BackboneSpec]) -> nn.Module:
    try:
        return copy.deepcopy(network)
    except Exception as error:  # what can't be copied says so in many ways
        raise PluginError(
            f"the network of {backbone} cannot be copied, which its moving average needs "
            f"({first_line(error)}); keep nothing computed from parameters as an attribute, as "
            "torch.nn.utils.weight_norm does; normalise weights in forward"
        ) from error


def _losses(texts: list[str], options: dict[str, dict[str, Any]]) -> list[nn.Module]:
    named = {name for text in texts for _, name in parse(text)}
    if unknown := sorted(set(options) - named):
        raise RecipeError(f"loss_options: {', '.join(unknown)} stands in no loss of the recipe")
    return [_loss(text, options) for text in texts]


def _loss(text: str, options: dict[str, dict[str, Any]]) -> nn.Module:
    known = {name: options[name] for _, name in parse(text) if name in options}
    if "+" in text or "*" in text:
        made: nn.Module = host().losses.create(text, options=known)
    else:
        made = host().losses.create(text, **known.get(text, {}))
    return made


def _refuse_run_in(folder: Path, checkpoint: Path) -> None:
    if checkpoint.exists():
        raise RecipeError(
            f"{folder} already holds a run; continue it with --resume, or set run.out"
        )
    for name in ("last.safetensors", "best.safetensors", "metrics.csv"):
        path = folder / name
        if path.is_file() and not (name == "metrics.csv" and are_empty(path)):
            raise RecipeError(
                f"{folder} already holds {name} of a run that stopped before its first "
                "checkpoint; set run.out, or remove the folder"
            )


def _select(network: nn.Module, pattern: str) -> list[nn.Parameter]:
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise RecipeError(f"model.only = {pattern!r} is no regular expression: {error}") from error
    for name, parameter in network.named_parameters():
        if not wanted.match(name):  # what a block has frozen itself stays so in any case
            parameter.requires_grad_(False)
    chosen = [p for p in network.parameters() if p.requires_grad]
    if not chosen:
        raise RecipeError(f"model.only = {pattern!r} matches no parameter that can be trained")
    return chosen


def _figures(done: Progress, rate: float) -> dict[str, float]:
    terms = {f"loss/{name}": value for name, value in done.terms.items()}
    psnrs = {f"psnr/{name}": value for name, value in done.psnr.items()}
    return {"loss": done.loss, **terms, "lr": rate, **psnrs}


def _refuse_non_finite(value: Tensor, what: str) -> None:
    finite = torch.isfinite(value)
    if not finite.all():
        raise NonFiniteError(
            f"{what} is {float(value.detach()[~finite][0])}; lower optim.lr, set optim.clip, or "
            "use run.precision='fp32'"
        )


def _refuse_crop(data: Data, needs: Any) -> None:
    times = max((SHRINKING.get(clean.make, 1) for clean in data.clean), default=1)
    if needs.scale != times:
        raise RecipeError(
            f"data: the network enlarges {needs.scale} times, but the references are {times} times "
            "as large as their inputs; make = 'bicubic-x2' is for networks that double, and so on: "
            + ", ".join(SHRINKING)
        )
    multiple, least = needs.multiple_of * needs.scale, needs.minimum * needs.scale
    if data.crop % multiple or data.crop < least:
        raise RecipeError(
            f"data.crop: {data.crop}, but this network takes multiples of {multiple}, at least "
            f"{least}"
        )


def _refuse_contradictions(recipe: Recipe, global_context: bool) -> None:
    if recipe.run.context_batch and not global_context:
        raise RecipeError(
            f"run.context_batch: the network of {recipe.model.enhancer!r} declares no global "
            "context, so there is nothing to train on thumbnails; set it to 0"
        )
    if not recipe.loss and (not recipe.run.context_batch or recipe.phases):
        raise RecipeError(
            "loss: empty trains the global context alone, which needs run.context_batch and has "
            "no phases"
        )
    steps = [phase.step for phase in recipe.phases]
    if steps != sorted(set(steps)):
        raise RecipeError(f"phases: their steps must rise, but are {steps}")


def _as_json(recipe: Recipe) -> str:
    return to_json(recipe.model_dump(mode="json"), indent=None)


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
