"""`enhance` beside the plain network, with pictures of all sizes, and in fast mode.

Run by ``make benchmark``, or in part on a quiet machine:

    pytest tests/benchmarks/test_inference_speed.py --benchmark-only -k plain

The largest sizes take minutes and, for the plain network, 12 GB of memory.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import enhancekit
from enhancekit.inference import fast
from enhancekit.inference.engines import ENGINES
from enhancekit.testing.benchmarks import Measure, jpeg_round_trip

NETWORKS = ("mfnn", "mfnn-lite")
PHOTOS = Path("../shared/data/dark-photos")


def measure(benchmark, name: str, size: str, rounds: int) -> Measure:
    made = Measure(benchmark, size, rounds)
    benchmark.group = f"{name}, {size}"
    return made


@pytest.mark.parametrize("size", ["400x600", "12MP"])
@pytest.mark.parametrize("name", NETWORKS)
def test_plain(benchmark, monkeypatch, name: str, size: str) -> None:
    """The network as trained: fp32, contiguous, layer by layer, the whole picture at once."""
    folding = pytest.importorskip("enhancekit_mfnn.folding")
    monkeypatch.setattr(folding, "PAYS", float("inf"))
    module = enhancekit.load(name, device="cpu", precision="fp32").module
    module.to(memory_format=torch.contiguous_format)
    timed = measure(benchmark, name, size, 5 if size == "400x600" else 1)
    x = timed.tensor
    with torch.inference_mode():
        done = timed(lambda: module(x, module.context(x)))
    assert done.shape == x.shape


@pytest.mark.parametrize("size", ["400x600", "12MP"])
@pytest.mark.parametrize("engine", ["torch", *ENGINES])
@pytest.mark.parametrize("name", NETWORKS)
def test_enhance(benchmark, name: str, engine: str, size: str) -> None:
    """The whole pipeline on a PIL image, in the precision it chooses."""
    for package in () if engine == "torch" else (engine, "onnx", "onnxscript"):
        pytest.importorskip(package)
    enhancer = enhancekit.load(name, device="cpu", engine=engine)
    timed = measure(benchmark, name, size, 5 if size == "400x600" else 2)
    picture = timed.picture
    assert timed(lambda: enhancer.enhance(picture)).size == picture.size


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_ffdnet_shape(benchmark, layout: torch.memory_format) -> None:
    """A network of FFDNet's shape (Zhang et al., TIP 2018, colour), beside `test_denoise`."""
    widths = [15, *[96] * 11, 12]
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
    network = nn.Sequential(*[part for conv in layers for part in (conv, nn.ReLU())][:-1])
    network.to(memory_format=layout)
    timed = measure(benchmark, "denoising", "400x600", 5)

    def denoise() -> torch.Tensor:
        packed = F.pixel_unshuffle(timed.tensor, 2)
        level = packed.new_full((1, 3, *packed.shape[2:]), 0.1)
        given = torch.cat((packed, level), dim=1).contiguous(memory_format=layout)
        return F.pixel_shuffle(network(given), 2)

    with torch.inference_mode():
        assert timed(denoise).shape == timed.tensor.shape


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("name", ["mfnn-denoise", "mfnn-denoise-lite"])
def test_denoise(benchmark, name: str, precision: str) -> None:
    """The pipeline with a denoiser, in fp32 and in the precision it chooses."""
    enhancer = enhancekit.load(name, device="cpu", precision=precision)
    timed = measure(benchmark, "denoising", "400x600", 5)
    picture = timed.picture
    assert timed(lambda: enhancer.enhance(picture)).size == picture.size


@pytest.fixture(scope="module")
def seconds() -> dict[tuple[str, float], float]:
    """Least seconds by enhancer and megapixels."""
    return {}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", ["0.1MP", "1MP", "12MP", "100MP"])
def test_growth(benchmark, seconds, name: str, size: str) -> None:
    """Time by size, the exponent fitted to it so far, and memory beside picture and result."""
    enhancer = enhancekit.load(name, device="cpu")
    timed = measure(benchmark, name, size, {"0.1MP": 9, "1MP": 5, "12MP": 2, "100MP": 1}[size])
    picture = np.asarray(timed.picture)
    result = timed(lambda: enhancer.enhance(picture))
    info = benchmark.extra_info
    info["peak_mib_beside_the_result"] = info["peak_mib"] - result.nbytes / 2**20
    seconds[name, picture.size / 3e6] = benchmark.stats.stats.min
    known = [(size, time) for (of, size), time in seconds.items() if of == name]
    if len(known) > 1:
        info["exponent"] = np.polyfit(*np.log(known).T, 1)[0]
        print(f"{name} up to {size}: {known}, exponent {info['exponent']:.3f}")
    assert result.shape == picture.shape


def test_jpeg(benchmark) -> None:
    """Decoding and encoding the picture of 12 megapixels."""
    jpeg_round_trip(measure(benchmark, "jpeg", "12MP", 5))


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("name", NETWORKS)
def test_fast(benchmark, name: str, mode: str) -> None:
    """Fast mode at 12 megapixels, beside `test_jpeg`."""
    enhancer = enhancekit.load(name, device="cpu")
    timed = measure(benchmark, name, "12MP", 7 if mode == "fast" else 1)
    picture = timed.picture
    assert timed(lambda: enhancer.enhance(picture, mode=mode)).size == picture.size


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs here")
@pytest.mark.parametrize("factor", [1, 2, 4, 6])
@pytest.mark.parametrize("name", NETWORKS)
def test_fast_quality(benchmark, monkeypatch, name: str, factor: int) -> None:
    """PSNR of fast mode against the exact, each photo enhanced at 1/factor of its side.

    At 1 the mode decides itself, which for photos as small as these means exactly.
    """
    enhancer = enhancekit.load(name, device="cpu")
    found = {}
    benchmark.pedantic(lambda: None)
    benchmark.group = f"fidelity of fast mode, {name}"
    for path in sorted(PHOTOS.iterdir()):
        with Image.open(path) as opened:
            photo = np.asarray(opened.convert("RGB"))
        if factor > 1:
            monkeypatch.setattr(fast, "EXACT_PIXELS", 0)
            monkeypatch.setattr(fast, "FAST_PIXELS", photo.size / 3 / factor**2)
        exact, quick = (enhancer.enhance(photo, mode=m).astype(float) for m in ("exact", "fast"))
        error = np.mean((exact - quick) ** 2) / 255**2
        found[path.name] = round(float(-10 * np.log10(error + 1e-10)), 1)
    benchmark.extra_info |= {"psnr": found, "least": min(found.values())}
    print(f"{name} at 1/{factor}: mean {np.mean(list(found.values())):.1f}, {found}")
    assert min(found.values()) > 20
