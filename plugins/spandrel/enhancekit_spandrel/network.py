"""A model as spandrel describes it, as a network that enhancekit's pipeline can drive."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from enhancekit.errors import OptionError
from enhancekit.specs import SizeRequirements

__all__ = ["DescribedNetwork"]


class DescribedNetwork(nn.Module):
    """Maps pictures (N, 3, H, W) in [0, 1] through a descriptor, which takes one at a time.

    A model of grey pictures is given each colour channel by itself.

    Parameters
    ----------
    descriptor : spandrel.ImageModelDescriptor
        The model and what is known of it.
    overlap : int
        How far, in pixels, tiles overlap. How far these models look is not known, so what tiles
        give is near what the whole gives, not the same.

    Raises
    ------
    OptionError
        If `overlap` is negative, or the model is neither of colour nor of grey pictures.

    Attributes
    ----------
    size_requirements : SizeRequirements
        The descriptor's; without a halo where it discourages tiles.
    """

    def __init__(self, descriptor: Any, overlap: int) -> None:
        super().__init__()
        if isinstance(overlap, bool) or not isinstance(overlap, int) or overlap < 0:
            raise OptionError(f"overlap is a number of pixels, at least 0, not {overlap!r}")
        into, out = descriptor.input_channels, descriptor.output_channels
        if (into, out) not in ((3, 3), (1, 1)):
            raise OptionError(
                f"this {descriptor.architecture.name} maps {into} channels to {out}; only models "
                "of colour (3 to 3) or grey pictures (1 to 1) can be used"
            )
        self.descriptor = descriptor
        self.model = descriptor.model  # what moves to a device, and is counted
        needs = descriptor.size_requirements
        self.size_requirements = SizeRequirements(
            multiple_of=max(needs.multiple_of, 1),
            minimum=max(needs.minimum, 1),
            halo=overlap if descriptor.tiling.name == "SUPPORTED" else None,
            scale=descriptor.scale,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 3, H * scale, W * scale)."""
        grey = self.descriptor.input_channels == 1
        parts = x.reshape(-1, 1, *x.shape[2:]) if grey else x
        done = torch.cat([self.descriptor(part) for part in parts.split(1)])
        return done.reshape(-1, 3, *done.shape[2:]) if grey else done
