"""Split the error of an MFNN on held-out pairs into the exposure and the rest.

    python plugins/mfnn/study.py mfnn DATA [WEIGHTS]

For each source: the root mean square error of the predicted brightness; the PSNR of the tone curve
alone and of the network, each with the reference's brightness given; then of the network with the
brightness it predicts, which is what users get.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import enhancekit
from enhancekit.builtin.metrics import psnr
from enhancekit.imaging.convert import open_image
from enhancekit.training.recipe import read_recipe
from enhancekit.training.sources import split_pairs

RECIPES = Path(__file__).parent / "enhancekit_mfnn/recipes"


def decibels(output: Tensor, reference: Tensor) -> float:
    """Compare pictures (1, 3, H, W) after rounding to 8 bits."""
    rounded = (output.clamp(0, 1) * 255).round() / 255
    return psnr(*(t[0].permute(1, 2, 0).numpy() for t in (rounded, reference)))


def main(name: str, root: str, weights: str | None = None) -> None:
    """Print one line for each source."""
    data = read_recipe(str(RECIPES / f"{name}.toml"), [f'data.root="{root}"']).data
    enhancer = enhancekit.load(name, weights=weights, precision="fp32")
    least, most = enhancer.entry.spec.controls["exposure"]
    exposure: Any = enhancer.module.context_block if enhancer.module else None
    for source, pairs in split_pairs(data)[1].items():
        rows = []
        for pair in pairs:
            low, high = open_image(pair.input).read(), open_image(pair.target).read()
            wanted = min(max(float(high.mean()), least), most)
            thumbnail = exposure.summarise(low)
            gain = exposure.solve(thumbnail, torch.tensor([wanted]))
            given = enhancer.run(low, exposure=wanted)
            rows.append(
                (
                    (float(exposure.predict(thumbnail)) - wanted) ** 2,
                    decibels(exposure.curve(low, gain), high),
                    decibels(given, high),
                    decibels(enhancer.run(low), high),
                )
            )
        error, curve, given, predicted = torch.tensor(rows).mean(0).tolist()
        print(
            f"{source}: {len(pairs)} pairs, brightness off by {error**0.5:.3f}; curve alone "
            f"{curve:.2f} dB, network {given:.2f} dB (brightness given), {predicted:.2f} dB"
        )


if __name__ == "__main__":
    with torch.inference_mode():
        main(*sys.argv[1:])
