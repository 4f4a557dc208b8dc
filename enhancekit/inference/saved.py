"""An enhancer from a file of weights alone: the card inside names the network and its config."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from enhancekit.errors import UnknownNameError, WeightsError
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.loading import load
from enhancekit.plugins import host
from enhancekit.registry import Entry, Provider
from enhancekit.specs import LOAD_ARGUMENTS
from enhancekit.weights import Card, read_card

__all__ = ["load_saved", "of_card"]


def load_saved(
    place: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: str = "auto",
    tile: str | int | None = "auto",
    engine: str = "auto",
) -> Enhancer:
    """Load a file that `Enhancer.save` or training wrote: ``enhancekit.load("file:PATH")``.

    Parameters
    ----------
    place : path-like
        The file.
    device, precision, tile, engine
        As for `enhancekit.load`.

    Raises
    ------
    WeightsError
        If the file is missing or damaged, or no weights of ours.
    UnknownNameError
        If the plugin that has the network is not installed.

    Examples
    --------
    >>> import enhancekit
    >>> enhancekit.load("file:nowhere.safetensors")
    Traceback (most recent call last):
    enhancekit.errors.WeightsError: weights file nowhere.safetensors does not exist
    """
    how = {"device": device, "precision": precision, "tile": tile, "engine": engine}
    return of_card(Path(place), f"file:{place}", "file", str(place), how)


def of_card(path: Path, place: str, scheme: str, source: str, how: dict[str, Any]) -> Enhancer:
    """Load the enhancer that the card of a file of weights names.

    Parameters
    ----------
    path : Path
        Of the weights.
    place : str
        What was asked for, for messages.
    scheme, source : str
        What stands as the enhancer's plugin and distribution; its version is the file's hash.
    how : dict
        Arguments of `enhancekit.load`.
    """
    card = read_card(path)
    if taken := sorted(card.config.keys() & set(LOAD_ARGUMENTS)):
        raise WeightsError(f"{place}: {', '.join(taken)} in its config are no options")
    made = load(_registered(card, place), weights=path, **how, **card.config)
    # not the weights the plugin ships, as whoever notes where a picture is from must see
    spec = replace(made.entry.spec, weights=None)
    version = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    made.entry = Entry(spec, Provider(scheme, source, version), "enhancer")
    return made


def _registered(card: Card, place: str) -> str:
    """Find the enhancer a card names, first in the plugin that has its network."""
    plugin = card.backbone.partition(":")[0]
    for name in (f"{plugin}:{card.name}", card.name):
        if name in host().enhancers:
            return name
    raise UnknownNameError(
        f"{place} holds weights of {card.name!r} with the network {card.backbone!r}, but no "
        f"installed plugin has that enhancer; install the plugin {plugin!r}"
    )
