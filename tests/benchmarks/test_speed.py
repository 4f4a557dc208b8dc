"""Speed of every registered enhancer on one 600x400 picture; run by ``make benchmark``.

The absolute times mean little on a busy machine. Compare within one run: the column of the minimum,
against the yardstick (ten 3x3 convolutions of 64 channels with ReLU on 256x256 pixels in fp32).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import enhancekit

PICTURE = np.random.default_rng(0).integers(0, 64, (400, 600, 3), dtype=np.uint8)
ROUNDS = 3


def loaded(name, precision):
    entry = enhancekit.enhancers.get(name)
    if entry.spec.target:
        return enhancekit.load(name)
    trained = entry.spec.weights is not None
    return enhancekit.load(name, pretrained=trained, precision=precision)


@pytest.mark.benchmark(group="400x600")
def test_yardstick(benchmark) -> None:
    layers = [
        m for _ in range(10) for m in (torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.ReLU())
    ]
    network, x = torch.nn.Sequential(*layers), torch.rand(1, 64, 256, 256)
    with torch.inference_mode():
        done = benchmark.pedantic(network, (x,), rounds=ROUNDS, warmup_rounds=1)
    assert done.shape == x.shape


@pytest.mark.benchmark(group="400x600")
@pytest.mark.parametrize("precision", ["auto", "fp32"])
@pytest.mark.parametrize("name", list(enhancekit.enhancers))
def test_enhance(benchmark, name: str, precision: str) -> None:
    if precision == "fp32" and enhancekit.enhancers.get(name).spec.target:
        pytest.skip("a function has one precision")
    enhancer = loaded(name, precision)
    benchmark.extra_info["precision"] = str(enhancer.precision)
    done = benchmark.pedantic(enhancer.enhance, (PICTURE,), rounds=ROUNDS, warmup_rounds=1)
    assert done.shape == PICTURE.shape
    assert done.dtype == PICTURE.dtype
