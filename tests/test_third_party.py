"""A third party's plugin, installed beside: found, listed, used, trained, and blamed by name."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import enhancekit
from enhancekit.errors import (
    AmbiguousNameError,
    OptionError,
    PluginError,
    UnknownNameError,
    WeightsError,
)
from enhancekit.training.loop import Trainer
from enhancekit.training.recipe import read_recipe
from enhancekit.weights import read_card

NET = "mfnn-lite"
RECIPE = "enhancekit_mfnn:recipes/mfnn-lite.toml"
TINY = {"width": 4, "counts": (1, 1), "device": "cpu"}

# each block breaks in its own way; all keep what is asked of a residual block otherwise
BLOCKS = """
import torch
from torch import nn


class Good(nn.Module):
    halo = 1

    def __init__(self, channels, slope=0.1):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.slope = slope

    def forward(self, x):
        return x + nn.functional.leaky_relu(self.conv(x), self.slope)


class Raising(Good):
    def forward(self, x):
        raise RuntimeError("out of ideas")


class RaisingInside(Good):
    def forward(self, x):
        return self.conv(x[:, :1])  # a layer of torch raises, not the block's own code


class Smaller(Good):
    def forward(self, x):
        return x[..., 1:]


class FewerChannels(Good):
    def forward(self, x):
        return x[:, :1]


class Forgetting(Good):
    def forward(self, x):
        self.conv(x)


class RaisingInBackward(Good):
    def forward(self, x):
        return Stop.apply(super().forward(x))


class Stop(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no way back")


class Unbuildable(Good):
    def __init__(self, channels):
        raise ValueError(f"{channels} channels are too few")


def no_module(channels):
    return channels


class Boundless(Good):
    halo = None
"""


@pytest.fixture
def broken(make_plugin):
    names = re.findall(r"^(?:class|def) (\w+)\((?:nn|Good|channels)", BLOCKS, re.MULTILINE)
    return make_plugin(
        name="acme2",
        distribution="acme-two",
        version="2.1",
        blocks=[{"name": n.lower(), "role": "residual", "target": f"{{code}}:{n}"} for n in names],
        code=BLOCKS,
    )


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 90, (10, 14, 3), np.uint8)


def untrained(block, **options):
    torch.manual_seed(0)
    return enhancekit.load(NET, block=block, pretrained=False, **TINY, **options)


def train(changes):
    return list(Trainer(read_recipe(RECIPE, changes), device="cpu").run())


def options(block, more=""):
    return f"{{width = 4, counts = [1, 1], block = '{block}'{more}}}"


class TestExample:
    """The plugin that users are told to copy."""

    def test_found_by_name(self, example_plugin):
        entry = enhancekit.blocks.get("acme:fast")
        assert str(entry) == f"block acme:fast ({example_plugin})"
        assert enhancekit.blocks.get("fast") == entry
        assert entry.target().__module__ == "acme_blocks.blocks"
        (status,) = [s for s in enhancekit.plugins.host().statuses() if s.provider.plugin == "acme"]
        assert (status.status, len(status.entries)) == ("ok", 3)

    def test_listed(self, example_plugin, cli):
        (row,) = [r for r in json.loads(cli("list", "blocks", "--json").out) if r["name"] == "fast"]
        assert row["qualified_name"] == "acme:fast"
        assert row["distribution"] == str(example_plugin)
        (line,) = [t for t in cli("list", "blocks").out.splitlines() if t.startswith("fast ")]
        assert "acme" in line
        assert row["summary"] in line
        (shown,) = [r for r in json.loads(cli("plugins", "--json").out) if r["name"] == "acme"]
        assert (shown["status"], shown["gives"]) == (
            "ok",
            ["block fast", "enhancer small-scr", "enhancer small-fast"],
        )

    def test_is_swapped_in(self, example_plugin, picture):
        enhancer = untrained("acme:fast")
        inside = [type(m).__name__ for m in enhancer.module.modules()]
        assert inside.count("FastBlock") == 2
        assert "SCR" not in inside
        assert enhancer.module.size_requirements.halo is not None
        result = enhancer.enhance(picture)
        assert (result.shape, result.dtype) == (picture.shape, picture.dtype)
        # an untrained head adds nothing, so it takes weights to see the block at work
        torch.nn.init.normal_(enhancer.module.head.final.weight)
        before = enhancer.enhance(picture)
        for name, parameter in enhancer.module.named_parameters():
            if "trunks.0.blocks.0" in name:
                parameter.mul_(-3)
        assert (enhancer.enhance(picture) != before).any()

    def test_trained(self, example_plugin, tmp_path, tiny_recipe, picture):
        states = []
        for count in (1, 4):
            more = (f"run.steps={count}", "optim.warm_up=0", "optim.schedule='constant'")
            run = tmp_path / f"run{count}"
            steps = train(tiny_recipe(run, *more, options=options("acme:fast")))
            assert [s.step for s in steps] == list(range(1, count + 1))
            assert all(np.isfinite(s.loss) for s in steps)
            assert steps[-1].psnr["low"] > 5
            states.append(load_file(run / "last.safetensors"))
        inside = [n for n in states[0] if re.match(r"trunks\.\d\.blocks\.0\.(widen|join)", n)]
        assert len(inside) == 16  # four convolutions at each of two scales, with biases
        assert all((states[0][n] != states[1][n]).any() for n in inside)

        path = tmp_path / "run4" / "best.safetensors"
        assert read_card(path).config["block"] == "acme:fast"
        enhancer = enhancekit.load(NET, weights=path, block="acme:fast", **TINY)
        assert enhancer.enhance(picture).shape == picture.shape
        with pytest.raises(WeightsError, match=r"block: 'acme:fast' there, 'mfnn:scr' asked for"):
            enhancekit.load(NET, weights=path, **TINY)

    def test_trained_by_command(self, example_plugin, tmp_path, tiny_recipe, cli):
        changes = tiny_recipe(tmp_path / "run", "run.steps=2", options=options("acme:fast"))
        done = cli("train", RECIPE, *(t for c in changes for t in ("--set", c)), "--device", "cpu")
        assert (done.code, done.err) == (0, "")
        assert (tmp_path / "run" / "best.safetensors").is_file()

    def test_uninstalled_again_it_is_unknown(self, example_plugin, monkeypatch):
        monkeypatch.setenv("ENHANCEKIT_DISABLE_PLUGINS", "acme-blocks")
        enhancekit.plugins.reset()
        with pytest.raises(UnknownNameError, match="no block is called 'acme:fast'"):
            untrained("acme:fast")


class TestChoosing:
    def test_options_reach_the_block(self, broken):
        module = untrained("acme2:good", block_options={"slope": 0.7}).module
        assert module.trunks[0].blocks[0].slope == 0.7

    def test_wrong_role(self, broken):
        with pytest.raises(OptionError, match=r"block mfnn:hsc_decoder .* role 'decoder'") as info:
            untrained("mfnn:hsc_decoder")
        assert "'residual'" in str(info.value)
        assert "acme2:good" in str(info.value)
        assert "mfnn:scr" in str(info.value)

    def test_wrong_role_elsewhere(self, broken):
        with pytest.raises(OptionError, match=r"block acme2:good \(acme-two 2\.1\) has the role"):
            enhancekit.load(NET, pretrained=False, decoder="acme2:good", **TINY)

    def test_unknown(self, broken):
        with pytest.raises(UnknownNameError, match="did you mean 'acme2:good'"):
            untrained("acme2:godd")

    def test_clash(self, broken, make_plugin):
        make_plugin(
            name="acme3",
            distribution="acme-three",
            blocks=[{"name": "good", "role": "residual", "target": "x:y"}],
        )
        with pytest.raises(AmbiguousNameError, match=r"acme2:good \(acme-two 2\.1\), acme3:good"):
            untrained("good")
        assert untrained("acme2:good").module is not None

    @pytest.mark.parametrize(
        ("block", "cause"),
        [
            ("unbuildable", "ValueError: 4 channels are too few"),
            ("no_module", "int instead of a torch.nn.Module"),
        ],
    )
    def test_cannot_be_built(self, broken, block, cause):
        with pytest.raises(PluginError, match=cause) as info:
            untrained(f"acme2:{block}")
        assert f"block acme2:{block} (acme-two 2.1)" in str(info.value)

    def test_wrong_options(self, broken):
        with pytest.raises(PluginError, match=r"block acme2:good \(acme-two 2\.1\).*colour"):
            untrained("acme2:good", block_options={"colour": "red"})

    def test_without_a_halo_nothing_is_cut(self, broken, picture):
        enhancer = untrained("acme2:boundless")
        assert enhancer.module.size_requirements.halo is None
        assert enhancer.enhance(picture).shape == picture.shape
        with pytest.raises(OptionError, match="tile=8"):
            untrained("acme2:boundless", tile=8).enhance(picture)


BREAKING = {
    "raising": "RuntimeError: out of ideas",
    "raisinginside": "RuntimeError: .*channels",
    "smaller": "shape",
    "fewerchannels": "shape",
    "forgetting": "NoneType",
}


@pytest.mark.parametrize("block", BREAKING)
class TestBlamed:
    def test_in_inference(self, broken, picture, block):
        enhancer = untrained(f"acme2:{block}")
        with pytest.raises(PluginError, match=BREAKING[block]) as info:
            enhancer.enhance(picture)
        assert f"block acme2:{block} (acme-two 2.1)" in str(info.value)

    def test_in_tiles(self, broken, picture, block):
        with pytest.raises(PluginError, match=BREAKING[block]) as info:
            untrained(f"acme2:{block}", tile=8).enhance(picture)
        assert f"block acme2:{block} (acme-two 2.1)" in str(info.value)

    def test_in_training(self, broken, tmp_path, tiny_recipe, block):
        changes = tiny_recipe(tmp_path / "run", options=options(f"acme2:{block}"))
        with pytest.raises(PluginError, match=BREAKING[block]) as info:
            train(changes)
        assert f"block acme2:{block} (acme-two 2.1)" in str(info.value)

    def test_in_training_with_checkpointing(self, broken, tmp_path, tiny_recipe, block):
        given = options(f"acme2:{block}", ", checkpointing = true")
        with pytest.raises(PluginError, match=BREAKING[block]) as info:
            train(tiny_recipe(tmp_path / "run", options=given))
        assert f"block acme2:{block} (acme-two 2.1)" in str(info.value)

    def test_on_the_command_line(self, broken, tmp_path, tiny_recipe, cli, block):
        changes = tiny_recipe(tmp_path / "run", options=options(f"acme2:{block}"))
        done = cli("train", RECIPE, *(t for c in changes for t in ("--set", c)), "--device", "cpu")
        assert done.code == 1
        assert done.err.startswith("error: ")
        assert f"block acme2:{block} (acme-two 2.1)" in done.err


def test_breaking_in_the_backward_pass_is_a_plugin_error(broken, tmp_path, tiny_recipe):
    changes = tiny_recipe(tmp_path / "run", options=options("acme2:raisinginbackward"))
    with pytest.raises(PluginError, match="no way back"):
        train(changes)


CONTEXT = """
from enhancekit_mfnn.context import Exposure


class Context(Exposure):
    def {method}(self, *arguments):
        raise RuntimeError("no exposure")
"""


class TestContext:
    @pytest.fixture
    def plugin(self, make_plugin, request):
        return make_plugin(
            name="acme4",
            distribution="acme-four",
            blocks=[{"name": "context", "role": "context", "target": "{code}:Context"}],
            code=CONTEXT.format(method=request.param),
        )

    @pytest.mark.parametrize("plugin", ["summarise", "solve", "forward"], indirect=True)
    def test_blamed_in_inference(self, plugin, picture):
        enhancer = enhancekit.load(NET, pretrained=False, context="acme4:context", **TINY)
        with pytest.raises(PluginError, match=r"block acme4:context \(acme-four 1\.0\)"):
            enhancer.enhance(picture)

    @pytest.mark.parametrize("plugin", ["summarise", "solve", "forward", "loss"], indirect=True)
    def test_blamed_in_training(self, plugin, tmp_path, tiny_recipe):
        given = "{width = 4, counts = [1, 1], context = 'acme4:context'}"
        with pytest.raises(PluginError, match=r"block acme4:context \(acme-four 1\.0\)"):
            train(tiny_recipe(tmp_path / "run", options=given))


class TestLoss:
    @pytest.fixture(autouse=True)
    def _plugin(self, make_plugin):
        make_plugin(
            name="acme5",
            distribution="acme-five",
            losses=[
                {"name": "mine", "target": "{code}:Mine"},
                {"name": "bad", "target": "{code}:Bad"},
            ],
            code="""
                from torch import nn

                class Mine(nn.Module):
                    def forward(self, output, reference):
                        return (output - reference).square().mean()

                class Bad(nn.Module):
                    def forward(self, output, reference):
                        raise RuntimeError("no loss today")
            """,
        )

    def test_trained_with(self, tmp_path, tiny_recipe):
        steps = train(tiny_recipe(tmp_path / "run", "loss='acme5:mine + 0.5*l1'"))
        assert set(steps[-1].terms) == {"acme5:mine", "l1"}
        assert all(np.isfinite(s.loss) for s in steps)

    @pytest.mark.parametrize("loss", ["acme5:bad", "l1 + 0.1*acme5:bad"])
    def test_blamed(self, tmp_path, tiny_recipe, loss):
        with pytest.raises(PluginError, match=r"loss acme5:bad \(acme-five 1\.0\).*no loss today"):
            train(tiny_recipe(tmp_path / "run", f"loss='{loss}'"))


NETS = """
import torch
from torch import nn
from enhancekit import SizeRequirements


class Net(nn.Module):
    size_requirements = SizeRequirements(multiple_of=4, minimum=8, halo=1)

    def __init__(self, kind="good"):
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return {
            "good": lambda: y,
            "half size": lambda: y[..., ::2, ::2],
            "one picture": lambda: y[:0],
            "one channel": lambda: y[:, :1],
            "nothing": lambda: None,
            "array": lambda: y.numpy(),
            "raising": lambda: 1 / 0,
            "nan": lambda: y * float("nan"),
        }[self.kind]()


class Undeclared(nn.Module):
    def forward(self, x):
        return x


def no_module():
    return 7
"""


class TestNetwork:
    @pytest.fixture(autouse=True)
    def _plugin(self, make_plugin):
        make_plugin(
            name="acme6",
            distribution="acme-six",
            backbones=[
                {"name": "net", "target": "{code}:Net", "config": {"kind": "good"}},
                {"name": "undeclared", "target": "{code}:Undeclared"},
                {"name": "no-module", "target": "{code}:no_module"},
            ],
            enhancers=[
                {"name": n, "task": "t", "backbone": f"acme6:{n}"}
                for n in ("net", "undeclared", "no-module")
            ]
            + [{"name": "lost", "task": "t", "backbone": "acme6:lost"}],
            code=NETS,
        )

    def load(self, name="net", **given):
        return enhancekit.load(name, pretrained=False, device="cpu", **given)

    @pytest.mark.parametrize("size", [(1, 1), (3, 9), (8, 8), (13, 6)])
    def test_a_network_of_ones_own(self, size):
        picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        assert self.load().enhance(picture).shape == picture.shape

    @pytest.mark.parametrize("tile", [None, 8])
    @pytest.mark.parametrize(
        "kind", ["half size", "one picture", "one channel", "nothing", "array", "raising", "nan"]
    )
    def test_blamed(self, picture, kind, tile):
        enhancer = self.load(kind=kind, tile=tile)
        with pytest.raises(enhancekit.EnhanceKitError, match=r"acme6:net \(acme-six 1\.0\)"):
            enhancer.enhance(picture)

    def test_unknown_option(self):
        with pytest.raises(OptionError, match=r"backbone acme6:net .* no option depth.*kind"):
            self.load(depth=3)

    def test_what_it_must_declare(self):
        with pytest.raises(PluginError, match=r"backbone acme6:undeclared .*size_requirements"):
            self.load("undeclared")

    def test_no_module(self):
        with pytest.raises(PluginError, match=r"backbone acme6:no-module .* made a int"):
            self.load("no-module")

    def test_backbone_nobody_registered(self):
        with pytest.raises(UnknownNameError, match="no backbone is called 'acme6:lost'"):
            self.load("lost")

    def test_weights_are_never_random_in_silence(self):
        with pytest.raises(WeightsError, match=r"acme6:net \(acme-six 1\.0\) ships no trained"):
            enhancekit.load("net")


class TestFunction:
    @pytest.fixture(autouse=True)
    def _plugin(self, make_plugin):
        make_plugin(
            name="acme7",
            distribution="acme-seven",
            enhancers=[
                {"name": name, "task": "tone", "target": f"{{code}}:{name}"}
                for name in ("invert", "raising", "half", "forgetting", "spoiling", "broken")
            ],
            code="""
                import numpy as np

                def invert(picture, amount=1.0):
                    return picture + amount * (1 - 2 * picture)

                def raising(picture):
                    raise KeyError("tone")

                def half(picture):
                    return picture[::2]

                def forgetting(picture):
                    picture.mean()

                def spoiling(picture):
                    picture[:] = 0
                    return picture

                def broken(picture):
                    return picture * np.float32("nan")
            """,
        )

    def test_works(self, picture):
        result = enhancekit.load("invert").enhance(picture)
        np.testing.assert_array_equal(result, 255 - picture)

    def test_options(self, picture):
        result = enhancekit.load("invert", amount=0.5).enhance(picture)
        assert np.abs(result.astype(int) - 127.5).max() <= 0.5

    @pytest.mark.parametrize(
        ("name", "cause"),
        [
            ("raising", "KeyError: 'tone'"),
            ("half", "shape"),
            ("forgetting", "shape"),
            ("broken", "NaN"),
        ],
    )
    def test_blamed(self, picture, name, cause):
        enhancer = enhancekit.load(name)
        with pytest.raises(enhancekit.EnhanceKitError, match=cause) as info:
            enhancer.enhance(picture)
        assert f"enhancer acme7:{name} (acme-seven 1.0)" in str(info.value)

    @pytest.mark.parametrize("kind", ["uint8", "float32", "tensor", "PIL"])
    def test_the_caller_s_picture_is_never_changed(self, picture, kind):
        given = {
            "uint8": lambda: picture,
            "float32": lambda: (picture / 255).astype(np.float32),
            "tensor": lambda: torch.from_numpy(picture / 255).float().permute(2, 0, 1),
            "PIL": lambda: Image.fromarray(picture),
        }[kind]()
        before = np.asarray(given).copy()
        half = enhancekit.load("spoiling").enhance(given, strength=0.5)
        np.testing.assert_array_equal(np.asarray(given), before)
        # half of the way to black, so what it spoilt was not the pipeline's own copy either
        np.testing.assert_allclose(
            np.asarray(half), before / 2, atol=0.51 if before.max() > 1 else 0
        )

    def test_on_the_command_line(self, cli, tmp_path, picture):
        Image.fromarray(picture).save(tmp_path / "a.png")
        done = cli("enhance", tmp_path / "a.png", "-o", tmp_path / "b.png", "-e", "acme7:raising")
        assert done.code == 1
        assert (
            done.err == "error: enhancer acme7:raising (acme-seven 1.0) failed: KeyError: 'tone'\n"
        )
        assert not (tmp_path / "b.png").exists()
