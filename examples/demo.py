"""Enhance a dark picture and write before, after, and both side by side.

python examples/demo.py [PICTURE] [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

import enhancekit

if __name__ == "__main__":
    arguments = sys.argv[1:]
    source = Path(arguments[0]) if arguments else Path(__file__).with_name("dark.jpg")
    folder = Path(arguments[1]) if arguments[1:] else Path("out")
    folder.mkdir(parents=True, exist_ok=True)

    enhancer = enhancekit.load("mfnn")
    after = enhancer.enhance(source)
    before = enhancekit.load("identity").enhance(source)

    both = Image.new("RGB", (before.width * 2, before.height))
    both.paste(before, (0, 0))
    both.paste(after, (before.width, 0))
    for name, picture in (("before", before), ("after", after), ("side-by-side", both)):
        path = folder / f"{name}.png"
        picture.save(path)
        print(f"wrote {path.resolve()}")
