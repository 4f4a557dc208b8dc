"""Which pictures a run trains on, and which it holds out, by its recipe."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enhancekit.errors import DataError
from enhancekit.training.batches import Batches, Group
from enhancekit.training.pairs import (
    Pair,
    content,
    find_pairs,
    is_held_out,
    pictures_in,
    readable,
    sound_pairs,
)
from enhancekit.training.recipe import Clean, Data, Recipe

__all__ = ["Sources", "load_sources", "split_for_card", "split_pairs", "training_photographs"]


@dataclass(frozen=True, slots=True)
class Sources:
    """What a run learns from, and what it is measured on."""

    batches: Batches
    """Of the training pictures."""
    held_out: Mapping[str, Sequence[Pair]]
    """Pairs by source."""
    digest: str
    """What tells whether a run goes on with the pictures it began with."""


def split_for_card(data: Data) -> dict[str, Any]:
    """Return what `enhancekit.weights.Card` says of the split.

    Examples
    --------
    >>> split_for_card(Data(root="data", clean=({"folder": "clean"},), held_out=0.2))
    {'held_out': 0.2, 'scenes': [None]}
    """
    scenes = [*(source.scene for source in data.sources), *(None for _ in data.clean[:1])]
    return {"held_out": data.held_out, "scenes": scenes}


def load_sources(recipe: Recipe, skipped: list[str] | None = None) -> Sources:
    """Read the pictures a recipe names; all are read now rather than at a step hours away.

    Parameters
    ----------
    recipe : Recipe
        What to train.
    skipped : list of str, optional
        Given, what is broken is left out and named here, one line each.

    Raises
    ------
    DataError
        If pictures are missing, broken or too small, or none is held out though a share should be.
    """
    data = recipe.data
    training, split = split_pairs(data, skipped)
    held_out = {source: sound_pairs(pairs, skipped) for source, pairs in split.items()}
    if data.held_out and held_out and not any(held_out.values()):
        raise DataError(
            f"data.held_out: a share of {data.held_out:g} takes none of the scenes here, which are "
            "too few; make it larger, or 0 to train on all of them and validate on none"
        )
    if skipped is not None:
        training = [sound_pairs(pairs, skipped) for pairs in training]
    groups = [
        *(Group(p, weight=s.weight) for p, s in zip(training, data.sources, strict=True)),
        *(
            Group((), training_photographs(data, clean, split, skipped), clean.make, clean.weight)
            for clean in data.clean
        ),
    ]
    batches = Batches(
        groups,
        crop=data.crop,
        shrink=data.shrink,
        augment=data.augment,
        augment_channels=data.augment_channels,
        seed=recipe.run.seed,
    )
    return Sources(batches, held_out, _digest(groups, held_out))


def split_pairs(
    data: Data, skipped: list[str] | None = None
) -> tuple[list[list[Pair]], dict[str, list[Pair]]]:
    """Find all pairs and split them by scene; what one source holds out, no other trains on.

    Parameters
    ----------
    data : Data
        Of the recipe.
    skipped : list of str, optional
        See `enhancekit.training.pairs.find_pairs`.

    Returns
    -------
    training : list of list of Pair
        By source, in the recipe's order.
    held_out : dict of str to list of Pair
        By source.
    """
    training: list[list[Pair]] = []
    held_out: dict[str, list[Pair]] = {}
    inputs = [source.input for source in data.sources]
    for source in data.sources:
        root = Path(data.root)
        pairs = find_pairs(root / source.input, root / source.target, source.scene, skipped)
        training.append([p for p in pairs if not is_held_out(p.scene, data.held_out)])
        twice = inputs.count(source.input) > 1
        name = f"{source.input} to {source.target}" if twice else source.input
        held_out[name] = [p for p in pairs if is_held_out(p.scene, data.held_out)]
    unseen = _contents_of(held_out)
    if len(training) > 1:
        training = [[p for p in pairs if content(p.target) not in unseen] for pairs in training]
    return training, held_out


def _contents_of(held_out: Mapping[str, Sequence[Pair]]) -> set[str]:
    return {content(path) for path in {p.target for pairs in held_out.values() for p in pairs}}


def training_photographs(
    data: Data,
    clean: Clean,
    held_out: Mapping[str, Sequence[Pair]],
    skipped: list[str] | None = None,
) -> list[Path]:
    """List the photographs of a folder that are not held out; each is a scene of its own.

    References of held-out pairs, from `split_pairs`, are left out, too, under whatever name. Given
    `skipped`, photographs that cannot be read are left out and named there.
    """
    found = pictures_in(Path(data.root) / clean.folder)
    unseen = _contents_of(held_out)
    chosen = [
        path
        for stem, path in found.items()
        if not is_held_out(stem, data.held_out) and not (unseen and content(path) in unseen)
    ]
    return chosen if skipped is None else readable(chosen, skipped)


def _digest(groups: Sequence[Group], held_out: Mapping[str, Sequence[Pair]]) -> str:
    """Return what tells whether a run goes on with the pictures it began with."""
    pairs = itertools.chain.from_iterable((*(g.pairs for g in groups), *held_out.values()))
    lines = [[p.name, p.scene, *(f.stat().st_size for f in (p.input, p.target))] for p in pairs]
    lines += [[path.stem, path.stat().st_size] for group in groups for path in group.clean]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()
