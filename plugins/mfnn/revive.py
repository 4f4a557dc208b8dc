"""Give the dead rectifiers of a trained MFNN new inputs, without changing what it computes.

    python plugins/mfnn/revive.py mfnn-sr-x2 runs/a/last.safetensors OUT DATA

A unit of an SCR's first convolution that is never positive adds nothing and gets no gradient, so
it stays dead. Here it gets random weights, half of its values positive on training crops, and what
reads it gets weights of zero, from which training goes on (as Net2Net, Chen et al., ICLR 2016,
widens a layer). DATA holds the folders that the recipe names.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from enhancekit_mfnn.blocks import SCR
from torch import Tensor, nn

from enhancekit.training.loop import Trainer
from enhancekit.training.recipe import read_recipe
from enhancekit.weights import read_card, save_weights

HERE = Path(__file__).parent / "enhancekit_mfnn"
BATCHES = 12
RARE = 1e-3


def revive(network: nn.Module, calls: list[tuple[Tensor, ...]]) -> tuple[int, int]:
    """Change the dead units of all SCR in place; returns how many there were, and of how many.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode.
    calls : list of tuple of Tensor
        What it is called with to find them.
    """
    dead, units = 0, 0
    for block in [module for module in network.modules() if isinstance(module, SCR)]:
        conv, reader = block.conv1, block.conv2
        # blocks further on see the same as before, so that one after the other may be changed
        active, _, _ = _watched(network, conv, calls)
        lost = (active < RARE).nonzero()[:, 0]
        dead, units = dead + len(lost), units + len(active)
        if not len(lost):
            continue
        conv.weight.data[lost] = torch.randn_like(conv.weight[lost])
        conv.bias.data[lost] = 0
        reader.weight.data[:, conv.in_channels + lost] = 0  # behind the block's own input
        _, mean, spread = _watched(network, conv, calls)
        # as wide as a normal unit's, and positive half of the time
        width = spread[lost].clamp(min=1e-3)
        conv.weight.data[lost] /= width.view(-1, 1, 1, 1)
        conv.bias.data[lost] = -mean[lost] / width
    return dead, units


def _watched(
    network: nn.Module, conv: nn.Module, calls: list[tuple[Tensor, ...]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return how often each unit is positive, its mean and its deviation."""
    seen: list[Tensor] = []

    def look(_: nn.Module, _given: tuple[Tensor, ...], output: Tensor) -> None:
        # before the rectifier, which works in place
        seen.append(output.detach().transpose(0, 1).flatten(1).clone())

    handle = conv.register_forward_hook(look)
    with torch.inference_mode():
        for call in calls:
            network(*call)
    handle.remove()
    values = torch.cat(seen, dim=1)
    return (values > 0).float().mean(1), values.mean(1), values.std(1)


def main(name: str, weights: str, out: Path, root: str) -> None:
    """Write revived weights."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        changes = [f'data.root="{root}"', f'model.weights="{weights}"', f'run.out="{folder}/run"']
        recipe = read_recipe(str(HERE / f"recipes/{name}.toml"), [*changes, 'run.precision="fp32"'])
        trainer = Trainer(recipe, device="cpu")
    network = trainer.network.eval()
    calls = []
    for number in range(BATCHES):
        batch = trainer.data.batch(number, recipe.run.batch)
        context = network.context_for(batch) if trainer.backbone.spec.global_context else None  # type: ignore[operator]
        calls.append((batch.input,) if context is None else (batch.input, context))
    with torch.inference_mode():
        before = network(*calls[0])
    dead, units = revive(network, calls)
    with torch.inference_mode():
        change = float((network(*calls[0]) - before).abs().max())
    save_weights(out, network.state_dict(), read_card(weights))
    print(f"{dead} of {units} units were dead; the result changes by {change:.1g}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])
