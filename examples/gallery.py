"""Rebuild the README's pictures: what came in on the left, what came out on the right.

Everything shown is our own rendering (`render_sample.py`), spoilt in a known way.

    python examples/gallery.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from render_sample import photograph, render

import enhancekit

HERE = Path(__file__).parent


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Put two pictures of one size side by side."""
    both = Image.new("RGB", (left.width + right.width, left.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def noisy(picture: Image.Image, sigma: float) -> Image.Image:
    """Add Gaussian noise, in units of 1/255, and round to 8 bits."""
    grain = np.random.default_rng(1).normal(scale=sigma, size=(picture.height, picture.width, 3))
    pixels = (np.asarray(picture) + grain).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def main(folder: Path) -> None:
    """Write the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(HERE / "dark.jpg") as opened:
        dark = opened.convert("RGB")
    draw = np.random.default_rng(0)
    clean = Image.fromarray(photograph(render(draw), 0.9, draw))
    grainy = noisy(clean, 30)
    detail = clean.crop((150, 120, 450, 320))
    small = detail.resize((detail.width // 2, detail.height // 2), Image.Resampling.BICUBIC)
    twice = enhancekit.load("mfnn-sr-x2").enhance(small)
    blocks = small.resize(twice.size, Image.Resampling.NEAREST)
    pictures = {
        "before-after": beside(dark, enhancekit.load("mfnn").enhance(dark)),
        "denoise": beside(grainy, enhancekit.load("mfnn-denoise").enhance(grainy)),
        "sr-x2": beside(blocks, twice),
    }
    for name, picture in pictures.items():
        path = folder / f"{name}.jpg"
        picture.save(path, quality=90)
        print(f"wrote {path.resolve()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else HERE)
