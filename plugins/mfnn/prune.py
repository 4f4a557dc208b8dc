"""Write the weights of a narrower MFNN that begin as the most telling channels of a trained one's.

    python plugins/mfnn/prune.py mfnn-lite WEIGHTS OUT DATA 'width=24' 'decoder_width=24'

The narrower network is the named variant with the options given. Of all channels that must go
together (what an encoder gives is read and added to by every residual block of its scale and of
the coarser ones) those are kept whose removal would change the picture most, to first order, on
training crops (as Molchanov et al., CVPR 2019, with the result instead of the loss). Residual
blocks that are new add nothing at first. A run with ``model.weights=OUT`` and the same
``model.options`` goes on from there. DATA holds the folders that the recipe names.
"""

from __future__ import annotations

import sys
import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from enhancekit_mfnn.network import MFNN
from torch import Tensor
from torch.func import functional_call

import enhancekit
from enhancekit.inference.network import build_network, resolve_config, weights_config
from enhancekit.training.loop import Trainer
from enhancekit.training.recipe import read_recipe
from enhancekit.weights import read_card, save_weights

HERE = Path(__file__).parent / "enhancekit_mfnn"
BATCHES = 12
DIRECTIONS = 4

Channels = dict[str, tuple[list[str], list[str]]]
"""For each convolution the groups of channels it reads and those it gives, in order."""


def channels(network: MFNN) -> Channels:
    """Name the groups of channels between an MFNN's convolutions; "" for those that stay."""
    found: Channels = {}
    stream: list[str] = []
    for k, trunk in enumerate(network.trunks):
        stream = [f"encoded {k}", *stream]
        found[f"encoders.{k}.conv1"] = [""], [f"encoder {k}"]
        found[f"encoders.{k}.conv2"] = [f"encoder {k}"], [f"encoded {k}"]
        for i in range(len(trunk.blocks)):  # type: ignore[arg-type]
            units = f"units {k} {i}"
            found[f"trunks.{k}.blocks.{i}.conv1"] = stream, [units]
            found[f"trunks.{k}.blocks.{i}.conv2"] = [*stream, units], stream
        found[f"trunks.{k}.project"] = stream, [f"trunk {k}"]
    for k in range(len(network.decoders)):
        coarser = f"decoded {k + 1}" if k + 1 < len(network.decoders) else f"trunk {k + 1}"
        given = [f"trunk {k}"] if network.scales == 1 else [f"trunk {k}", coarser]
        found[f"decoders.{k}.conv"] = given, [f"decoded {k}"]
    given = ["decoded 0", "encoded 0"]
    found["head.conv1"] = given, ["head 1"]
    found["head.conv2"] = ["head 1"], ["head 2"]
    found["head.conv3"] = ["head 2", *given], ["head 3"]
    found["head.conv4"] = ["head 3"], ["head 4"]
    found["head.final"] = ["head 4"], [""]
    return found


def sizes(network: MFNN, between: Channels) -> dict[str, int]:
    """Count the channels of each group."""
    counts: dict[str, int] = {}
    for name, (_, given) in between.items():
        if len(given) == 1:
            counts[given[0]] = network.get_submodule(name).out_channels  # type: ignore[assignment]
    return counts


def importance(
    network: MFNN, between: Channels, calls: list[tuple[Tensor, ...]]
) -> dict[str, Tensor]:
    """Tell for each channel of each group how much its loss would change the result.

    The squared norm of the result's derivative by a factor on the channel, estimated by random
    directions.
    """
    gates = {
        group: torch.ones(size, requires_grad=True)
        for group, size in sizes(network, between).items()
        if group
    }
    total = {group: torch.zeros_like(gate) for group, gate in gates.items()}
    parameters = dict(network.named_parameters())
    for call in calls:
        scaled = {}
        for name, (_, given) in between.items():
            if given != [""]:
                gate = torch.cat([gates[group] for group in given])
                scaled[f"{name}.weight"] = parameters[f"{name}.weight"] * gate.view(-1, 1, 1, 1)
                scaled[f"{name}.bias"] = parameters[f"{name}.bias"] * gate
        result = functional_call(network, scaled, call)
        for _ in range(DIRECTIONS):
            found = torch.autograd.grad(
                (result * torch.randn_like(result)).sum(), list(gates.values()), retain_graph=True
            )
            for group, slope in zip(gates, found, strict=True):
                total[group] += slope**2
    return total


def pruned(wide: MFNN, narrow: MFNN, matters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the narrower network's state: the channels of the wider one that matter most."""
    had, wanted = channels(wide), channels(narrow)
    counts = sizes(narrow, wanted)
    kept, starts = {}, sizes(wide, had)
    for group, score in matters.items():
        if counts.get(group, 0) > len(score) or group not in counts:
            raise SystemExit(f"{group}: {len(score)} channels can't become {counts.get(group)}")
        kept[group] = score.topk(counts[group]).indices.sort().values

    def places(groups: list[str]) -> Tensor:
        found, start = [], 0
        for group in groups:
            found.append(kept[group] + start)
            start += starts[group]
        return torch.cat(found)

    old, state = wide.state_dict(), {}
    for name, ours in narrow.state_dict().items():
        conv, _, kind = name.rpartition(".")
        if conv not in wanted:  # what decides for the whole picture
            state[name] = old[name]
        elif conv not in had:
            state[name] = torch.zeros_like(ours) if conv.endswith("conv2") else ours
        else:
            tensor, (read, given) = old[name], had[conv]
            if given != [""]:
                tensor = tensor[places(given)]
            if kind == "weight" and read != [""]:
                tensor = tensor[:, places(read)]
            state[name] = tensor.clone()
    return state


def main(name: str, weights: Path, out: Path, root: str, changes: list[str]) -> None:
    """Write `out`."""
    options: dict[str, Any] = tomllib.loads("\n".join(changes))
    entry = enhancekit.enhancers.get(name)
    torch.manual_seed(0)
    narrow: Any = build_network(entry, options, pretrained=False)[0]
    backbone, config = resolve_config(entry, options)
    card = read_card(weights)
    wide: Any = backbone.create(**card.config)
    wide.load_state_dict(safetensors.torch.load_file(weights))
    with tempfile.TemporaryDirectory() as folder:
        given = [f'data.root="{root}"', f'run.out="{folder}/run"', 'run.precision="fp32"']
        recipe = read_recipe(str(HERE / f"recipes/{name}.toml"), given)
        data = Trainer(recipe, device="cpu").data
    calls = []
    for number in range(BATCHES):
        batch = data.batch(number, recipe.run.batch)
        context = wide.context_for(batch)
        calls.append((batch.input,) if context is None else (batch.input, context))
    state = pruned(wide.eval(), narrow.eval(), importance(wide, channels(wide), calls))
    narrow.load_state_dict(state)
    with torch.inference_mode():
        apart = float((narrow(*calls[0]) - wide(*calls[0])).abs().mean())
    used = weights_config(backbone, config)
    save_weights(out, state, replace(card, name=name, config=used, figures={}, parity_db={}))
    print(f"results differ by {apart:.3f} in the mean before training goes on")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5:])
