"""One network on one batch of pictures: whole-picture context, precision, padding and tiles."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from enhancekit.errors import EnhanceKitError, OptionError, OutOfMemoryError, PluginError
from enhancekit.inference.memory import free_memory, peak_bytes
from enhancekit.inference.parts import NO_MARGINS, Margins, Part, Source, Whole, collect
from enhancekit.inference.tiling import pad_to, smaller_tile, tile_size, tiles
from enhancekit.inference.turning import mean_of_turned
from enhancekit.registry import blame
from enhancekit.specs import SizeRequirements

__all__ = ["apply_network", "blaming", "network_parts"]

logger = logging.getLogger(__name__)

MOST_MEMORY = 3 << 27
"""Bytes that a network's tensors should hold at most at once on the CPU: with larger tiles less
overlaps, but more has to go through the memory, and beyond this they get slower."""
IN_ONE = 1 << 20
"""Pixels up to which a picture's averages are taken at once."""
PROBE = 128
"""Side, in pixels, of what a network's need of memory is measured on."""


@contextmanager
def blaming(x: Tensor, during: str = "") -> Iterator[None]:
    """Turn whatever a network raises into a `PluginError` that names the block it came from."""
    try:
        yield
    except EnhanceKitError:
        raise
    except Exception as error:  # a plugin's forward may raise anything
        if _out_of_memory(error):
            raise OutOfMemoryError(
                f"out of memory on {x.device} with an input of shape {tuple(x.shape)}; use smaller "
                "tiles, e.g. tile=256, or in training a smaller run.batch or data.crop"
            ) from error
        raise PluginError(
            f"{blame(error) or 'the network'} failed {during or 'on'} an input of shape "
            f"{tuple(x.shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _out_of_memory(error: Exception) -> bool:
    # torch has an error of its own for CUDA alone
    said = ("not enough memory", "can't allocate memory", "Cannot allocate memory")
    return isinstance(error, (MemoryError, OutOfMemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def apply_network(
    module: nn.Module,
    x: Tensor,
    *,
    global_context: bool,
    tile: str | int | None = "auto",
    dtype: torch.dtype = torch.float32,
    controls: Mapping[str, float] | None = None,
) -> Tensor:
    """Apply a network to pictures of any size that lie in memory.

    Parameters
    ----------
    module, global_context, tile, dtype, controls
        See `network_parts`.
    x : Tensor
        Shape (N, 3, H, W), float32, on any device.

    Returns
    -------
    Tensor
        Shape (N, 3, H, W), each side times the network's scale; float32, on the device of `x`.

    Raises
    ------
    OutOfMemoryError
        If the memory does not suffice, however small the tiles.
    OptionError
        If tiles are asked of a network without a halo, or it has no `size_requirements`.
    PluginError
        If the network fails or breaks its contract.
    """
    source = Whole(x)
    parts = network_parts(
        module, source, global_context=global_context, tile=tile, dtype=dtype, controls=controls
    )
    scale = _needs(module).scale
    return collect(parts, x.shape[2] * scale, x.shape[3] * scale)


def network_parts(
    module: nn.Module,
    source: Source,
    *,
    global_context: bool,
    tile: str | int | None = "auto",
    dtype: torch.dtype = torch.float32,
    controls: Mapping[str, float] | None = None,
    turned: bool = False,
) -> Iterator[Part]:
    """Apply a network to pictures of any size, part by part.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode, with `size_requirements`.
    source : Source
        The pictures.
    global_context : bool
        Whether the backbone was declared with one.
    tile : "auto", None or int
        See `enhancekit.inference.tiling.tile_size`. Unless ``None``, it is halved, with a warning
        in the log, while the memory does not suffice; parts then come once more.
    dtype : torch.dtype
        Precision of the convolutions; results are float32.
    controls : mapping of str to float, optional
        Handed to the network's context, one value for every picture.
    turned : bool
        Give the mean over a tile's eight orientations (see `enhancekit.inference.turning`).

    Yields
    ------
    Part
        Of the result, each side times the network's scale; float32, on the device of the source.

    Raises
    ------
    OutOfMemoryError
        If the memory does not suffice, however small the tiles.
    OptionError
        If tiles are asked of a network without a halo, or it has no `size_requirements`.
    PluginError
        If the network fails or breaks its contract.
    """
    needs = _needs(module)
    count, _, height, width = source.shape
    stored = itertools.chain(module.parameters(), module.buffers())
    device = next((tensor.device for tensor in stored), source.device)
    arguments = []
    if global_context:
        wanted = (controls or {}).items()
        given = {
            k: torch.full((count,), float(v), dtype=torch.float32, device=device) for k, v in wanted
        }
        whole = _whole(source, getattr(module, "context_grid", None))
        with _computing(device, dtype), blaming(whole):
            arguments.append(module.context(whole.to(device), **given))  # type: ignore[operator]
        del whole

    def network(part: Tensor, margins: Margins, by: nn.Module = module) -> Tensor:
        with _computing(device, dtype), blaming(part):
            part = part.to(device).contiguous(memory_format=torch.channels_last)
            own = partial(_own, by)
            how = arguments, part, margins
            done = mean_of_turned(own, *how) if turned else own(*how)
            return done.to(source.device, torch.float32)

    def room() -> int:
        if count * height * width <= 4 * PROBE**2:  # not worth measuring
            return height * width
        free = free_memory(device) // 2
        # what computes its margins in full gains more by large tiles
        most = MOST_MEMORY * (1 if getattr(module, "takes_margins", False) else 2)
        most = min(free, most) if device.type == "cpu" else free
        try:
            return int(most / (count * _bytes_per_pixel(module, network, count, dtype)))
        except OutOfMemoryError:
            return 0

    size = tile_size(tile, height, width, needs, room)
    while True:
        try:
            yield from tiles(network, source, needs, size)
        except Exception as error:
            used = size or max(height, width)
            smaller = smaller_tile(used, needs)
            if tile is None or smaller is None or not _out_of_memory(error):
                raise
            size = smaller
            logger.warning("out of memory on %s; going on in tiles of %s pixels", device, size)
        else:
            return


def _needs(module: nn.Module) -> SizeRequirements:
    needs = module.size_requirements
    if not isinstance(needs, SizeRequirements):
        raise OptionError("the network has no size_requirements")
    return needs


@contextmanager
def _computing(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
    ):
        yield


def _whole(source: Source, grid: int | None) -> Tensor:
    """Give what a context is decided by: the whole picture, or its averages on a grid."""
    height, width = source.shape[2:]
    if grid == 0:  # it looks at nothing
        return source.read(slice(0, 1), slice(0, 1))
    if grid is None or source.shape[0] * height * width <= IN_ONE or height < grid:
        return source.read()
    ends = [(i * height // grid, -(-(i + 1) * height // grid)) for i in range(grid)]
    rows = [F.adaptive_avg_pool2d(source.read(slice(*e)), (1, grid)) for e in ends]
    return torch.cat(rows, dim=2)


_MEASURING = threading.Lock()
_MEASURED: WeakKeyDictionary[nn.Module, dict[torch.dtype, int]] = WeakKeyDictionary()


def _bytes_per_pixel(
    module: nn.Module,
    network: Callable[[Tensor, Margins, nn.Module], Tensor],
    count: int,
    dtype: torch.dtype,
) -> int:
    """Measure once what a network's tensors hold at most for each pixel it is given."""
    if stated := getattr(module, "bytes_per_pixel", None):
        return int(stated)
    # what engines need, nobody can see; in torch the network needs about the same
    seen = getattr(module, "in_torch", module)
    with _MEASURING:
        known = _MEASURED.setdefault(seen, {})
        if dtype not in known:
            needs = _needs(module)
            blank = torch.zeros(count, 3, PROBE, PROBE, dtype=torch.float32, device="cpu")
            probe = pad_to(blank, needs.multiple_of, needs.minimum)
            taken = peak_bytes(lambda: network(probe, NO_MARGINS, seen))
            known[dtype] = max(1, taken // probe[:, 0].numel())
        return known[dtype]


def _own(module: nn.Module, arguments: Sequence[Tensor], part: Tensor, margins: Margins) -> Tensor:
    """Apply a network to a tile, and give what is the tile's own, without its margins."""
    scale = _needs(module).scale
    top, bottom, left, right = (margin * scale for margin in margins)
    height, width = (side * scale for side in part.shape[2:])
    if any(margins) and getattr(module, "takes_margins", False):
        inner = height - top - bottom, width - left - right
        return _checked(module(part, *arguments, margins=margins), part, module, inner)
    done = _checked(module(part, *arguments), part, module, (height, width))
    return done[:, :, top : height - bottom, left : width - right]


def _checked(done: object, given: Tensor, module: nn.Module, size: tuple[int, int]) -> Tensor:
    """Refuse what breaks the contract of a backbone, naming it."""
    wanted = (*given.shape[:2], *size)
    if isinstance(done, Tensor) and tuple(done.shape) == wanted:
        return done
    what = f"the shape {tuple(done.shape)}" if isinstance(done, Tensor) else type(done).__name__
    raise PluginError(
        f"{getattr(module, 'enhancekit_origin', 'the network')} gave {what} for an input of shape "
        f"{tuple(given.shape)}; it must give a tensor of the shape {wanted}"
    )
