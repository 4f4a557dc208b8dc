"""Run by the tests: decode every file of a folder and print what it cost at its height.

A process of its own, since the height of a process's memory is known for all of it only.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

from enhancekit.errors import ImageError
from enhancekit.imaging.reading import decode, decode_frames


def status(name: str) -> float:
    """Return a line of the system's account of this process, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


def cost(path: Path, max_pixels: int) -> tuple[str, float]:
    """Return what was said, and the MB above the start."""
    Path("/proc/self/clear_refs").write_text("5")  # the height begins anew
    before = status("VmRSS")
    said = ""
    for read in (decode, decode_frames):
        try:
            read(path, max_pixels=max_pixels)
        except ImageError as error:
            said = str(error)
    return said, status("VmHWM") - before


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder, limit = Path(sys.argv[1]), int(sys.argv[2])
    for path in sorted(folder.glob("small-*")):  # so that codecs have their libraries loaded
        decode(path)
    paths = [p for p in sorted(folder.iterdir()) if not p.name.startswith("small-")]
    print(json.dumps({path.name: cost(path, limit) for path in paths}))  # noqa: T201
