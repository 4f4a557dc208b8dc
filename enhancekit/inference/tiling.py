"""A network over a picture of any size: padding, and tiles that give what the whole would give."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from enhancekit.errors import OptionError
from enhancekit.specs import SizeRequirements

__all__ = ["AUTO_PIXELS", "AUTO_TILE", "check_tile", "pad_to", "run_tiled", "tile_size"]

AUTO_PIXELS = 2_500_000
"""Pictures up to this many pixels are processed whole under ``tile="auto"``."""
AUTO_TILE = 1024
"""Side, in pixels without overlap, of the tiles of larger ones."""


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
    tile: str | int | None, height: int, width: int, needs: SizeRequirements
) -> int | None:
    """Decide the side of the tiles, or ``None`` for the whole picture at once.

    Raises
    ------
    OptionError
        If `tile` is no positive number, or tiles are asked of a network with no known halo.
    """
    check_tile(tile)
    if tile == "auto":
        large = height * width > AUTO_PIXELS
        return AUTO_TILE if large and needs.halo is not None else None
    if not isinstance(tile, int):
        return None
    if needs.halo is None:
        raise OptionError(
            f"tile={tile} was asked for, but the network does not declare how far it looks "
            "(a block without `halo`, or an unbounded one); use tile=None"
        )
    return -(-tile // needs.multiple_of) * needs.multiple_of


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
        wanted = -(-max(size, minimum) // multiple_of) * multiple_of
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


def run_tiled(
    network: Callable[[Tensor], Tensor], x: Tensor, needs: SizeRequirements, tile: int | None
) -> Tensor:
    """Apply a network to NCHW, whole or in tiles, and return `scale` times the input's size.

    Parameters
    ----------
    network : callable
        Maps NCHW to NCHW of the size times the network's scale.
    x : Tensor
        The picture, shape (N, 3, H, W).
    needs : SizeRequirements
        The network's.
    tile : int or None
        Side of the tiles' own pixels, from `tile_size`; ``None`` for the whole at once.
    """
    scale = needs.scale
    height, width = x.shape[2] * scale, x.shape[3] * scale
    padded = pad_to(x, needs.multiple_of, needs.minimum)
    if tile is None:
        return network(padded)[..., :height, :width]
    if needs.halo is None:
        raise OptionError("tiles need a network that declares its halo")
    halo = -(-needs.halo // needs.multiple_of) * needs.multiple_of
    least = -(-needs.minimum // needs.multiple_of) * needs.multiple_of
    result: Tensor | None = None
    for top, bottom, above, below in _cuts(padded.shape[2], tile, halo, least):
        for left, right, before, behind in _cuts(padded.shape[3], tile, halo, least):
            done = network(padded[:, :, above:below, before:behind])
            if result is None:
                size = (padded.shape[2] * scale, padded.shape[3] * scale)
                result = done.new_empty((*done.shape[:2], *size))
            result[:, :, top * scale : bottom * scale, left * scale : right * scale] = done[
                :,
                :,
                (top - above) * scale : (bottom - above) * scale,
                (left - before) * scale : (right - before) * scale,
            ]
    if result is None:
        raise OptionError("the picture has no pixels")
    return result[..., :height, :width]
