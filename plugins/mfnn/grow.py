"""Write the weights of a larger MFNN that computes what a trained smaller one does.

    python plugins/mfnn/grow.py mfnn-sr-x2 WEIGHTS OUT 'counts=[10, 4, 4]'

The larger network is the named variant with the options given. Residual blocks that are new add
nothing at first, units and inputs that are new count for nothing, and a part that is new altogether
(the exposure) starts untrained. New scales, and blocks that share weights or are not residual,
can't be added. A run with ``model.weights=OUT`` and the same ``model.options`` goes on from there
instead of from random weights (Net2Net, Chen et al., ICLR 2016).
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import enhancekit
from enhancekit.inference.network import build_network, resolve_config, weights_config
from enhancekit.weights import read_card, save_weights


def grown(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Put trained weights into a larger network's, which must not need fewer of anything."""
    result = {}
    for name, ours in network.state_dict().items():
        trained = state.get(name)
        if trained is None:
            # a block whose last convolution gives 0 adds nothing to its input
            new_block = name.startswith("trunks.") and ".conv2." in name
            result[name] = torch.zeros_like(ours) if new_block else ours
        elif trained.shape == ours.shape:
            result[name] = trained
        else:
            result[name] = _more_inputs(name, _more_units(name, trained, ours), ours)
    if lost := sorted(set(state) - set(result)):
        raise SystemExit(f"the larger network has no {', '.join(lost)}")
    return result


def _more_units(name: str, trained: Tensor, ours: Tensor) -> Tensor:
    """Add the units an expanded SCR has behind its rectifier, as random as they are in `ours`."""
    if ".conv1." in name and name.startswith("trunks."):
        return torch.cat((trained, ours[len(trained) :]))
    return trained


def _more_inputs(name: str, trained: Tensor, ours: Tensor) -> Tensor:
    """Add inputs with weights of zero; nothing else may differ."""
    if trained.shape != ours.shape:
        more = ours.shape[1] - trained.shape[1] if ours.ndim == trained.ndim == 4 else -1
        if more < 0 or trained.shape[:1] + trained.shape[2:] != ours.shape[:1] + ours.shape[2:]:
            raise SystemExit(f"{name}: {tuple(trained.shape)} can't become {tuple(ours.shape)}")
        return F.pad(trained, (0, 0, 0, 0, 0, more))
    return trained


def refuse_difference(smaller: nn.Module, larger: nn.Module) -> None:
    """Stop if two networks don't compute the same, unless the larger sees an exposed picture."""
    x = torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        context = larger.context(x)  # type: ignore[operator]
        if context is None or not context.any():
            off = float((larger(x) - smaller(x)).abs().max())
            if off > 1e-5:
                raise SystemExit(f"the larger network is {off:.1e} off; only blocks may be added")


def main(name: str, weights: Path, out: Path, changes: list[str]) -> None:
    """Write `out`."""
    options: dict[str, Any] = tomllib.loads("\n".join(changes))
    entry = enhancekit.enhancers.get(name)
    torch.manual_seed(0)
    network, _ = build_network(entry, options, pretrained=False)
    backbone, config = resolve_config(entry, options)
    old = read_card(weights)
    card = replace(
        old,
        name=name,
        task=entry.spec.task,
        config=weights_config(backbone, config),
        figures={},
        parity_db={},
    )
    trained = safetensors.torch.load_file(weights)
    state = grown(trained, network)
    network.load_state_dict(state)
    smaller = backbone.create(**old.config)
    smaller.load_state_dict(trained)
    # a formula behind both, without parameters; only what was trained is compared
    smaller.back_projection = network.back_projection
    refuse_difference(smaller.eval(), network.eval())
    save_weights(out, state, card)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
