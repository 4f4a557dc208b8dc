"""One server for all tests that need one in a process of its own."""

from __future__ import annotations

import pytest
from running import serving


@pytest.fixture(scope="session")
def server():
    """A server with cheap enhancers, small limits and short time-outs."""
    arguments = ("--max-bytes", 300_000, "--max-pixels", 250_000, "--upload-timeout", 1.5)
    names = [part for n in ("gamma", "identity", "spline-x2") for part in ("-e", n)]
    with serving(*names, *arguments) as running:
        yield running
