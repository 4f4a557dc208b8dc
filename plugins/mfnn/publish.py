"""Measure a run's weights on what was held out and write them, with their card, into the plugin.

    python plugins/mfnn/publish.py mfnn runs/mfnn/best.safetensors DATA [EXPOSURE ...]

DATA holds the folders that the recipe names. EXPOSURE are other runs' weights, of which the members
of the exposure are taken, the first of each, then the second of each, until there are enough: they
are learnt on their own, and sooner than the rest. The weights are stored in 16 bits, and everything
on the card is measured with the stored file. The SHA-256 that is printed goes into ``variants.py``.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from enhancekit_mfnn.context import Exposure

import enhancekit
from enhancekit.training.evaluation import Evaluation, Sample, chosen_pairs, read_sample
from enhancekit.training.protocols import PROTOCOLS
from enhancekit.training.recipe import Recipe, read_recipe
from enhancekit.training.sources import split_for_card
from enhancekit.weights import read_card, save_weights

HERE = Path(__file__).parent / "enhancekit_mfnn"
NON_COMMERCIAL = (
    "Weights: CC BY-NC 4.0, because SICE is for academic, non-commercial use; "
    "LOL v1 (Wei et al., BMVC 2018) was published for research and BSDS500 for research and "
    "education. Code: Apache-2.0."
)
TERMS = {
    "mfnn-lol": "Weights: for research, as LOL v1 (Wei et al., BMVC 2018), on which alone they "
    "were trained. Code: Apache-2.0.",
    "low-light": NON_COMMERCIAL,
    "denoise": "Weights: for research and education, as the photographs of BSDS500 they were "
    "trained on. Code: Apache-2.0.",
    "super-resolution": NON_COMMERCIAL,
}
LIMITS = {
    "mfnn-lol": "For comparison with what others train on LOL: it knows that camera and its rooms "
    "alone, and ordinary dark photographs come out worse than with `mfnn`. How bright its "
    "references are can't be told from near-equal inputs, so much of the error is exposure. "
    "Some held-out scenes show a view that a training scene shows too.",
    "low-light": "How bright a picture should be is a matter of taste: near-equal dark inputs in "
    "LOL have references of very different brightness, so a good part of the error in dB is "
    "exposure; use strength= or exposure= where the choice displeases. Blown lamps stay blown, "
    "strongly coloured ones turn a little paler, and black areas without signal turn into smooth "
    "guesses. Trained on 8-bit sRGB, not for RAW; faces were rare. Some held-out scenes show a "
    "view that a training scene shows too (`enhancekit data check`), which flatters the figures "
    "a little.",
    "denoise": "Trained on 180 photographs of 481x321 pixels, so fine regular textures "
    "may be smoothed. Noise is found blindly; sigma= may say how strong it is (its standard "
    "deviation in 255ths, 0 to 50), but the network hardly heeds it (less than half a 255th in the "
    "mean), so where too much detail goes, use strength=. Camera "
    "noise is a model (shot and read noise, slightly blurred), not a certain camera's; blotches "
    "wider than a few pixels and JPEG blocks stay. Does not brighten.",
    "super-resolution": "Inputs in training were halved by an antialiased bicubic kernel without "
    "noise: a picture that is blurred, noisy or strongly compressed is enlarged with its faults. "
    "It sharpens what is there and invents nothing, so faces and writing stay as unreadable as "
    "they were.",
}


@dataclass(frozen=True)
class Measurement:
    """One set of pairs, one protocol."""

    folder: str
    make: str = ""
    scene: str = ""
    protocol: str = "rgb"
    held_out: float | None = None

    def samples(self, root: Path) -> list[Sample]:
        """Read the pairs, or make them."""
        pairs = chosen_pairs(
            root / self.folder, scene=self.scene, held_out=self.held_out, made=bool(self.make)
        )
        return [read_sample(pair, self.make) for pair in pairs]

    def command(self, name: str) -> str:
        """Say how to repeat it."""
        words = ["enhancekit", "evaluate", name, "--precision", "fp32", "--data"]
        words += [f"DATA/{self.folder}"]
        words += ["--make", self.make] if self.make else ["--gt-mean"]
        words += ["--protocol", self.protocol] if self.protocol != "rgb" else []
        words += ["--split", "held-out"] if self.held_out is not None else []
        words += ["--scene", self.scene] if self.scene else []
        return shlex.join(words)


def measurements(recipe: Recipe, task: str, root: Path) -> list[Measurement]:
    """Choose what to measure: what the recipe holds out, and standard sets that are there."""
    share = recipe.data.held_out
    if task == "low-light":
        folders = [(str(Path(s.input).parent), s.scene) for s in recipe.data.sources]
        return [Measurement(f, scene=s, held_out=share) for f, s in folders]
    clean = recipe.data.clean[0].folder
    if task == "denoise":
        kinds = ("gaussian:15", "gaussian:25", "gaussian:50", "camera")
        return [Measurement(clean, make=kind, held_out=share) for kind in kinds]
    double = Measurement(clean, make="bicubic-x2", protocol="y-border2", held_out=share)
    set5 = replace(double, folder="set5", held_out=None)
    return [double, *([set5] if (root / set5.folder).is_dir() else [])]


def figures(path: Path, name: str, chosen: Sequence[Measurement], root: Path) -> dict[str, Any]:
    """Measure PSNR and SSIM in 32 bits, and say how to repeat it."""
    enhancer = enhancekit.load(name, weights=path, precision="fp32")
    found: dict[str, Any] = {}
    for one in chosen:
        protocol = PROTOCOLS[one.protocol]
        evaluation = Evaluation(enhancer, protocol, reference_mean=not one.make)
        for sample in one.samples(root):
            evaluation.add(sample)
        figures_of = evaluation.summaries()
        title = f"{one.folder} {one.make}".strip()
        found[title] = {
            **{key: round(summary.mean, 4) for key, summary in figures_of.items()},
            "psnr, 95% by scene": [round(v, 2) for v in figures_of["psnr"].interval],
            "pairs": len(evaluation.rows),
            "protocol": protocol.text,
            "command": one.command(name),
        }
        print(title, found[title], flush=True)
    return found


def parity(path: Path, name: str, chosen: Sequence[Measurement], root: Path) -> dict[str, float]:
    """Measure the least PSNR of bfloat16 against 32 bits over some held-out inputs."""
    full, half = (
        enhancekit.load(name, weights=path, precision=p, device="cpu") for p in ("fp32", "bf16")
    )
    least = float("inf")
    for sample in [s for one in chosen for s in one.samples(root)[::4]]:
        scale = 255 if sample.input.dtype == np.uint8 else 1
        x = torch.from_numpy(sample.input).permute(2, 0, 1)[None].float() / scale
        error = torch.mean((full.run(x) - half.run(x)) ** 2)
        least = min(least, float(-10 * torch.log10(error)))
    return {"bf16": round(least, 1)}


def joined(exposures: Sequence[Path], count: int) -> dict[str, torch.Tensor]:
    """Return the parameters of an exposure with `count` members, from several runs in turn."""
    runs = [safetensors.torch.load_file(path) for path in exposures]
    members = [
        {k.removeprefix(prefix): v for k, v in run.items() if k.startswith(prefix)}
        for number in range(count)
        for prefix in [f"context_block.members.{number}."]
        for run in runs
    ]
    members = [member for member in members if member][:count]
    if len(members) < count:
        raise SystemExit(f"{len(members)} members of an exposure were given, {count} are needed")
    return {
        f"context_block.members.{number}.{key}": value
        for number, member in enumerate(members)
        for key, value in member.items()
    }


def main(name: str, run: Path, root: Path, *exposures: Path) -> None:
    """Publish the weights of one variant."""
    recipe = read_recipe(str(HERE / f"recipes/{name}.toml"))
    task = enhancekit.enhancers.get(name).spec.task
    chosen = measurements(recipe, task, root)
    state = safetensors.torch.load_file(run)
    if exposures:
        count = len(Exposure().members)
        state = {k: v for k, v in state.items() if not k.startswith("context_block.")}
        state |= joined(exposures, count)
    state = {k: v.half() for k, v in state.items()}
    terms, limits = (of.get(name, of[task]) for of in (TERMS, LIMITS))
    card = replace(read_card(run), name=name, license=terms, limits=limits, figures={})
    card = replace(card, split=split_for_card(recipe.data))
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.safetensors"
        save_weights(draft, state, card)
        card = replace(
            card,
            figures=figures(draft, name, chosen, root),
            parity_db=parity(draft, name, chosen, root),
        )
    print(card.parity_db)
    target = HERE / f"weights/{name}.safetensors"
    save_weights(target, state, card)
    print(f"{target}\nsha256 {hashlib.sha256(target.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
