"""Measure a run's weights on the held-out scenes and write them, with their card, into the plugin.

    python plugins/mfnn/publish.py mfnn runs/mfnn/best.safetensors DATA

DATA holds the folders that the recipe names. The weights are stored in 16 bits, and everything on
the card is measured with the stored file. The SHA-256 that is printed goes into ``variants.py``.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import enhancekit
from enhancekit.imaging.convert import open_image
from enhancekit.training.evaluation import Evaluation
from enhancekit.training.loop import split_pairs
from enhancekit.training.protocols import PROTOCOLS
from enhancekit.training.recipe import Data, read_recipe
from enhancekit.weights import read_card, save_weights

HERE = Path(__file__).parent / "enhancekit_mfnn"
TERMS = (
    "Weights: CC BY-NC 4.0, because SICE is for academic, non-commercial use; "
    "LOL v1 (Wei et al., BMVC 2018) was published for research. Code: Apache-2.0."
)
LIMITS = (
    "How bright a picture should be is a matter of taste: near-equal dark inputs in LOL have "
    "references of very different brightness, so a good part of the error in dB is exposure; use "
    "strength= or exposure= where the choice displeases. Blown lamps stay blown, strongly "
    "coloured lamps may shift in hue, and black areas without signal turn into smooth guesses. "
    "Trained on 8-bit sRGB, not for RAW; faces were rare. Some held-out scenes show a view that a "
    "training scene shows too (`enhancekit data check`), which flatters the figures a little."
)


def figures(path: Path, name: str, data: Data) -> dict[str, Any]:
    """Measure PSNR and SSIM on every held-out pair, in 32 bits, and say how to repeat it."""
    enhancer = enhancekit.load(name, weights=path, precision="fp32")
    found: dict[str, Any] = {"protocol": PROTOCOLS["rgb"].text}
    _, held_out = split_pairs(data)
    for source in data.sources:
        evaluation = Evaluation(enhancer, PROTOCOLS["rgb"], reference_mean=True)
        for pair in held_out[source.input]:
            evaluation.add(pair)
        figures_of = evaluation.summaries()
        scene = f" --scene '{source.scene}'" if source.scene else ""
        folder = Path(source.input).parent.name
        found[folder] = {
            **{key: round(summary.mean, 4) for key, summary in figures_of.items()},
            "psnr, 95% by scene": [round(v, 2) for v in figures_of["psnr"].interval],
            "pairs": len(evaluation.rows),
            "command": f"enhancekit evaluate {name} --data DATA/{folder} --split held-out "
            f"--precision fp32 --gt-mean{scene}",
        }
        print(folder, found[folder])
    return found


def parity(path: Path, name: str, data: Data) -> dict[str, float]:
    """Measure the least PSNR of bfloat16 against 32 bits over some held-out inputs."""
    full, half = (
        enhancekit.load(name, weights=path, precision=p, device="cpu") for p in ("fp32", "bf16")
    )
    least = float("inf")
    for pairs in split_pairs(data)[1].values():
        for pair in pairs[::4]:
            x = open_image(pair.input).tensor
            error = torch.mean((full.run(x) - half.run(x)) ** 2)
            least = min(least, float(-10 * torch.log10(error)))
    return {"bf16": round(least, 1)}


def main(name: str, run: Path, root: str) -> None:
    """Publish the weights of one variant."""
    data = read_recipe(str(HERE / f"recipes/{name}.toml"), [f'data.root="{root}"']).data
    state = {k: v.half() for k, v in safetensors.torch.load_file(run).items()}
    card = replace(read_card(run), license=TERMS, limits=LIMITS, figures={})
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.safetensors"
        save_weights(draft, state, card)
        card = replace(
            card, figures=figures(draft, name, data), parity_db=parity(draft, name, data)
        )
    print(card.parity_db)
    target = HERE / f"weights/{name}.safetensors"
    save_weights(target, state, card)
    print(f"{target}\nsha256 {hashlib.sha256(target.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
