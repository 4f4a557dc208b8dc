"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_demo_writes_the_pair_and_says_where(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "demo.py"), str(EXAMPLES / "dark.jpg"), str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    paths = [Path(line.removeprefix("wrote ")) for line in done.stdout.splitlines()]
    assert [p.name for p in paths] == ["before.png", "after.png", "side-by-side.png"]
    before, after, both = (np.asarray(Image.open(p)) for p in paths)
    assert before.mean() < 40
    assert 80 < after.mean() < 160
    # nothing but the two pictures side by side
    assert np.array_equal(both, np.concatenate((before, after), axis=1))


def test_gallery_makes_the_pictures_of_the_readme(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "gallery.py"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    for name, size in (
        ("before-after", (1200, 400)),
        ("denoise", (1200, 400)),
        ("sr-x2", (600, 200)),
    ):
        made, shipped = (Image.open(p / f"{name}.jpg") for p in (tmp_path, EXAMPLES))
        assert made.size == shipped.size == size
        # JPEG and the precision that a machine has move single values a little
        difference = np.asarray(made).astype(float) - np.asarray(shipped)
        assert np.abs(difference).mean() < 2
