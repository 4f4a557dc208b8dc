r"""The speed suite: any registered enhancer beside reference points everybody knows.

    pytest -p enhancekit.testing.options --pyargs enhancekit.testing.benchmarks \
        --enhancer clahe --enhancer acme:net --size 400x600 --size 12MP

Results are pytest-benchmark's, saved and compared with its own options (``--benchmark-save``,
``--benchmark-compare``). Absolute times mean little on a busy machine: compare the minimum within
one run, against the yardstick, ten 3x3 convolutions of 64 channels with ReLU on 256x256 in fp32.
"""

from __future__ import annotations

import contextlib
import io
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from enhancekit.inference.apply import apply_network
from enhancekit.inference.device import native_precisions, precision_name
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.layout import to_channels_last
from enhancekit.inference.loading import find_scheme, load
from enhancekit.inference.tiling import pad_to
from enhancekit.plugins import host
from enhancekit.specs import SizeRequirements
from enhancekit.testing.options import read_size

__all__: list[str] = []


class Measure:
    """pytest-benchmark with what it does not know: megapixels, memory and multiply-adds."""

    def __init__(self, benchmark: Any, size: str, rounds: int) -> None:
        self.benchmark, self.rounds = benchmark, rounds
        benchmark.group = size
        self.height, self.width = read_size(size)

    @property
    def picture(self) -> Image.Image:
        """A dark picture with structure and noise, the same every time."""
        random = np.random.default_rng(0)
        coarse = random.integers(0, 60, (9, 13, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((self.width, self.height), Image.Resampling.BICUBIC)
        noise = random.integers(0, 8, (self.height, self.width, 1), dtype=np.uint8)
        return Image.fromarray(np.asarray(smooth) // 2 + noise)

    @property
    def tensor(self) -> torch.Tensor:
        """The same as floats, shape (1, 3, H, W), contiguous."""
        pixels = torch.from_numpy(np.array(self.picture)).permute(2, 0, 1)[None]
        return pixels.contiguous().float() / 255

    def __call__(self, function: Callable[[], Any], device: str = "cpu") -> Any:
        """Time a function and note its peak memory; returns what it returned."""

        def finished() -> Any:
            done = function()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            return done

        with peak_memory(device) as peak:
            finished()
        result = self.benchmark.pedantic(finished, rounds=self.rounds)
        least = self.benchmark.stats.stats.min if self.benchmark.stats else float("nan")
        self.benchmark.extra_info |= {
            "megapixels_per_second": self.height * self.width / 1e6 / least,
            "peak_mib": peak[0] / 2**20,
        }
        return result


@pytest.fixture
def measure(benchmark: Any, size: str, request: pytest.FixtureRequest) -> Measure:
    """Give what times a function on a picture of a size."""
    return Measure(benchmark, size, request.config.getoption("--rounds"))


@contextlib.contextmanager
def peak_memory(device: str) -> Iterator[list[int]]:
    """Note how many bytes more than before were in use at most: CUDA's, or the process's."""
    found = [0]
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield found
        found[0] = torch.cuda.max_memory_allocated() - before
        return
    before, done = _resident(), threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            found[0] = max(found[0], _resident() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def _resident() -> int:
    """Return the process's resident memory in bytes; its peak where only that is known."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def loaded(name: str, precision: str = "auto") -> Enhancer:
    """Load an enhancer, untrained where it ships no weights: the time is the same."""
    if find_scheme(name):
        return load(name, precision=precision)
    spec = host().enhancers.get(name).spec
    if spec.target:
        return load(name)
    return load(name, pretrained=spec.weights is not None, precision=precision)


def _yardstick() -> tuple[nn.Module, torch.Tensor]:
    layers = [m for _ in range(10) for m in (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers), torch.rand(1, 64, 256, 256)


def test_yardstick(measure: Measure) -> None:
    """Ten 3x3 convolutions of 64 channels with ReLU, 256x256, fp32, contiguous."""
    network, x = _yardstick()
    with torch.inference_mode():
        assert measure(lambda: network(x)).shape == x.shape


def test_tuned_yardstick(measure: Measure) -> None:
    """The same channels last and, where the CPU has it, in bf16: what a network may gain here."""
    network, x = _yardstick()
    low = "bf16" in native_precisions(torch.device("cpu"))
    x = x.to(torch.bfloat16 if low else torch.float32, memory_format=torch.channels_last)
    to_channels_last(network.to(x.dtype))
    measure.benchmark.extra_info["precision"] = precision_name(x.dtype)
    with torch.inference_mode():
        assert measure(lambda: network(x)).shape == x.shape


def test_jpeg(measure: Measure) -> None:
    """Decoding and encoding the same picture as JPEG."""
    jpeg_round_trip(measure)


def jpeg_round_trip(measure: Measure) -> None:
    """Measure the decoding and encoding of the picture as JPEG, a reference that everyone knows."""
    file = io.BytesIO()
    measure.picture.save(file, "JPEG", quality=90)

    def there_and_back() -> int:
        with Image.open(io.BytesIO(file.getvalue())) as opened:
            opened.load()
            again = io.BytesIO()
            opened.save(again, "JPEG", quality=90)
        return again.tell()

    assert measure(there_and_back) > 0


def test_plain_forward(measure: Measure, network: str) -> None:
    """The bare network as anyone would run it: fp32, contiguous, whole picture."""
    enhancer = loaded(network, "fp32")
    module = enhancer.module
    assert module is not None
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    needs: SizeRequirements = module.size_requirements  # type: ignore[assignment]
    # not by way of `apply_network`, which lays every picture out channels last
    x = pad_to(measure.tensor.to(enhancer.device), needs.multiple_of, needs.minimum)
    backbone = host().backbones.get(enhancer.entry.spec.backbone)

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            context = [module.context(x)] if backbone.spec.global_context else []  # type: ignore[operator]
            return module(x, *context)  # type: ignore[no-any-return]

    _timed(measure, forward, enhancer, torch.float32)


def test_bare_forward(measure: Measure, network: str, precision: str) -> None:
    """The network as the pipeline runs it, without opening and closing a picture."""
    enhancer = loaded(network, precision)
    module, x = enhancer.module, measure.tensor.to(enhancer.device)
    assert module is not None
    backbone = host().backbones.get(enhancer.entry.spec.backbone)

    def forward() -> torch.Tensor:
        whole = backbone.spec.global_context
        return apply_network(module, x, global_context=whole, tile=None, dtype=enhancer.precision)

    _timed(measure, forward, enhancer, enhancer.precision)


def _timed(
    measure: Measure, forward: Callable[[], torch.Tensor], enhancer: Enhancer, dtype: torch.dtype
) -> None:
    with FlopCounterMode(display=False) as counter:
        forward()
    pixels = measure.picture.width * measure.picture.height
    measure.benchmark.extra_info |= {
        "precision": precision_name(dtype),
        "multiply_adds_per_pixel": counter.get_total_flops() // 2 // pixels,
    }
    done = measure(forward, enhancer.device.type)
    assert torch.isfinite(done).all()


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_enhance(measure: Measure, name: str, precision: str, mode: str) -> None:
    """The whole pipeline on a PIL image."""
    enhancer = loaded(name, precision)
    if mode == "fast" and (enhancer.entry.spec.scale > 1 or enhancer.module is None):
        pytest.skip("the mode is for networks that keep the size")
    picture = measure.picture
    measure.benchmark.extra_info["precision"] = precision_name(enhancer.precision)
    done = measure(lambda: enhancer.enhance(picture, mode=mode), enhancer.device.type)
    scale = enhancer.entry.spec.scale
    assert done.size == (picture.width * scale, picture.height * scale)
