"""What a training step costs: the report's reduced model done literally, against ours.

Each way runs in a process of its own, so that peak memory is its own. ``training_cost.py``
takes other sizes: ``training_cost.py paper-ours 400 600 4 1``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("training_cost.py")


@pytest.mark.benchmark(group="training step, 192x288, batch 2")
@pytest.mark.parametrize("way", ["report-literal", "report-ours", "paper-ours"])
def test_training_step(benchmark, way: str) -> None:
    def run() -> dict[str, float]:
        command = [sys.executable, str(SCRIPT), way, "192", "288", "2", "2"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    cost = benchmark.pedantic(run, rounds=1)
    benchmark.extra_info |= cost
    assert cost["peak_mib"] > 0
