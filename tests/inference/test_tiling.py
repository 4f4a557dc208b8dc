"""Padding, and tiles that give what the whole picture would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import enhancekit
from enhancekit.errors import DeviceError, OptionError, OutOfMemoryError, PluginError
from enhancekit.inference.apply import apply_network
from enhancekit.inference.parts import Whole, collect
from enhancekit.inference.tiling import SMALLEST_TILE, pad_to, tile_size, tiles
from enhancekit.specs import SizeRequirements

CONFIGS = {
    "one scale": {"width": 4, "counts": (2,)},
    "two scales": {"width": 4, "counts": (1, 1)},
    "three scales": {"width": 4, "counts": (1, 1, 1)},
    "deep first scale": {"width": 4, "counts": (6, 1, 1)},
    "deep packed scale": {"width": 4, "counts": (4, 1), "pack": 2},
    "deep third scale": {"width": 2, "counts": (1, 1, 3)},
    "shared": {"width": 4, "counts": (2, 3), "share_weights": True},
    "report": {
        "width": 4,
        "counts": (1, 2),
        "block_options": {"residual": False},
        "share_weights": True,
        "output": "sigmoid",
    },
    "norm": {"width": 4, "counts": (1, 1), "norm": True, "output": "sigmoid"},
    "exposure": {"width": 4, "counts": (1, 1), "context": "mfnn:exposure"},
    "packed": {"width": 2, "counts": (0, 1, 1), "pack": 2},
    "packed by 3": {"width": 2, "counts": (0, 1), "pack": 3},
    "packed exposure": {"width": 2, "counts": (1,), "pack": 2, "context": "mfnn:exposure"},
    "twice": {"width": 2, "counts": (0, 1, 1), "scale": 2},
    "packed and twice": {"width": 2, "counts": (0, 1), "pack": 2, "scale": 2},
    "thrice": {"width": 2, "counts": (1,), "scale": 3},
}


def mfnn(**config):
    """A network with random weights everywhere, also where training starts from zero."""
    torch.manual_seed(0)
    network = enhancekit.backbones.create("mfnn", **config)
    for name, parameter in network.named_parameters():
        if name.startswith("head.final") or ".bias" in name:
            nn.init.normal_(parameter, std=0.1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval().requires_grad_(False)


class Convolutions(nn.Module):
    """Three convolutions at half size, so that tiles must begin at even places."""

    size_requirements = SizeRequirements(multiple_of=2, halo=2 * 3)

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(3, 5, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(5, 5, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(5, 3, 3, padding=1),
            nn.Upsample(scale_factor=2.0),
        )

    def forward(self, x):
        return self.body(x)


class Enlarging(nn.Module):
    """Three convolutions and twice the size; cubic interpolation looks at two pixels."""

    size_requirements = SizeRequirements(halo=3, scale=2)

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(5, 5, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(5, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, x):
        return self.body(x) + nn.functional.interpolate(x, scale_factor=2.0, mode="bicubic")


def run_tiled(network, x, needs, tile):
    scale = needs.scale
    height, width = (side * scale for side in x.shape[2:])

    def own(part, margins):
        top, bottom, left, right = (margin * scale for margin in margins)
        done = network(part)
        return done[:, :, top : done.shape[2] - bottom, left : done.shape[3] - right]

    return collect(tiles(own, Whole(x), needs, tile), height, width)


def no_room():
    pytest.fail("how much memory is free has no part in this")


class TestPadding:
    @settings(deadline=None, max_examples=60)
    @given(
        size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
        multiple_of=st.integers(1, 8),
        minimum=st.integers(1, 20),
    )
    def test_any_size(self, size, multiple_of, minimum):
        x = torch.rand(2, 3, *size)
        padded = pad_to(x, multiple_of, minimum)
        for before, after in zip(size, padded.shape[2:], strict=True):
            wanted = -(-max(before, minimum) // multiple_of) * multiple_of
            assert after == wanted
        assert padded.shape[:2] == (2, 3)
        more = [(0, after - before) for before, after in zip(size, padded.shape[2:], strict=True)]
        mirrored = np.pad(x.numpy(), [(0, 0), (0, 0), *more], mode="reflect")
        np.testing.assert_array_equal(padded.numpy(), mirrored)

    def test_nothing_to_do_changes_nothing(self):
        x = torch.rand(1, 3, 8, 4)
        assert torch.equal(pad_to(x, 4), x)

    def test_one_pixel_is_repeated(self):
        assert (pad_to(torch.full((1, 3, 1, 1), 0.3), 4, 8) == 0.3).all()
        assert pad_to(torch.zeros(1, 3, 1, 1), 4, 8).shape == (1, 3, 8, 8)


class TestTileSize:
    needs = SizeRequirements(multiple_of=4, halo=10)

    @pytest.mark.parametrize("tile", [0, -5, 2.5, True, "banana", "64", ()])
    def test_impossible(self, tile):
        with pytest.raises(OptionError, match="'auto', None or a number of pixels"):
            tile_size(tile, 10, 10, self.needs, no_room)

    @pytest.mark.parametrize(("tile", "size"), [(1, 4), (4, 4), (5, 8), (63, 64)])
    def test_rounded_up_to_the_multiple(self, tile, size):
        assert tile_size(tile, 10, 10, self.needs, no_room) == size

    def test_whole(self):
        assert tile_size(None, 10**5, 10**5, self.needs, no_room) is None

    def test_auto_takes_the_whole_where_there_is_room(self):
        assert tile_size("auto", 100, 300, self.needs, lambda: 30_000) is None
        assert tile_size("auto", 100, 300, self.needs, lambda: 29_999) is not None

    @pytest.mark.parametrize("room", [20_000, 10**6, 12_345_678])
    def test_auto_takes_the_largest_tile_there_is_room_for(self, room):
        size = tile_size("auto", 10**5, 10**5, self.needs, lambda: room)
        halo = 12  # rounded up to the multiple
        assert (size + 2 * halo) ** 2 <= room < (size + 4 + 2 * halo + 4) ** 2

    def test_auto_never_takes_tiles_that_are_nearly_all_overlap(self):
        assert tile_size("auto", 10**5, 10**5, self.needs, lambda: 1) == SMALLEST_TILE

    def test_unbounded_networks_are_never_tiled(self):
        unbounded = SizeRequirements()
        assert tile_size("auto", 10**5, 10**5, unbounded, no_room) is None
        with pytest.raises(OptionError, match=r"tile=64 .*does not declare how far it looks"):
            tile_size(64, 100, 100, unbounded, no_room)
        with pytest.raises(OptionError, match="halo"):
            run_tiled(lambda x: x, torch.zeros(1, 3, 8, 8), unbounded, 4)


class TestRunTiled:
    @settings(deadline=None, max_examples=40)
    @given(
        size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
        tile=st.sampled_from([2, 4, 10, 32, 64]),
    )
    def test_tiled_is_whole(self, size, tile):
        network = Convolutions().eval().requires_grad_(False)
        x = torch.rand(2, 3, *size)
        whole = run_tiled(network, x, network.size_requirements, None)
        tiled = run_tiled(network, x, network.size_requirements, tile)
        assert whole.shape == tiled.shape == x.shape
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-6)

    @settings(deadline=None, max_examples=40)
    @given(
        size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
        tile=st.sampled_from([1, 4, 10, 32, 64]),
    )
    def test_tiled_is_whole_where_the_network_enlarges(self, size, tile):
        network = Enlarging().eval().requires_grad_(False)
        x = torch.rand(2, 3, *size)
        whole = run_tiled(network, x, network.size_requirements, None)
        tiled = run_tiled(network, x, network.size_requirements, tile)
        assert whole.shape == tiled.shape == (2, 3, 2 * size[0], 2 * size[1])
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)

    def test_a_halo_too_small_would_be_noticed_where_the_network_enlarges(self):
        network = Enlarging().eval().requires_grad_(False)
        x = torch.rand(1, 3, 40, 40)
        whole = run_tiled(network, x, network.size_requirements, None)
        tiled = run_tiled(network, x, SizeRequirements(halo=2, scale=2), 8)
        assert (tiled - whole).abs().max() > 1e-4

    @pytest.mark.parametrize("tile", [None, 4])
    def test_what_was_padded_is_cut_off_enlarged(self, tile):
        needs = SizeRequirements(multiple_of=4, minimum=8, halo=0, scale=3)
        x = torch.rand(1, 3, 5, 7)

        def network(part):
            return part.repeat_interleave(3, 2).repeat_interleave(3, 3)

        assert torch.equal(run_tiled(network, x, needs, tile), network(x))

    def test_a_halo_too_small_would_be_noticed(self):
        network = Convolutions().eval().requires_grad_(False)
        x = torch.rand(1, 3, 40, 40)
        whole = run_tiled(network, x, network.size_requirements, None)
        tiled = run_tiled(network, x, SizeRequirements(multiple_of=2, halo=2), 8)
        assert (tiled - whole).abs().max() > 1e-4

    def test_tiles_of_one_pixel(self):
        x = torch.rand(1, 3, 5, 7)
        assert torch.equal(run_tiled(lambda part: part * 2, x, SizeRequirements(halo=0), 1), x * 2)

    def test_no_tile_sees_more_than_its_halo(self):
        seen = []

        def network(part):
            seen.append(tuple(part.shape[2:]))
            return part

        run_tiled(network, torch.zeros(1, 3, 100, 60), SizeRequirements(halo=5), 20)
        assert len(seen) == 5 * 3
        assert max(max(size) for size in seen) == 30
        assert min(min(size) for size in seen) == 25

    def test_what_the_network_needs_holds_for_tiles_too(self):
        needs = SizeRequirements(multiple_of=4, minimum=16, halo=2)

        def network(part):
            height, width = part.shape[2:]
            assert height % 4 == width % 4 == 0
            assert min(height, width) >= 16
            return part * 2

        x = torch.rand(1, 3, 37, 5)
        for tile in (None, 4, 16, 32):
            assert torch.equal(run_tiled(network, x, needs, tile), x * 2)


class TestMfnn:
    @pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
    @pytest.mark.parametrize(("size", "tile"), [((61, 83), 16), ((75, 34), 23), ((7, 90), 32)])
    def test_tiled_is_whole(self, config, size, tile):
        network = mfnn(**config)
        x = torch.rand(1, 3, *size) * torch.linspace(0.1, 0.6, size[1])
        whole, tiled = (
            apply_network(network, x, global_context=True, tile=t) for t in (None, tile)
        )
        assert whole.shape == (1, 3, *(side * config.get("scale", 1) for side in size))
        assert ((whole > 0) & (whole < 1)).float().mean() > 0.5  # not all cut off at 0 or 1
        # where the picture is enlarged, tiles round the places between pixels differently
        atol = 1e-5 if "scale" in config else 2e-6
        torch.testing.assert_close(tiled, whole, rtol=0, atol=atol)

    def test_the_context_is_that_of_the_whole_picture(self):
        network = mfnn(**CONFIGS["exposure"])
        nn.init.zeros_(network.head.final.weight)
        nn.init.zeros_(network.head.final.bias)
        x = torch.rand(1, 3, 64, 64) * 0.1
        x[..., 32:] *= 5  # tiles of very different brightness
        tiled = apply_network(network, x, global_context=True, tile=16)
        log_gain = network.context(x)
        torch.testing.assert_close(tiled, network.context_block.curve(x, log_gain))

    @pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
    def test_the_declared_halo_is_true(self, config):
        network = mfnn(**config)
        needs = network.size_requirements
        grid = needs.multiple_of
        side = -(-(2 * needs.halo + 3 * grid) // grid) * grid
        arguments = ()
        if network.context_block is not None:
            arguments = (torch.full((1, 1, 1, 1), 0.7),)
        else:
            network.double()
        if not config.get("norm"):
            network.train()  # without the limits to 0 and 1, which hide changes
        dtype = next(network.parameters()).dtype
        x = torch.rand(1, 3, side, side, dtype=dtype)
        furthest = 0
        # without mkldnn each output is its own sum, so that what isn't seen changes nothing at all
        with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
            before = network(x, *arguments)
            for shift in range(grid):
                y, other = side // 2 + shift, side // 2 - shift
                changed = x.clone()
                changed[0, :, y, other] += 0.5
                moved = (network(changed, *arguments) != before).any(dim=1)[0]
                rows, columns = (n // needs.scale for n in moved.nonzero(as_tuple=True))
                furthest = max(
                    furthest, int((rows - y).abs().max()), int((columns - other).abs().max())
                )
        assert furthest <= needs.halo
        assert furthest >= needs.halo - 2 * grid  # nor does it claim much more than it needs

    @pytest.mark.parametrize(("scale", "halo"), [(1, 0), (2, 2), (3, 2)])
    def test_interpolation_counts_where_no_block_looks_further(self, scale, halo):
        network = mfnn(width=2, counts=(1,), scale=scale)
        for part in (*network.encoders, *network.trunks, *network.decoders, network.head):
            part.halo = 0
        assert network._halo() == halo

    def test_a_block_that_declares_no_halo_leaves_it_unknown(self, monkeypatch):
        from enhancekit_mfnn.blocks import SCR

        monkeypatch.delattr(SCR, "halo")
        network = mfnn(width=2, counts=(1,))
        assert network.size_requirements.halo is None
        x = torch.rand(1, 3, 9, 9)
        assert apply_network(network, x, global_context=True).shape == x.shape
        with pytest.raises(OptionError, match="use tile=None"):
            apply_network(network, x, global_context=True, tile=4)


class Bend(nn.Module):
    """A network that does what it is told."""

    size_requirements = SizeRequirements(halo=0)
    enhancekit_origin = "backbone acme:bend (acme 1.0)"

    def __init__(self, bend):
        super().__init__()
        self.bend = bend

    def forward(self, x):
        return self.bend(x)


class TestApplyNetwork:
    @pytest.mark.parametrize("tile", [None, 4])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_results_are_in_32_bits(self, tile, dtype):
        x = torch.rand(1, 3, 8, 8)
        done = apply_network(Bend(lambda p: p.to(dtype)), x, global_context=False, tile=tile)
        assert done.dtype == torch.float32
        torch.testing.assert_close(done, x.to(dtype).float())

    @pytest.mark.parametrize("tile", [None, 8])
    @pytest.mark.parametrize(
        "bend",
        [
            lambda x: x[..., 1:],
            lambda x: x[..., :-2, :],
            lambda x: nn.functional.interpolate(x, scale_factor=2.0),
            lambda x: torch.cat((x, x)),
            lambda x: x[:, :1],
            lambda x: x[0],
            lambda x: (x, x),
            lambda x: None,
        ],
        ids=["narrow", "low", "twice", "two", "grey", "flat", "tuple", "none"],
    )
    def test_another_size_is_the_plugins_fault(self, bend, tile):
        with pytest.raises(
            PluginError, match=r"acme:bend \(acme 1\.0\) gave .*of the shape \(1, 3, "
        ):
            apply_network(Bend(bend), torch.zeros(1, 3, 16, 16), global_context=False, tile=tile)

    @pytest.mark.parametrize("tile", [None, 8])
    @pytest.mark.parametrize("factor", [1, 3])
    def test_another_scale_than_declared_is_the_plugins_fault(self, factor, tile):
        network = Bend(lambda x: x.repeat_interleave(factor, 2).repeat_interleave(factor, 3))
        network.size_requirements = SizeRequirements(halo=0, scale=2)
        with pytest.raises(
            PluginError, match=r"acme:bend .*of the shape \(1, 3, (16|32), (16|32)\)"
        ):
            apply_network(network, torch.zeros(1, 3, 16, 16), global_context=False, tile=tile)

    @pytest.mark.parametrize("tile", [None, 8])
    def test_the_declared_scale_is_what_comes_out(self, tile):
        network = Bend(lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3).bfloat16())
        network.size_requirements = SizeRequirements(halo=0, scale=2)
        x = torch.rand(2, 3, 9, 16)
        done = apply_network(network, x, global_context=False, tile=tile)
        assert done.dtype == torch.float32
        wanted = x.numpy().repeat(2, axis=2).repeat(2, axis=3)
        np.testing.assert_allclose(done.numpy(), wanted, atol=2**-8)

    def test_a_failing_network_is_blamed(self):
        class Broken(nn.Module):
            size_requirements = SizeRequirements()
            enhancekit_origin = "block acme:broken (acme 1.0)"

            def forward(self, x):
                raise KeyError("oh")

        with pytest.raises(PluginError, match=r"acme:broken \(acme 1\.0\) failed.*KeyError"):
            apply_network(Broken(), torch.zeros(1, 3, 4, 4), global_context=False)

    def test_a_failing_context_is_blamed(self):
        class Broken(nn.Module):
            size_requirements = SizeRequirements()
            enhancekit_origin = "backbone acme:net (acme 1.0)"

            def context(self, whole):
                raise ZeroDivisionError

            def forward(self, x, context):
                return x

        with pytest.raises(PluginError, match=r"acme:net .*failed.*ZeroDivisionError"):
            apply_network(Broken(), torch.zeros(1, 3, 4, 4), global_context=True)

    def test_out_of_memory_says_what_to_do(self):
        class Greedy(nn.Module):
            size_requirements = SizeRequirements()

            def forward(self, x):
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried ...")

        with pytest.raises(DeviceError, match=r"out of memory on cpu with .*4, 6.*tile=256"):
            apply_network(Greedy(), torch.zeros(1, 3, 4, 6), global_context=False)

    def test_out_of_memory_halves_the_tiles_and_says_so(self, caplog):
        class Limited(nn.Module):
            def __init__(self, limit, multiple_of=1):
                super().__init__()
                self.size_requirements = SizeRequirements(multiple_of=multiple_of, halo=0)
                self.limit, self.sides = limit, []

            def forward(self, x):
                self.sides.append(max(x.shape[2:]))
                if x.shape[2] * x.shape[3] > self.limit:
                    raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried ...")
                return x + 1

        x = torch.rand(1, 3, 200, 300)
        network = Limited(80 * 80)
        done = apply_network(network, x, global_context=False)
        torch.testing.assert_close(done, x + 1)
        assert network.sides[:3] == [300, 150, 75]
        assert "out of memory on cpu; going on in tiles of 75 pixels" in caplog.text
        with pytest.raises(OutOfMemoryError, match="out of memory on cpu"):
            apply_network(Limited(80 * 80), x, global_context=False, tile=None)
        with pytest.raises(OutOfMemoryError, match="out of memory on cpu"):
            apply_network(Limited(10), x, global_context=False)
        # 64 is no multiple of 96: the tiles end at 96
        network = Limited(10, multiple_of=96)
        with pytest.raises(OutOfMemoryError, match="out of memory on cpu"):
            apply_network(network, x, global_context=False)
        assert network.sides == [384, 192, 96]

    def test_a_network_without_requirements(self):
        network = nn.Identity()
        network.size_requirements = (1, 2)
        with pytest.raises(OptionError, match="size_requirements"):
            apply_network(network, torch.zeros(1, 3, 4, 4), global_context=False)

    def test_no_graph_is_kept(self):
        network = Convolutions()
        done = apply_network(network, torch.rand(1, 3, 8, 8), global_context=False)
        assert not done.requires_grad

    def test_lower_precision_is_used_and_32_bits_come_back(self):
        network = Convolutions().eval()
        x = torch.rand(1, 3, 16, 16)
        full, half = (
            apply_network(network, x, global_context=False, dtype=dtype)
            for dtype in (torch.float32, torch.bfloat16)
        )
        assert half.dtype == torch.float32
        assert not torch.equal(half, full)
        torch.testing.assert_close(half, full, rtol=0, atol=0.02)
