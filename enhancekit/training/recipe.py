"""A training run as one TOML file, read into checked, frozen settings."""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from enhancekit.errors import RecipeError

__all__ = [
    "Clean",
    "Data",
    "Model",
    "Optimiser",
    "Phase",
    "Recipe",
    "Run",
    "Source",
    "read_recipe",
]

Positive = Annotated[int, Field(gt=0, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Number = Annotated[float, Field(strict=True)]
Weight = Annotated[Number, Field(ge=0.01, le=100)]
Stripped = Annotated[str, StringConstraints(strip_whitespace=True)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Section):
    """A pair of folders."""

    input: str
    """Folder of inputs, relative to ``data.root``."""
    target: str
    """Folder of references; paired with the inputs by file stem, whatever the extension."""
    scene: str = ""
    """Regular expression on the stem; what its first group matches names the scene. Without it,
    pairs belong to one scene where their reference files are equal."""
    weight: Weight = 1.0
    """Relative frequency of each of its pictures, 0.01 to 100."""


class Clean(_Section):
    """A folder of ordinary photographs, from which inputs are made."""

    folder: str
    """Relative to ``data.root``."""
    make: Literal[
        "dark", "camera", "gaussian", "poisson", "bicubic-x2", "bicubic-x3", "bicubic-x4"
    ] = "dark"
    """How; see `enhancekit.training.synthetic`."""
    weight: Weight = 1.0
    """Relative frequency of each of its pictures, 0.01 to 100."""


class Data(_Section):
    """Which pictures, and how they are cut up."""

    root: str = "."
    """Folder the sources stand in, relative to the working directory."""
    sources: tuple[Source, ...] = ()
    """Pairs of folders."""
    clean: tuple[Clean, ...] = ()
    """Folders of ordinary photographs."""
    held_out: Fraction = 0.1
    """Share of the scenes kept for validation; chosen by a hash of the scene's name."""
    crop: Positive = 160
    """Side of the training crops in pixels; of which number a multiple, the network says."""
    shrink: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1,)
    """Each crop covers this many times its side in the picture, averaged down; drawn evenly from
    those that fit into the picture."""
    augment: bool = True
    """Mirror and rotate by quarter turns."""
    augment_channels: bool = False
    """Put red, green and blue in any order as well; for tasks to which colours mean nothing."""
    skip_broken: bool = False
    """Leave out pictures without a partner or that cannot be read, and pairs that differ in size,
    naming each, instead of refusing to start."""


class Model(_Section):
    """What is trained."""

    enhancer: str
    """Registered name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options over the enhancer's config, e.g. ``block = "acme:fast"``."""
    weights: str = ""
    """Weights to start from; random ones if empty."""
    only: str = ""
    """Regular expression: train only the parameters whose names it matches at the start."""


class Optimiser(_Section):
    """Adam and its schedule."""

    lr: Annotated[Number, Field(gt=0, allow_inf_nan=False)] = 1e-3
    """Largest learning rate."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the running moments."""
    eps: Annotated[Number, Field(gt=0, allow_inf_nan=False)] = 1e-8
    """Added to the denominator."""
    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    """Decoupled weight decay (AdamW) where above 0."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Cosine goes down to zero at the last step."""
    warm_up: Natural = 0
    """Steps of linear rise at the start."""
    clip: Annotated[Number, Field(ge=0)] = 0.0
    """Largest gradient norm; 0 for none."""
    ema: Fraction = 0.0
    """Decay of the moving average of the weights that is validated and saved; 0 for none."""


class Run(_Section):
    """How long, how large, and how often things are written."""

    out: Annotated[str, Field(min_length=1)]
    """Folder of the run, relative to the working directory."""
    steps: Positive
    """Optimiser steps."""
    batch: Positive = 4
    """Crops in the memory of one process at once."""
    accumulate: Positive = 1
    """Batches averaged into one optimiser step, shared out over the processes; so the effective
    batch does not depend on how many there are."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of the forward pass, by autocast; weights and optimiser stay in 32 bits."""
    channels_last: bool = True
    """Memory layout; faster on every device measured."""
    context_batch: Natural = 0
    """Whole-picture thumbnails a step for networks with a global context."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63, strict=True)] = 0
    """Of the initial weights, the order of samples, the augmentation and dropout."""
    validate_every: Positive = 1000
    """Steps between validations."""
    validate_pictures: Positive = 24
    """Held-out pictures of each source a validation, spread evenly over all."""
    save_every: Positive = 500
    """Steps between checkpoints."""
    log_every: Positive = 50
    """Steps between rows of the metrics."""


class Phase(_Section):
    """A loss that takes over at a step."""

    step: Positive
    """The first step it is used for."""
    loss: Annotated[Stripped, Field(min_length=1)]
    """As ``loss`` of the recipe."""


class Recipe(_Section):
    """A training run."""

    data: Data
    model: Model
    loss: Stripped
    """Registered loss or a weighted sum, e.g. ``"charbonnier + 0.1*ssim"``; empty to train the
    global context alone."""
    loss_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of single losses by name, e.g. ``vgg = { weights = "vgg19.pth" }``."""
    phases: tuple[Phase, ...] = ()
    """Losses that take over later, in the order of their steps."""
    optim: Optimiser = Optimiser()
    run: Run


def read_recipe(source: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    source : str
        Path of a TOML file, or ``"package:path/inside.toml"`` for one that a plugin ships.
    changes : sequence of str
        ``"section.key=value"``, the value in TOML's notation (bare words are taken as text).

    Raises
    ------
    RecipeError
        If it is missing, no TOML, or has an unknown key or an impossible value; names the key.
    """
    try:
        table = tomllib.loads(_text(source))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {source} is no valid TOML: {error}") from error
    for change in changes:
        _apply(table, change)
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(p) for p in e['loc'])}: " + _said(e["type"], e["msg"], e["input"])
            for e in error.errors()
        ]
        raise RecipeError(f"recipe {source}: " + "; ".join(lines)) from None


def _said(kind: str, message: str, given: Any) -> str:
    if kind == "extra_forbidden":
        return "unknown key"
    quoted = f", not {given}; quote it: '\"{given}\"'" if kind == "string_type" else ""
    return message + quoted


def _text(source: str) -> str:
    try:
        path = Path(source)
        package, colon, inside = source.partition(":")
        if colon and not path.exists():
            return importlib.resources.files(package).joinpath(inside).read_text("utf-8")
        return path.read_text("utf-8")
    except (OSError, ModuleNotFoundError, TypeError, ValueError) as error:
        raise RecipeError(f"recipe {source} cannot be read: {error}") from error


def _apply(table: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    *sections, last = (part.strip() for part in key.split("."))
    if not equals or not last or "" in sections or "\n" in change:
        raise RecipeError(f"cannot read the change {change!r}; write section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"{key.strip()}: {section!r} is a value, not a section")
    table[last] = value
