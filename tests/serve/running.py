"""A server in a process of its own, and pictures to send to it."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    address: str
    process: subprocess.Popen

    @property
    def port(self):
        return int(self.address.rpartition(":")[2])


MAIN = """
import enhancekit.serve.server as server
server.HEAD_SECONDS = 1  # else a test would take ten
from enhancekit.cli import main
main()
"""


@contextlib.contextmanager
def serving(*arguments, **environment):
    """Run ``enhancekit serve`` on a free port until the block ends."""
    command = [
        sys.executable,
        "-c",
        MAIN,
        *("serve", "--port", "0", *map(str, arguments)),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    try:
        assert select.select([process.stdout], [], [], 60)[0], "it did not start"
        said = process.stdout.readline()
        assert said.startswith("enhancekit serves on http://"), process.stderr.read()
        yield Running(said.split()[-1], process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
        process.stderr.close()


def encoded(pixels, kind="PNG", **options):
    """Return the bytes of a picture file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data):
    """Return a loaded picture."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def photo(height=32, width=32, seed=0, top=90):
    """Return a small dark picture."""
    return np.random.default_rng(seed).integers(0, top, (height, width, 3), np.uint8)
