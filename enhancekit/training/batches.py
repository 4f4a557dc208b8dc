"""Training batches as a pure function of (seed, number), so that resuming is exact anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from enhancekit.errors import DataError
from enhancekit.imaging.reading import read_rgb8
from enhancekit.training.pairs import Pair, read_pair
from enhancekit.training.synthetic import SHRINKING, draw_degradation

__all__ = ["Batch", "Batches", "Group", "seeded"]

THUMBNAIL = 96
"""Side of the whole-picture thumbnails that networks with a global context learn from."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops, and thumbnails of the whole pictures they were taken from; all in [0, 1]."""

    input: Tensor
    """Shape (N, 3, crop, crop)."""
    target: Tensor
    """Shape (N, 3, crop, crop)."""
    input_whole: Tensor
    """Shape (N, 3, 96, 96)."""
    target_whole: Tensor
    """Shape (N, 3, 96, 96)."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(
            self.input.to(device),
            self.target.to(device),
            self.input_whole.to(device),
            self.target_whole.to(device),
        )


def seeded(*numbers: int) -> torch.Generator:
    """Return a generator for a tuple of numbers; nearby tuples give unrelated streams."""
    state = np.random.SeedSequence([n % 2**32 for n in numbers]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures from one source, drawn in proportion to their number times a weight."""

    pairs: Sequence[Pair] = ()
    """Real pairs."""
    clean: Sequence[Path] = ()
    """Photographs that are the references of inputs made from them."""
    make: str = "dark"
    """How those inputs are made; see `enhancekit.training.synthetic.draw_degradation`."""
    weight: float = 1.0
    """Relative frequency of each picture."""


class Batches:
    """All training pictures in memory as 8-bit pixels, cut into batches.

    Parameters
    ----------
    groups : sequence of Group
        With at least one picture in all.
    crop : int
        Side of the crops.
    shrink : sequence of int
        Each crop covers ``shrink`` times its side and is averaged down; drawn evenly.
    augment : bool
        Mirror and rotate by quarter turns.
    augment_channels : bool
        Put red, green and blue in any order, the same for all of a pair.
    seed : int
        Everything random follows from it.

    Raises
    ------
    DataError
        If a pair's sizes differ, or a picture is smaller than the crop.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        crop: int,
        shrink: Sequence[int] = (1,),
        augment: bool = True,
        augment_channels: bool = False,
        seed: int = 0,
    ) -> None:
        groups = [group for group in groups if group.pairs or group.clean]
        if not groups:
            raise DataError("there are no training pictures; is held_out too large?")
        made = {"" if group.pairs else group.make for group in groups}
        if len({SHRINKING.get(kind, 1) for kind in made}) > 1:
            raise DataError(
                f"{', '.join(sorted(made & set(SHRINKING)))} makes smaller inputs, so it cannot be "
                "mixed with other sources"
            )
        self.crop, self.shrink, self.augment, self.seed = crop, tuple(shrink), augment, seed
        self.augment_channels = augment_channels
        self._pictures: list[tuple[Tensor, Tensor]] = []
        self._make: list[str] = []
        paths: list[Path] = []
        with ThreadPoolExecutor() as pool:
            for group in groups:
                self._pictures += pool.map(_read, group.pairs)
                # a clean photograph stands for both of its pair until a crop is spoilt
                self._pictures += [(c, c) for c in pool.map(_load, group.clean)]
                self._make += [""] * len(group.pairs) + [group.make] * len(group.clean)
                paths += [*(pair.input for pair in group.pairs), *group.clean]
        self._shares = _shares(groups)
        for path, (low, _) in zip(paths, self._pictures, strict=True):
            least = crop * min(shrink)
            if min(low.shape[1:]) < least:
                raise DataError(
                    f"{path} is {low.shape[2]}x{low.shape[1]}, smaller than the crop of {crop}"
                    + (f", shrunk by {min(shrink)}" if min(shrink) > 1 else "")
                    + f"; set data.crop to at most {min(low.shape[1:]) // min(shrink)}"
                )
        self._thumbnails = [(_thumbnail(low), _thumbnail(high)) for low, high in self._pictures]

    def __len__(self) -> int:
        return len(self._pictures)

    @property
    def cached_bytes(self) -> int:
        """Memory the decoded pictures take."""
        return sum(
            high.nbytes + (0 if make else low.nbytes)
            for (low, high), make in zip(self._pictures, self._make, strict=True)
        )

    def batch(self, number: int, size: int) -> Batch:
        """Give the batch of a number; the same number always gives the same batch."""
        draw = seeded(self.seed, 1, number)
        indices = [self._index(number * size + i) for i in range(size)]
        samples = [self._sample(i, draw) for i in indices]
        return Batch(*(torch.stack(parts) for parts in zip(*samples, strict=True)))

    def thumbnails(self, number: int, size: int) -> tuple[Tensor, Tensor]:
        """Give thumbnails of `size` pairs, (N, 3, 96, 96), mirrored at random."""
        draw = seeded(self.seed, 2, number)
        pairs = []
        for i in torch.randint(len(self), (size,), generator=draw).tolist():
            low, high = self._thumbnails[i]
            if self._make[i]:
                low = draw_degradation(self._make[i], draw)(low, draw, False)
            both = torch.stack((low, high))
            if self.augment and torch.rand(1, generator=draw) < 0.5:
                both = both.flip(-1)
            pairs.append(both[:, self._order(draw)])
        stacked = torch.stack(pairs, dim=1)
        return stacked[0], stacked[1]

    def _index(self, position: int) -> int:
        """Say which picture stands at a place of the endless, shuffled sequence of samples."""
        length = sum(share for _, _, share in self._shares)
        epoch, place = divmod(position, length)
        order = torch.randperm(length, generator=seeded(self.seed, 3, epoch))
        slot = int(order[place])
        start = 0
        for number, (first, size, share) in enumerate(self._shares):
            if slot < start + share:
                # each source goes round in its own shuffled order, whatever its share
                turn, seat = divmod(epoch * share + slot - start, size)
                own = torch.randperm(size, generator=seeded(self.seed, 5, number, turn))
                return first + int(own[seat])
            start += share
        raise DataError("internal: the shares do not add up")

    def _sample(self, index: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a crop and a thumbnail, each input and target."""
        low, high = self._crop(index, draw)
        low_whole, high_whole = self._thumbnails[index]
        if self._make[index]:
            degradation = draw_degradation(self._make[index], draw)
            low = degradation(low, draw, True)
            low_whole = degradation(low_whole, draw, False)
        order = self._order(draw)
        return low[order], high[order], low_whole[order], high_whole[order]

    def _order(self, draw: torch.Generator) -> slice | Tensor:
        """Draw the order of the channels."""
        return torch.randperm(3, generator=draw) if self.augment_channels else slice(None)

    def _crop(self, index: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        pictures = self._pictures[index]
        height, width = pictures[0].shape[1:]
        fitting = [s for s in self.shrink if s * self.crop <= min(height, width)]
        shrink = fitting[int(torch.randint(len(fitting), (1,), generator=draw))]
        side = shrink * self.crop
        top = int(torch.randint(height - side + 1, (1,), generator=draw))
        left = int(torch.randint(width - side + 1, (1,), generator=draw))
        # sliced first: a whole photograph need not be copied for one crop
        cut = [p[:, top : top + side, left : left + side] for p in pictures]
        both = torch.stack(cut).float() / 255
        if shrink > 1:
            both = F.avg_pool2d(both, shrink)
        if self.augment:
            turn, mirror = torch.randint(4, (2,), generator=draw).tolist()
            both = both.rot90(turn, (2, 3))
            both = both.flip(-1) if mirror % 2 else both
        return both[0], both[1]


def _shares(groups: Sequence[Group]) -> list[tuple[int, int, int]]:
    """Return (index of the first picture, pictures, samples an epoch) of each group."""
    sizes = [len(group.pairs) + len(group.clean) for group in groups]
    wanted = [size * group.weight for size, group in zip(sizes, groups, strict=True)]
    # an epoch is long enough that the rarest source comes at least once
    total = max(sum(sizes), math.ceil(sum(wanted) / min(wanted)))
    # the running sum is rounded, so that the shares add up to the whole unless one would be 0
    ends = [round(total * sum(wanted[: i + 1]) / sum(wanted)) for i in range(len(wanted))]
    return [
        (sum(sizes[:i]), sizes[i], max(1, end - start))
        for i, (start, end) in enumerate(pairwise([0, *ends]))
    ]


def _read(pair: Pair) -> tuple[Tensor, Tensor]:
    low, high = (torch.from_numpy(p).permute(2, 0, 1) for p in read_pair(pair))
    return low, high


def _load(path: Path) -> Tensor:
    return torch.from_numpy(read_rgb8(path)).permute(2, 0, 1)


def _thumbnail(picture: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(picture[None].float() / 255, THUMBNAIL)[0]
