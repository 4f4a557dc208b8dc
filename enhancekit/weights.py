"""Weights on disk: safetensors with a model card in the header, checked by hash and config."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from enhancekit.atomic import replacing
from enhancekit.errors import WeightsError
from enhancekit.plain import first_line, is_number
from enhancekit.specs import WeightsSpec

__all__ = ["Card", "load_weights", "normalised", "read_card", "save_weights", "shipped"]

_KEY = "enhancekit"
_MAX_HEADER = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What is known about a set of weights; kept in the header of its file."""

    name: str
    """Enhancer the weights were trained as."""
    backbone: str
    """Qualified name of the network."""
    config: Mapping[str, Any]
    """Everything that shapes the network; must equal what is asked for."""
    task: str = ""
    """What it was trained for."""
    license: str = ""
    """Terms of the weights, with those of the data they were trained on."""
    data: str = ""
    """What it was trained on, and what was held out."""
    split: Mapping[str, Any] = field(default_factory=dict)
    """The share of scenes held out (``held_out``), and by which patterns of their names they were
    told apart (``scenes``): empty by the reference's content, ``None`` each picture by itself."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Measured quality: each with the protocol and the command that repeats it."""
    limits: str = ""
    """Where it fails."""
    training: str = ""
    """How it was trained: recipe and number of steps."""
    date: str = ""
    """When, as ISO date."""
    parity_db: Mapping[str, float] = field(default_factory=dict)
    """Precision to measured PSNR against 32 bits; ``precision="auto"`` goes by it."""


def normalised(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as JSON gives it back, so that tuples and lists compare equal.

    Examples
    --------
    >>> normalised({"counts": (1, 2)})
    {'counts': [1, 2]}
    """
    plain: dict[str, Any] = json.loads(json.dumps(dict(config), sort_keys=True, default=str))
    return plain


def save_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor], card: Card) -> None:
    """Write a state dict with its card, atomically.

    Parameters
    ----------
    path : path-like
        Ends in ``.safetensors``.
    state : mapping of str to Tensor
        As from ``module.state_dict()``.
    card : Card
        Written into the header.

    Raises
    ------
    WeightsError
        If the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"weights are saved as .safetensors only, not as {path.name!r}")
    _check(card, path)
    try:
        text = json.dumps(asdict(card))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its model card is no JSON: {error}") from error
    # cloned, since the format refuses what two names share
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    payload = safetensors.torch.save(tensors, metadata={_KEY: text})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(payload)
    except OSError as error:
        raise WeightsError(f"weights cannot be written to {path}: {error}") from error


def _header(path: Path) -> dict[str, Any]:
    """Read the header without touching the tensors, whatever the file claims to be."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            room = min(path.stat().st_size - 8, _MAX_HEADER)
            header = json.loads(file.read(length)) if 0 < length <= room else None
    except FileNotFoundError:
        raise WeightsError(f"weights file {path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise WeightsError(
            f"{path} is not a safetensors file; it may be truncated, or of another format, which "
            "is refused because it can run code"
        )
    return header


def read_card(path: str | os.PathLike[str]) -> Card:
    """Read the model card of a weights file.

    Raises
    ------
    WeightsError
        If the file is missing or damaged, or has no card.
    """
    path = Path(path)
    metadata = _header(path).get("__metadata__")
    text = metadata.get(_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise WeightsError(
            f"{path} carries no enhancekit model card, so it is not known which network it "
            "belongs to"
        )
    try:
        card = Card(**json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path} carries no enhancekit model card that can be read: {error}"
        ) from error
    _check(card, path)
    return card


def _check(card: Card, path: str | os.PathLike[str]) -> None:
    """Refuse a card of another shape, which anybody may have written."""
    tables = {"config", "split", "figures", "parity_db"}
    for each in fields(card):
        kind, called = (Mapping, "table") if each.name in tables else (str, "text")
        if not isinstance(getattr(card, each.name), kind):
            raise WeightsError(f"{path}: {each.name} of its model card is no {called}")
    if not all(is_number(value) for value in card.parity_db.values()):
        raise WeightsError(f"{path}: parity_db of its model card holds what is no number")


def load_weights(
    path: str | os.PathLike[str],
    module: torch.nn.Module,
    *,
    backbone: str,
    config: Mapping[str, Any],
    defaults: Mapping[str, Any] = MappingProxyType({}),
    train_hint: str = "",
) -> Card:
    """Load weights into a network, refusing those of another one.

    Parameters
    ----------
    path : path-like
        A safetensors file with a card.
    module : torch.nn.Module
        Where the weights go; every tensor must match, none may be left over.
    backbone : str
        Qualified name of the network.
    config : mapping
        What the network was built with; compared with the card's.
    defaults : mapping
        Values of options that either side leaves out.
    train_hint : str
        How to train weights for this config, for the error message.

    Returns
    -------
    Card
        The file's card.

    Raises
    ------
    WeightsError
        If the file is damaged or belongs to another network or config.
    """
    path = Path(path)
    card = read_card(path)
    wanted, had, usual = (normalised(c) for c in (config, card.config, defaults))
    differing = [
        f"{key}: {had.get(key, 'unset')!r} there, {wanted.get(key, 'unset')!r} asked for"
        for key in sorted({*wanted, *had})
        if wanted.get(key, usual.get(key)) != had.get(key, usual.get(key))
    ]
    if card.backbone != backbone:
        differing.insert(0, f"backbone: {card.backbone!r} there, {backbone!r} asked for")
    if differing:
        raise WeightsError(
            f"the weights {path} (of {card.name!r}) belong to another network ("
            + "; ".join(differing)
            + "). To use these, ask for the options they were trained with (--option key=value on "
            "the command line)." + how_to_get(train_hint)
        )
    try:
        # bytes, not a mapped file: a map would break when the file is replaced
        state = safetensors.torch.load(path.read_bytes())
        module.load_state_dict(state, strict=True)
    except (safetensors.SafetensorError, OSError, RuntimeError) as error:
        said = first_line(error)
        raise WeightsError(f"{path} is damaged or not these weights: {said}") from error
    return card


def how_to_get(train_hint: str) -> str:
    """Say how to get weights, or to do without."""
    train = (
        f" Train some: `{train_hint}`, then pass weights=PATH (--weights PATH)."
        if train_hint
        else ""
    )
    return f"{train} In Python, pretrained=False gives an untrained network."


def shipped(spec: WeightsSpec) -> Path:
    """Return the path of weights inside an installed package, after checking their hash.

    Raises
    ------
    WeightsError
        If the file is missing or was changed.
    """
    package, _, inside = spec.resource.partition(":")
    try:
        path = Path(str(importlib.resources.files(package).joinpath(inside)))
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ModuleNotFoundError) as error:
        raise WeightsError(
            f"the weights {spec.resource} are not installed ({error}); reinstall the plugin"
        ) from error
    if found != spec.sha256:
        raise WeightsError(
            f"the weights {path} were changed: SHA-256 {found}, expected {spec.sha256}; "
            "reinstall the plugin"
        )
    return path
