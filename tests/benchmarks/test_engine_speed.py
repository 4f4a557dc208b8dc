"""Speed of each engine on one 600x400 picture; run by ``make benchmark``.

On a busy machine compare processor time on one thread instead of time by the clock:
``OMP_NUM_THREADS=1 pytest tests/benchmarks/test_engine_speed.py --benchmark-only
--benchmark-timer=time.process_time``.
"""

from __future__ import annotations

import pytest
import torch

import enhancekit
from enhancekit.inference.engines import ENGINES

PICTURE = torch.rand(1, 3, 400, 600, generator=torch.Generator().manual_seed(0)) / 4


@pytest.mark.benchmark(group="engines, mfnn-lite, 400x600")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("engine", ["torch", *ENGINES])
def test_engine(benchmark, engine: str, precision: str) -> None:
    if engine != "torch":
        for package in (engine, "onnx", "onnxscript"):
            pytest.importorskip(package)
        if precision not in ENGINES[engine].precisions():
            pytest.skip(f"{engine} computes no {precision} here")
    exact = enhancekit.load("mfnn-lite", device="cpu", precision="fp32").run(PICTURE)
    enhancer = enhancekit.load("mfnn-lite", device="cpu", precision=precision, engine=engine)
    done = benchmark.pedantic(enhancer.run, (PICTURE,), rounds=5, warmup_rounds=1)
    off = float((done - exact).square().mean())
    benchmark.extra_info["parity_db"] = round(-10 * float(torch.tensor(off + 1e-20).log10()), 1)
    assert off < (1e-10 if precision == "fp32" else 1e-5)
