"""An enhancer from a file of weights alone: the card inside names the network and its config."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from enhancekit.errors import EnhanceKitError, UnknownNameError, WeightsError
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.loading import load_entry
from enhancekit.inference.network import resolve_config, weights_config
from enhancekit.plugins import host
from enhancekit.registry import Entry, Provider
from enhancekit.specs import LOAD_ARGUMENTS, EnhancerSpec
from enhancekit.weights import Card, normalised, read_card

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
    found = _registered(card, place)
    # neither the weights its plugin ships nor the config it has by now
    spec = replace(found.spec, weights=None, config=card.config)
    made = load_entry(replace(found, spec=spec), weights=path, **how)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    made.file_sha256 = digest
    made.entry = Entry(spec, Provider(scheme, source, digest[:12]), "enhancer")
    return made


def _registered(card: Card, place: str) -> Entry[EnhancerSpec]:
    """Find the enhancer a card names: of several plugins', the one with the card's config.

    If none has it, the one in the plugin that has the network.
    """
    enhancers, plugin = host().enhancers, card.backbone.partition(":")[0]
    for entry in enhancers.list():
        if entry.spec.name == card.name and entry.spec.backbone:
            try:
                backbone, config = resolve_config(entry, {})
            except EnhanceKitError:  # another's, whose network is not installed
                continue
            # a card may be older than its network's newest options
            filled = weights_config(backbone, card.config)
            same = normalised(weights_config(backbone, config)) == normalised(filled)
            if same and backbone.qualified_name == card.backbone:
                return entry
    for name in (f"{plugin}:{card.name}", card.name):
        if name in enhancers:
            return enhancers.get(name)
    raise UnknownNameError(
        f"{place} holds weights of {card.name!r} with the network {card.backbone!r}, but no "
        f"installed plugin has that enhancer; install the plugin {plugin!r}"
    )
