"""Large pictures are read and written in parts, and nothing of it shows in the result."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import enhancekit
from enhancekit.imaging.convert import open_image
from enhancekit.inference import apply
from enhancekit.inference.apply import apply_network, network_parts
from enhancekit.inference.compiled import CompiledForward
from enhancekit.inference.memory import free_memory, peak_bytes
from enhancekit.inference.parts import Part, Whole, collect
from enhancekit.specs import SizeRequirements

CPU = torch.device("cpu")
TINY = {"width": 4, "counts": (1, 1), "context": "mfnn:exposure"}


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = enhancekit.backbones.create("mfnn", **TINY).eval().requires_grad_(False)
    torch.nn.init.normal_(made.head.final.weight, std=0.05)
    return made


class Watched(Whole):
    """Notes the most pixels that were read at once."""

    most = 0

    def read(self, rows=slice(None), columns=slice(None)):
        part = super().read(rows, columns)
        self.most = max(self.most, part.shape[2] * part.shape[3])
        return part


class TestNetworkParts:
    def test_the_picture_is_never_read_whole(self, network, monkeypatch):
        x = torch.rand(1, 3, 300, 500) * 0.3
        whole = apply_network(network, x, global_context=True, tile=None)
        monkeypatch.setattr(apply, "IN_ONE", 1000)
        source = Watched(x)
        parts = network_parts(network, source, global_context=True, tile=64)
        torch.testing.assert_close(collect(parts, 300, 500), whole, rtol=0, atol=1e-5)
        assert source.most < 300 * 500 / 4

    def test_a_context_without_a_grid_sees_the_picture_whole(self, network, monkeypatch):
        monkeypatch.setattr(apply, "IN_ONE", 1000)
        network.context_grid = None
        source = Watched(torch.rand(1, 3, 300, 200))
        for _ in network_parts(network, source, global_context=True, tile=64):
            pass
        assert source.most == 300 * 200

    def test_a_context_that_looks_at_nothing_reads_nothing(self, network, monkeypatch):
        monkeypatch.setattr(apply, "IN_ONE", 1000)
        blind = type(network)(4, (1, 1), context="mfnn:noise_level").eval()
        for module in (blind, type(network)(4, (1, 1)).eval()):
            source = Watched(torch.rand(1, 3, 300, 500))
            for _ in network_parts(module, source, global_context=True, tile=64):
                pass
            assert source.most < 300 * 500 / 4

    @pytest.mark.parametrize("size", [(48, 4000), (61, 75), (47, 3000), (500, 331)])
    def test_averages_of_strips_are_those_of_the_whole(self, monkeypatch, size):
        monkeypatch.setattr(apply, "IN_ONE", 1000)
        x = torch.rand(2, 3, *size)
        found = torch.nn.functional.adaptive_avg_pool2d(apply._whole(Whole(x), 48), 48)
        wanted = torch.nn.functional.adaptive_avg_pool2d(x, 48)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("most", [1 << 20, 1 << 24])
    def test_tiles_are_as_large_as_the_memory_allows(self, network, monkeypatch, most):
        monkeypatch.setattr(apply, "MOST_MEMORY", most)
        sides = []
        forward = network.forward

        def watched(x, *rest, **margins):
            sides.append(max(x.shape[2:]))
            return forward(x, *rest, **margins)

        network.forward = watched
        x = torch.rand(1, 3, 420, 400)
        whole = apply_network(network, x, global_context=True, tile=None)
        sides.clear()
        torch.testing.assert_close(
            apply_network(network, x, global_context=True), whole, rtol=0, atol=1e-5
        )
        used = sides[1:]  # the first was the probe
        taken = peak_bytes(lambda: forward(torch.zeros(1, 3, max(used), max(used))))
        # 64 pixels of its own are the least that a tile may have
        assert taken <= most or max(used) <= 64 + 2 * (network.size_requirements.halo + 4)
        assert len(used) > 1

    def test_a_batch_has_a_context_for_each_picture(self, network, monkeypatch):
        monkeypatch.setattr(apply, "PROBE", 64)
        batch = torch.rand(2, 3, 150, 160) * torch.tensor([0.1, 0.8]).view(2, 1, 1, 1)
        together = apply_network(network, batch, global_context=True)
        singly = [apply_network(network, x[None], global_context=True) for x in batch]
        torch.testing.assert_close(together, torch.cat(singly), rtol=0, atol=1e-5)

    def test_a_batch_needs_more_memory_than_a_picture(self, network, monkeypatch):
        monkeypatch.setattr(apply, "free_memory", lambda device: 1 << 20)
        source = Watched(torch.rand(9, 3, 120, 120))
        assert len(list(network_parts(network, source, global_context=True))) > 1

    def test_tiles_of_a_batch_are_smaller(self, network, monkeypatch):
        monkeypatch.setattr(apply, "MOST_MEMORY", 1 << 24)
        monkeypatch.setattr(apply, "PROBE", 64)
        counts = []
        for count in (1, 4):
            source = Watched(torch.rand(count, 3, 400, 400))
            counts.append(len(list(network_parts(network, source, global_context=True))))
        assert counts[1] > 1.5 * counts[0]

    def test_engines_are_measured_by_torch(self, network, monkeypatch):
        monkeypatch.setattr(apply, "free_memory", lambda device: 1 << 20)
        calls = []

        def compiled(inputs):
            calls.append(inputs["pictures"].shape)
            return inputs["pictures"]

        x = torch.rand(1, 3, 300, 300)
        module = CompiledForward(network, compiled, least=1)
        done = apply_network(module, x, global_context=True)
        torch.testing.assert_close(done, x)
        assert len(calls) > 4

    @pytest.mark.parametrize("made", [torch.Tensor.to_sparse, torch.Tensor.to_mkldnn])
    def test_tensors_that_show_no_memory_are_no_hindrance(self, made):
        class Odd(torch.nn.Module):
            size_requirements = SizeRequirements(halo=0)

            def forward(self, x):
                return made(x.contiguous()).to_dense()

        x = torch.rand(1, 3, 300, 300)
        torch.testing.assert_close(apply_network(Odd(), x, global_context=False), x)

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        ],
        ids=["python", "torch"],
    )
    def test_too_large_a_part_is_read_smaller(self, network, error, caplog, monkeypatch):
        class Large(Watched):
            def read(self, rows=slice(None), columns=slice(None)):
                if (rows.stop or 400) - (rows.start or 0) > 300:
                    raise error
                return super().read(rows, columns)

        x = torch.rand(1, 3, 400, 400)
        wanted = apply_network(network, x, global_context=True, tile=None)
        monkeypatch.setattr(apply, "IN_ONE", 1000)
        parts = network_parts(network, Large(x), global_context=True, tile=400)
        torch.testing.assert_close(collect(parts, 400, 400), wanted, rtol=0, atol=1e-5)
        assert "out of memory on cpu; going on in tiles of 200 pixels" in caplog.text

    def test_results_can_be_changed(self, network):
        assert not apply_network(
            network, torch.rand(1, 3, 8, 8), global_context=True
        ).is_inference()

    def test_little_free_memory_makes_tiles_smaller(self, network, monkeypatch):
        monkeypatch.setattr(apply, "free_memory", lambda device: 1 << 20)
        parts = network_parts(network, Whole(torch.rand(1, 3, 300, 400)), global_context=True)
        assert len(list(parts)) > 4


class TestMemory:
    def test_the_most_held_at_once(self):
        x = torch.zeros(256)
        assert peak_bytes(lambda: [x + 1, x + 2]) == 2048
        assert peak_bytes(lambda: ((x + 1) + 2) + 3) == 2048
        assert peak_bytes(lambda: [(x + 1).view(16, 16)[3:].t()]) == 1024

    def test_free_memory_is_limited_by_the_container(self, monkeypatch, tmp_path):
        from enhancekit.inference import memory

        without = free_memory(CPU)
        monkeypatch.setattr(memory, "_CGROUP", tmp_path)
        (tmp_path / "memory.max").write_text("max\n")
        (tmp_path / "memory.current").write_text("1000\n")
        (tmp_path / "memory.stat").write_text("anon 7\nactive_file 30\ninactive_file 70\n")
        assert free_memory(CPU) == pytest.approx(without, rel=0.5)
        (tmp_path / "memory.max").write_text("5000\n")
        assert free_memory(CPU) == 4100  # what caches files can be had
        (tmp_path / "memory.current").write_text("6000\n")
        assert free_memory(CPU) == 0


def kinds():
    random = np.random.default_rng(0)
    eight = random.integers(0, 256, (37, 53, 4), dtype=np.uint8)
    yield "uint8 rgba", eight
    yield "uint16 grey", random.integers(0, 65536, (37, 53), dtype=np.uint16)
    yield "reversed view", eight[::-1, ::-1, :3]
    yield "big-endian", random.integers(0, 65536, (37, 53, 3)).astype(">u2")
    yield "float64", random.random((37, 53, 3))
    yield "torch batch", torch.from_numpy(random.random((2, 4, 37, 53), dtype=np.float32))
    for mode in ("L", "LA", "RGB", "RGBA"):
        yield f"PIL {mode}", Image.fromarray(eight).convert(mode)
    yield "PIL I;16", Image.fromarray(random.integers(0, 65536, (37, 53), dtype=np.uint16))
    yield "PIL F", Image.fromarray(random.random((37, 53), dtype=np.float32))


@pytest.mark.parametrize(("name", "picture"), list(kinds()), ids=[name for name, _ in kinds()])
@pytest.mark.parametrize("scale", [1, 2])
def test_a_picture_written_in_parts_is_the_same(name, picture, scale):
    def result(step):
        opened = open_image(picture)
        canvas = opened.canvas(scale)
        for top in range(0, 37, step):
            for left in range(0, 53, step):
                rows, columns = slice(top, min(37, top + step)), slice(left, min(53, left + step))
                pixels = opened.read(rows, columns) * 0.7 + 0.1
                pixels = pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
                larger = (slice(s.start * scale, s.stop * scale) for s in (rows, columns))
                canvas.write(*larger, pixels)
        return np.asarray(canvas.close())

    np.testing.assert_array_equal(result(13), result(100))


def test_collect_lets_later_parts_win():
    first, second = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 1)
    parts = [
        Part(slice(0, 2), slice(0, 1), second * 5),
        Part(slice(0, 1), slice(0, 2), first[:, :, :1]),
        Part(slice(0, 2), slice(1, 2), second),
    ]
    assert collect(iter(parts), 2, 2)[0, 0].tolist() == [[0, 1], [5, 1]]


MEASURED = """
import resource, sys
import numpy as np, torch
import enhancekit
torch.set_num_threads(1)
enhancer = enhancekit.load("mfnn-lite", pretrained=False, width=4, counts=(0, 1))
enhancer.enhance(np.zeros((600, 800, 3), np.uint8), mode=sys.argv[1])
random = np.random.default_rng(0)
picture = random.integers(0, 60, (3000, 4000, 3), dtype=np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
enhancer.enhance(picture, mode=sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is Linux's")
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_memory_beyond_input_and_output_does_not_follow_the_picture(mode):
    code = "from enhancekit.inference import apply; apply.MOST_MEMORY = 1 << 27\n" + MEASURED
    done = subprocess.run(
        [sys.executable, "-c", code, mode], capture_output=True, text=True, check=True
    )
    result = 36 / 1.048576
    # as floats alone, the picture and its result would take 275 MiB
    assert float(done.stdout) < result + (270 if mode == "exact" else 150)


def test_measuring_memory_loads_no_compiler():
    code = """
import sys, torch
from enhancekit.inference.memory import peak_bytes
assert peak_bytes(lambda: torch.zeros(4) + 1) == 32
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
