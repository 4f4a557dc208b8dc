"""Measure BM3D beside `mfnn-denoise`: its papers' figures tell where ours would stand in them.

    pip install bm3d
    python plugins/mfnn/beside_bm3d.py DATA [EVERY]

DATA/clean holds the photographs; of those held out every third is taken, or as EVERY says, since
BM3D takes half a minute for each. The package is free for non-commercial use only, so nothing here
depends on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import enhancekit
from enhancekit.builtin.metrics import psnr
from enhancekit.training.evaluation import chosen_pairs, read_sample


def main(root: str, every: int = 3) -> None:
    """Print one line for each strength of noise: PSNR in RGB, 8 bits."""
    import bm3d  # whoever only collects the tests need not have it

    pairs = chosen_pairs(Path(root) / "clean", held_out=0.1, made=True)[::every]
    ours = enhancekit.load("mfnn-denoise", precision="fp32")
    for sigma in (15, 25, 50):
        rows = []
        for pair in pairs:
            sample = read_sample(pair, f"gaussian:{sigma}")
            done = (ours.enhance(sample.input), bm3d.bm3d_rgb(sample.input, sigma / 255))
            rounded = [np.rint(np.clip(picture, 0, 1) * 255) / 255 for picture in done]
            rows.append([psnr(picture, sample.reference / 255) for picture in rounded])
        mean = np.mean(rows, axis=0)
        print(f"sigma {sigma}, {len(rows)} pictures: {mean[0]:.2f} dB, BM3D {mean[1]:.2f} dB")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
