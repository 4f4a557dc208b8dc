"""A network over a picture of any size: padding, and tiles that give what the whole would give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from enhancekit.errors import OptionError
from enhancekit.inference.parts import NO_MARGINS, Margins, Part, Source
from enhancekit.specs import SizeRequirements

__all__ = ["SMALLEST_TILE", "check_tile", "pad_to", "smaller_tile", "tile_size", "tiles"]

SMALLEST_TILE = 64
"""Side of the smallest tiles, in pixels, that are tried when memory does not suffice."""


def check_tile(tile: str | int | None) -> None:
    """Refuse what is neither ``"auto"``, ``None`` nor a positive number of pixels.

    Raises
    ------
    OptionError
        If it is none of these.
    """
    if tile is None or tile == "auto":
        return
    if isinstance(tile, bool) or not isinstance(tile, int) or tile < 1:
        raise OptionError(f"tile is 'auto', None or a number of pixels, not {tile!r}")


def tile_size(
    tile: str | int | None,
    height: int,
    width: int,
    needs: SizeRequirements,
    room: Callable[[], int],
) -> int | None:
    """Decide the side of the tiles, or ``None`` for the whole picture at once.

    Parameters
    ----------
    tile : "auto", None or int
        ``"auto"``: the whole if there is room, else tiles as large as there is room for.
    height, width : int
        Of the picture.
    needs : SizeRequirements
        The network's.
    room : callable
        Tells how many pixels the network may be given at once; only asked under ``"auto"``.

    Raises
    ------
    OptionError
        If `tile` is no positive number, or tiles are asked of a network with no known halo.
    """
    check_tile(tile)
    if tile == "auto":
        if needs.halo is None or height * width <= (pixels := room()):
            return None
        halo = _rounded_up(needs.halo, needs.multiple_of)
        own = math.isqrt(pixels) - 2 * halo  # what a square has beside its overlap with others
        tile = max(SMALLEST_TILE, own // needs.multiple_of * needs.multiple_of)
    if not isinstance(tile, int):
        return None
    if needs.halo is None:
        raise OptionError(
            f"tile={tile} was asked for, but the network does not declare how far it looks "
            "(a block without `halo`, or an unbounded one); use tile=None"
        )
    return _rounded_up(tile, needs.multiple_of)


def smaller_tile(used: int, needs: SizeRequirements) -> int | None:
    """Halve a tile's side, or give ``None`` where the network takes no smaller tiles."""
    half = _rounded_up(max(SMALLEST_TILE, used // 2), needs.multiple_of)
    return half if needs.halo is not None and half < used else None


def _rounded_up(size: int, multiple_of: int) -> int:
    return -(-size // multiple_of) * multiple_of


def pad_to(x: Tensor, multiple_of: int, minimum: int = 1) -> Tensor:
    """Pad NCHW at the bottom and right, mirrored, to a multiple and a minimum; any size from 1x1.

    Examples
    --------
    >>> import torch
    >>> pad_to(torch.zeros(1, 3, 5, 1), 4).shape
    torch.Size([1, 3, 8, 4])
    """
    for axis in (2, 3):
        size = x.shape[axis]
        wanted = _rounded_up(max(size, minimum), multiple_of)
        while x.shape[axis] < wanted:  # a mirror gives at most size - 1 new pixels
            size = x.shape[axis]
            more = min(wanted - size, max(size - 1, 1))
            mode = "reflect" if size > 1 else "replicate"
            x = F.pad(x, (0, more, 0, 0) if axis == 3 else (0, 0, 0, more), mode=mode)
    return x


def _cuts(length: int, tile: int, halo: int, least: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (start, stop) of each tile's own pixels and of what it must see."""
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        first = max(0, min(start - halo, length - least))
        yield start, stop, first, min(length, max(stop + halo, first + least))


class _Padded:
    """A source padded like `pad_to`, of which only what is read is made."""

    def __init__(self, source: Source, multiple_of: int, minimum: int) -> None:
        self._source = source
        self._lines = [_mirrored(length, multiple_of, minimum) for length in source.shape[2:]]
        self.height, self.width = map(len, self._lines)

    def read(self, *ranges: tuple[int, int]) -> Tensor:
        lines = [known[slice(*r)] for known, r in zip(self._lines, ranges, strict=True)]
        ends = [(int(found.min()), int(found.max()) + 1) for found in lines]
        part = self._source.read(*(slice(*e) for e in ends))
        for axis, (found, (first, _)) in enumerate(zip(lines, ends, strict=True)):
            if found[-1] - found[0] != len(found) - 1:  # part of it is mirrored
                part = part.index_select(axis + 2, (found - first).to(part.device))
        return part


def _mirrored(length: int, multiple_of: int, minimum: int) -> Tensor:
    """Give the line of the picture that stands at each place of the padded one."""
    lines = torch.arange(length, dtype=torch.float64, device="cpu").view(1, 1, length, 1)
    return pad_to(lines, multiple_of, minimum)[0, 0, :, 0].long()


def tiles(
    network: Callable[[Tensor, Margins], Tensor],
    source: Source,
    needs: SizeRequirements,
    tile: int | None,
) -> Iterator[Part]:
    """Apply a network to a picture, whole or in tiles, and yield the parts of the result.

    Parameters
    ----------
    network : callable
        Maps NCHW to NCHW of the size times the network's scale, without the margins.
    source : Source
        The picture.
    needs : SizeRequirements
        The network's.
    tile : int or None
        Side of the tiles' own pixels, from `tile_size`; ``None`` for the whole at once.
    """
    scale = needs.scale
    height, width = source.shape[2:]
    if tile is None:
        padded = pad_to(source.read(), needs.multiple_of, needs.minimum)
        done = network(padded, NO_MARGINS)
        yield Part.whole(done[:, :, : height * scale, : width * scale])
        return
    if needs.halo is None:
        raise OptionError("tiles need a network that declares its halo")
    halo = _rounded_up(needs.halo, needs.multiple_of)
    least = _rounded_up(needs.minimum, needs.multiple_of)
    picture = _Padded(source, needs.multiple_of, needs.minimum)
    for top, bottom, above, below in _cuts(picture.height, tile, halo, least):
        for left, right, before, behind in _cuts(picture.width, tile, halo, least):
            lower, outer = min(bottom, height), min(right, width)
            if top >= lower or left >= outer:  # it lies in the padding
                continue
            margins = (top - above, below - bottom, left - before, behind - right)
            done = network(picture.read((above, below), (before, behind)), margins)
            yield Part(
                slice(top * scale, lower * scale),
                slice(left * scale, outer * scale),
                done[:, :, : (lower - top) * scale, : (outer - left) * scale],
            )
