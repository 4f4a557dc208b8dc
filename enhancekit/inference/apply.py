"""One network on one batch of pictures: whole-picture context, precision, padding and tiles."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from enhancekit.errors import EnhanceKitError, OptionError, OutOfMemoryError, PluginError
from enhancekit.inference.tiling import run_tiled, tile_size
from enhancekit.registry import blame
from enhancekit.specs import SizeRequirements

__all__ = ["apply_network", "blaming"]

logger = logging.getLogger(__name__)

SMALLEST_TILE = 64
"""Side of the smallest tiles, in pixels, that are tried when memory does not suffice."""


@contextmanager
def blaming(x: Tensor) -> Iterator[None]:
    """Turn whatever a network raises into a `PluginError` that names the block it came from."""
    try:
        yield
    except EnhanceKitError:
        raise
    except Exception as error:  # a plugin's forward may raise anything
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
            raise OutOfMemoryError(
                f"out of memory on {x.device} with an input of shape {tuple(x.shape)}; use smaller "
                "tiles, e.g. tile=256, or in training a smaller run.batch or data.crop"
            ) from error
        raise PluginError(
            f"{blame(error) or 'the network'} failed on an input of shape {tuple(x.shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def apply_network(
    module: nn.Module,
    x: Tensor,
    *,
    global_context: bool,
    tile: str | int | None = "auto",
    dtype: torch.dtype = torch.float32,
    controls: Mapping[str, float] | None = None,
) -> Tensor:
    """Apply a network to pictures of any size.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode, with `size_requirements`.
    x : Tensor
        Shape (N, 3, H, W), float32, on any device.
    global_context : bool
        Whether the backbone was declared with one.
    tile : "auto", None or int
        See `enhancekit.inference.tiling.tile_size`. Unless ``None``, it is halved, with a warning
        in the log, while the memory does not suffice.
    dtype : torch.dtype
        Precision of the convolutions; results are float32.
    controls : mapping of str to float, optional
        Handed to the network's context, one value for every picture.

    Returns
    -------
    Tensor
        Shape (N, 3, H, W), each side times the network's scale; float32, on the device of `x`.

    Raises
    ------
    OutOfMemoryError
        If the memory does not suffice, however small the tiles.
    PluginError
        If the network fails or breaks its contract.
    """
    needs = module.size_requirements
    if not isinstance(needs, SizeRequirements):
        raise OptionError("the network has no size_requirements")
    device = next((p.device for p in module.parameters()), x.device)
    given = {k: torch.full((len(x),), float(v), device=device) for k, v in (controls or {}).items()}
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
    ):
        arguments = []
        if global_context:
            with blaming(x):
                arguments.append(module.context(x.to(device), **given))  # type: ignore[operator]

        def network(part: Tensor) -> Tensor:
            part = part.to(device).contiguous(memory_format=torch.channels_last)
            with blaming(part):
                done = module(part, *arguments)
            return _checked(done, part, module, needs.scale).to(x.device, torch.float32)

        size = tile_size(tile, x.shape[2], x.shape[3], needs)
        while True:
            try:
                return run_tiled(network, x, needs, size)
            except OutOfMemoryError:
                smaller = (size or max(x.shape[2:])) // 2
                if tile is None or needs.halo is None or smaller < SMALLEST_TILE:
                    raise
                size = tile_size(smaller, x.shape[2], x.shape[3], needs)
                logger.warning("out of memory on %s; going on in tiles of %s pixels", device, size)


def _checked(done: object, given: Tensor, module: nn.Module, scale: int) -> Tensor:
    """Refuse what breaks the contract of a backbone, naming it."""
    wanted = (*given.shape[:2], given.shape[2] * scale, given.shape[3] * scale)
    if isinstance(done, Tensor) and tuple(done.shape) == wanted:
        return done
    what = f"the shape {tuple(done.shape)}" if isinstance(done, Tensor) else type(done).__name__
    raise PluginError(
        f"{getattr(module, 'enhancekit_origin', 'the network')} gave {what} for an input of shape "
        f"{tuple(given.shape)}; it must give a tensor of the shape {wanted}"
    )
