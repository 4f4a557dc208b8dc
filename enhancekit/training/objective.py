"""What is minimised: a network, its losses and its whole-picture decisions as one module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from enhancekit.builtin.composite import CompositeLoss
from enhancekit.errors import PluginError
from enhancekit.inference.apply import blaming
from enhancekit.training.batches import Batch

__all__ = ["Objective"]


class Objective(nn.Module):
    """Maps a batch to its loss; one module, so that data-parallel training sees every parameter.

    Parameters
    ----------
    network : torch.nn.Module
        What is trained.
    losses : sequence of torch.nn.Module
        One for each phase of the training; empty to train the global context alone.
    global_context : bool
        Whether the network decides something from the whole picture.
    channels_last : bool
        Memory layout of the inputs.
    """

    def __init__(
        self,
        network: nn.Module,
        losses: Sequence[nn.Module],
        *,
        global_context: bool,
        channels_last: bool,
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.losses = nn.ModuleList(losses)
        self.global_context = global_context
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def forward(self, batch: Batch, thumbnails: tuple[Tensor, Tensor] | None, phase: int) -> Tensor:
        """Return the loss of a batch, and of thumbnails of whole pictures if any are given."""
        losses = []
        low = batch.input.contiguous(memory_format=self.layout)
        with blaming(low):
            if self.losses:
                arguments = []
                if self.global_context:
                    arguments.append(self.network.context_for(batch))
                output = self.network(low, *arguments)
                losses.append(_scalar(self.losses[phase], output, batch.target))
            if thumbnails is not None:
                losses.append(self.network.context_loss(*thumbnails))
        total: Tensor = torch.stack(losses).sum()
        return total

    def terms(self, phase: int) -> dict[str, float]:
        """Return each term of the phase's loss at the last call, where it has terms."""
        loss = self.losses[phase] if self.losses else None
        return loss.values if isinstance(loss, CompositeLoss) else {}


def _scalar(loss: nn.Module, output: Tensor, target: Tensor) -> Tensor:
    # autocast is for the network; sums in 16 bits lose the very differences a loss is about
    with torch.autocast(output.device.type, enabled=False):
        value: object = loss(output.float(), target)
    if isinstance(loss, CompositeLoss):
        for part, gave in zip(loss.losses, loss.last.values(), strict=True):
            _refuse_shape(part, gave)
    return _refuse_shape(loss, value)


def _refuse_shape(loss: nn.Module, value: object) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim:
        name = getattr(loss, "enhancekit_origin", f"the loss {type(loss).__name__}")
        gave = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise PluginError(
            f"{name} gave {gave}, but training needs one number for a batch, a tensor without "
            "dimensions; let it average over the pictures (ours do with reduction='mean')"
        )
    return value
