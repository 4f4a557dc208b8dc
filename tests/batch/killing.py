"""Run by the tests: kill a folder's run at random moments, go on, and print what was seen.

A process of its own that imports everything once and forks a child for every run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from enhancekit.batch import enhance_folder, work

JOBS = 3
EVERYTHING_ELSE = {"manifest.jsonl", ".enhancekit"}


def child(source: Path, out: Path, log: int) -> int:
    """Start a run that notes every picture it makes in `log`."""
    number = os.fork()
    if number == 0:
        write = work.write

        def noting(picture, staged, *args, **kwargs):
            os.write(log, f"{staged.parent.parent.name}\n".encode())
            write(picture, staged, *args, **kwargs)

        work.write = noting
        list(enhance_folder(source, out, "gamma", jobs=JOBS))
        os._exit(0)
    return number


def visible(out: Path) -> dict[str, bytes]:
    """Return every file that is not the run's own, whatever its name."""
    return {p.name: p.read_bytes() for p in out.iterdir() if p.name not in EVERYTHING_ELSE}


def main(home: Path, kills: int, seed: int) -> None:
    """Compare a run that is killed and goes on with an undisturbed one."""
    source, plain, out = home / "in", home / "plain", home / "out"
    log = os.open(home / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.waitpid(child(source, plain, log), 0)
    whole = visible(plain)
    chance = random.Random(seed)  # noqa: S311
    partial = []
    unfinished = 0
    for _ in range(kills):
        number = child(source, out, log)
        before = len(list(out.glob("*.png"))) if out.exists() else 0
        more = chance.randint(1, 4)
        while not out.exists() or len(list(out.glob("*.png"))) < before + more:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.004))  # well within a picture, and far from the last
        os.kill(number, signal.SIGKILL)
        unfinished += os.WIFSIGNALED(os.waitpid(number, 0)[1])
        partial += [name for name, data in visible(out).items() if data != whole[name]]
    at_last = os.waitstatus_to_exitcode(os.waitpid(child(source, out, log), 0)[1])
    made = Counter((home / "log").read_text().split())
    print(  # noqa: T201
        json.dumps(
            {
                "killed": unfinished,
                "partial": partial,
                "exit": at_last,
                "equal": visible(out) == whole,
                "count": len(whole),
                "more than once": made["out"] - made["plain"],
                "left over": [p.name for p in out.iterdir() if p.name == ".enhancekit"],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
