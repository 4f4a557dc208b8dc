"""The command line: what it prints, writes and returns, and that bad input is one line."""

from __future__ import annotations

import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
import warnings
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import enhancekit
from enhancekit.imaging.pictures import DeepPicture
from enhancekit.imaging.reading import decode
from enhancekit.plugins import reset
from enhancekit.training.pairs import is_held_out
from enhancekit.weights import Card, read_card, save_weights

TINY = ("--option", "width=4", "--option", "counts=[1,1]", "--option", "pack=1")
NET = "mfnn-lite"
RECIPE = "enhancekit_mfnn:recipes/mfnn-lite.toml"


def shell(*arguments, path="", **environment):
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from enhancekit.cli import run; run()", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path), **environment},
        check=False,
    )


def pixels(path):
    with Image.open(path) as picture:
        return np.array(picture)


def save(path, array):
    Image.fromarray(array).save(path)
    return path


def random_picture(height=16, width=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def gamma_of(array, gamma=1 / 2.2):
    return np.round((array / 255) ** gamma * 255).astype(np.uint8)


def assert_one_line(outcome, *said):
    """One line on standard error saying each of `said`, nothing else, exit code 1."""
    assert outcome.code == 1, outcome
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("error: ")
    for text in said:
        assert str(text) in lines[0]
    assert outcome.out == ""


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


class TestProcess:
    """What only a process of its own shows."""

    def test_the_command_is_installed(self):
        (point,) = entry_points(group="console_scripts", name="enhancekit")
        assert point.value == "enhancekit.cli:run"

    def test_the_module_is_the_command(self):
        words = [sys.executable, "-m", "enhancekit", "info", "gamma"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout == shell("info", "gamma").stdout
        assert "builtin:gamma" in done.stdout

    def test_it_starts_without_torch(self):
        code = "import sys, enhancekit.cli; print('torch' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout == "False\n"

    def test_what_is_given_up_does_not_spoil_the_end(self, out):
        save(out / "a.png", random_picture(500, 500))
        done = shell("enhance", out / "a.png", "-o", out / "b.png", "-e", NET, "--time-limit", 0.01)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert "was given up" in done.stderr
        assert [p.name for p in out.iterdir()] == ["a.png"]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_terminated_it_clears_away(self, out, number):
        save(out / "a.png", random_picture(1200, 1200))
        # under nohup it would be ignored, as it should
        code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        code += "from enhancekit.cli import run; run()"
        words = ["enhance", out / "a.png", "-o", out / "b.png", "-e", NET]
        process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)])
        for _ in range(600):
            if len(list(out.iterdir())) > 1 or process.poll() is not None:
                break
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
        assert [p.name for p in out.iterdir()] == ["a.png"]

    def test_enhance(self, dark, out):
        done = shell("enhance", dark, "-o", out / "good.png", "-e", "gamma")
        assert (done.returncode, done.stderr) == (0, "")
        assert str(out / "good.png") in done.stdout
        np.testing.assert_array_equal(pixels(out / "good.png"), gamma_of(pixels(dark)))

    def test_bad_input(self, tmp_path, out):
        notes = tmp_path / "notes.jpg"
        notes.write_text("no picture")
        done = shell("enhance", notes, "-o", out / "good.png", "-e", "gamma")
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {notes}: not a picture")
        assert list(out.iterdir()) == []

    def test_in_a_pipe_names_stand_in_one_piece(self, tmp_path):
        name = f"{'long' * 40}.png"
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / name).write_text("no picture")
        done = shell("enhance", tmp_path / "in", "-o", tmp_path / "out", "-e", "gamma")
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if name in line]
        assert "not a picture" in line
        assert line == line.rstrip()

    def test_a_broken_plugin_is_a_warning(self, make_plugin):
        plugin = make_plugin("raise OSError('no licence')")
        done = shell("list", "--json", path=plugin.path)
        assert done.returncode == 0
        assert "gamma" in [row["name"] for row in json.loads(done.stdout)]
        (line,) = done.stderr.splitlines()
        assert line.startswith("warning: plugin left out: orbit (orbit-plugin 1.0): OSError: no li")

    def test_a_broken_plugin_is_an_error_when_strict(self, make_plugin):
        plugin = make_plugin("raise OSError('no licence')")
        done = shell("list", path=plugin.path, ENHANCEKIT_STRICT_PLUGINS="1")
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ENHANCEKIT_STRICT_PLUGINS")
        assert "orbit (orbit-plugin 1.0): OSError: no licence" in line


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["enhance"],
            ["enhance", "a.png"],
            ["enhance", "a.png", "-o", "b.png", "--no-such-option"],
            ["enhance", "a.png", "-o", "b.png", "--strength", "much"],
            ["enhance", "a.png", "-o", "b.png", "--overwrite", "perhaps"],
            ["list", "things"],
            ["info"],
            ["evaluate", "gamma"],
            ["train"],
            ["no-such-command"],
        ],
        ids=" ".join,
    )
    def test_wrong_usage(self, cli, arguments):
        done = cli(*arguments)
        assert (done.code, done.out) == (2, "")
        assert "Usage: " in done.err
        assert "Traceback" not in done.err

    @pytest.mark.parametrize(
        "command", [[], ["enhance"], ["list"], ["info"], ["plugins"], ["train"], ["evaluate"]]
    )
    def test_help(self, cli, command):
        done = cli(*command, "--help")
        assert (done.code, done.err) == (0, "")
        assert "Usage: " in done.out

    def test_version(self, cli):
        assert cli("--version").out == f"enhancekit {enhancekit.__version__}\n"


class TestListing:
    KINDS = ("backbones", "blocks", "enhancers", "losses", "metrics", "schemes")

    @pytest.mark.parametrize("kind", KINDS)
    def test_json(self, cli, kind):
        done = cli("list", kind, "--json")
        registry = getattr(enhancekit, kind)
        rows = json.loads(done.out)
        assert [row["name"] for row in rows] == list(registry.names())
        for row in rows:
            entry = registry.get(row["qualified_name"])
            assert row["plugin"] == entry.provider.plugin
            assert row["distribution"] == str(entry.provider)
            assert row["summary"] == entry.spec.summary
        assert (done.code, done.err) == (0, "")

    def test_all_as_json(self, cli):
        found = json.loads(cli("list", "all", "--json").out)
        assert set(found) == set(self.KINDS)
        assert found["metrics"] == json.loads(cli("list", "metrics", "--json").out)

    @pytest.mark.parametrize("kind", KINDS)
    def test_table(self, cli, kind):
        lines = cli("list", kind).out.splitlines()
        assert lines[0].split()[1:] == ["plugin", "summary"]
        for name, line in zip(getattr(enhancekit, kind).names(), lines[1:], strict=True):
            entry = getattr(enhancekit, kind).get(name)
            assert line.split()[:2] == [name, entry.provider.plugin]
            assert entry.spec.summary in line

    def test_enhancers_are_what_is_listed_by_default(self, cli):
        assert cli("list").out == cli("list", "enhancers").out

    def test_a_clash_is_listed_by_qualified_names(self, cli, make_plugin):
        for name in ("one", "two"):
            make_plugin(
                losses=[{"name": "shared", "target": "x:y"}], name=name, distribution=f"d-{name}"
            )
        names = [row["name"] for row in json.loads(cli("list", "losses", "--json").out)]
        assert {"one:shared", "two:shared", "l1"} <= set(names)

    def test_brackets_in_a_summary_are_text(self, cli, make_plugin):
        make_plugin(losses=[{"name": "odd", "summary": "range [0, 1] [red]x", "target": "x:y"}])
        assert "range [0, 1] [red]x" in cli("list", "losses").out


class TestInfo:
    def test_json_of_a_function(self, cli):
        shown = json.loads(cli("info", "gamma", "--json").out)
        assert shown["name"] == "builtin:gamma"
        assert shown["distribution"] == f"enhancekit {enhancekit.__version__}"
        assert shown["config"] == {"gamma": 1 / 2.2}
        assert shown["card"] is None

    def test_table(self, cli):
        out = cli("info", "builtin:gamma").out
        for text in (
            "builtin:gamma",
            f"enhancekit {enhancekit.__version__}",
            "Power law",
            "0.4545",
        ):
            assert text in out

    def test_network_without_weights_says_how_to_train_it(self, cli):
        done = cli("info", "mfnn-paper")
        assert "No weights are shipped" in done.out
        assert "enhancekit train" in done.out

    def test_card_of_weights(self, cli, weights):
        shown = json.loads(cli("info", NET, "--weights", weights, "--json").out)
        assert shown["card"]["file"] == str(weights)
        assert shown["card"]["license"] == "of a test"
        assert shown["card"]["config"]["width"] == 4
        assert "of a test" in cli("info", NET, "--weights", weights).out
        assert shown["precision"].endswith(": no measured parity of a lower precision")

    def test_precision_of_shipped_weights(self, cli, monkeypatch):
        native = "enhancekit.inference.device._computes_natively"
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        for bf16, said in ((True, "bf16 on cpu: native here"), (False, "computes none of")):
            monkeypatch.setattr(native, lambda device, name, bf16=bf16: bf16)
            assert said in json.loads(cli("info", NET, "--json").out)["precision"]

    def test_unknown(self, cli):
        assert_one_line(cli("info", "gama"), "no enhancer is called 'gama'", "'gamma'")

    def test_damaged_weights(self, cli, tmp_path):
        (tmp_path / "w.safetensors").write_bytes(b"nothing")
        done = cli("info", NET, "--weights", tmp_path / "w.safetensors")
        assert_one_line(done, tmp_path / "w.safetensors")


class TestPlugins:
    def test_json(self, cli, make_plugin):
        make_plugin("raise OSError('no licence')", version="1.5")
        make_plugin(
            blocks=[{"name": "good", "role": "r", "target": "x:y"}],
            name="good",
            distribution="good-plugin",
        )
        done = cli("plugins", "--json")
        found = {row["name"]: row for row in json.loads(done.out)}
        assert (done.code, done.err) == (0, "")
        bad, good = found["orbit"], found["good"]
        assert (bad["status"], bad["gives"]) == ("failed", [])
        assert (bad["distribution"], bad["version"]) == ("orbit-plugin", "1.5")
        assert bad["error"] == "OSError: no licence"
        assert "Traceback" in bad["details"]
        assert (good["status"], good["gives"], good["error"]) == ("ok", ["block good"], None)
        assert "loss l1" in found["builtin"]["gives"]

    def test_table(self, cli, make_plugin, monkeypatch):
        make_plugin("raise OSError('no licence')")
        make_plugin(
            blocks=[{"name": "good", "role": "r", "target": "x:y"}],
            name="good",
            distribution="good-plugin",
        )
        monkeypatch.setenv("ENHANCEKIT_DISABLE_PLUGINS", "good")
        done = cli("plugins")
        rows = {line.split()[0]: line for line in done.out.splitlines() if line}
        assert "orbit-plugin 1.0" in rows["orbit"]
        assert "failed" in rows["orbit"]
        assert "OSError: no licence" in rows["orbit"]
        assert "disabled" in rows["good"]
        assert "7 losses" in rows["builtin"]
        assert "--json" in done.out.splitlines()[-1]
        assert (done.code, done.err) == (0, "")


class TestEnhance:
    def test_identity_is_exact(self, cli, dark, out):
        done = cli("enhance", dark, "-o", out / "same.png", "-e", "identity")
        assert (done.code, done.err) == (0, "")
        np.testing.assert_array_equal(pixels(out / "same.png"), pixels(dark))

    def test_a_missing_input_is_named_first(self, cli, dark, out):
        done = cli("enhance", out / "nowhere", "-o", out / "nodir")
        assert_one_line(done, f"{out / 'nowhere'} does not exist")
        (out / "sub").mkdir()
        done = cli("enhance", out / "sub", dark, "-o", out)
        assert_one_line(done, f"{out / 'sub'} is a folder, which goes alone")

    @pytest.mark.parametrize("strength", [0, 0.5, 1])
    def test_strength(self, cli, dark, out, strength):
        given = ("--option", "gamma=0.5", "--strength", strength)
        cli("enhance", dark, "-o", out / "x.png", "-e", "builtin:gamma", *given)
        plain = pixels(dark) / 255
        wanted = plain + strength * (plain**0.5 - plain)
        difference = np.abs(pixels(out / "x.png") - wanted * 255)
        assert difference.max() <= 0.5001

    @pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp", ".PNG"])
    def test_the_suffix_decides_the_format(self, cli, dark, out, suffix):
        assert cli("enhance", dark, "-o", out / f"x{suffix}", "-e", "identity").code == 0
        np.testing.assert_array_equal(pixels(out / f"x{suffix}"), pixels(dark))

    @pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
    def test_jpeg(self, cli, tmp_path, out, suffix):
        source = save(tmp_path / "flat.png", np.full((16, 16, 3), 90, np.uint8))
        assert cli("enhance", source, "-o", out / f"x{suffix}", "-e", "identity").code == 0
        with Image.open(out / f"x{suffix}") as picture:
            assert picture.format == "JPEG"
        assert np.abs(pixels(out / f"x{suffix}").astype(int) - 90).max() <= 1

    def test_how_it_is_written(self, cli, dark, out):
        options = ("-e", "identity", "--overwrite", "always")
        sizes = []
        for more in ([], ["--quality", 40], ["--quality", 40, "--subsampling", "4:2:0"]):
            assert cli("enhance", dark, "-o", out / "x.jpg", *options, *more).code == 0
            sizes.append((out / "x.jpg").stat().st_size)
        assert sizes == sorted(sizes, reverse=True)
        assert len(set(sizes)) == 3

    def test_an_option_that_the_format_has_not(self, cli, dark, out):
        done = cli("enhance", dark, "-o", out / "x.jpg", "-e", "identity", "--lossless")
        assert_one_line(done, "JPEG cannot be written without loss")
        assert list(out.iterdir()) == []

    def test_sixteen_bits_in_colour(self, cli, tmp_path, out):
        deep = np.random.default_rng(0).integers(0, 65536, (9, 11, 3), np.uint16)
        DeepPicture(deep).save(tmp_path / "deep.tif")
        done = cli("enhance", tmp_path / "deep.tif", "-o", out / "x.png", "-e", "identity")
        assert (done.code, done.err) == (0, "")
        np.testing.assert_array_equal(np.asarray(decode(out / "x.png")), deep)
        done = cli("enhance", tmp_path / "deep.tif", "-o", out / "x.jpg", "-e", "identity")
        assert_one_line(done, "JPEG cannot hold a picture of mode RGB;16")

    def test_metadata(self, cli, tmp_path, out):
        exif = Image.Exif()
        exif[0x010F] = "Maker"
        source = tmp_path / "a.png"
        Image.fromarray(random_picture()).save(source, exif=exif)
        for choice in ("keep", "strip"):
            cli("enhance", source, "-o", out / f"{choice}.jpg", "-e", "gamma", "--metadata", choice)
        assert decode(out / "keep.jpg").getexif()[0x010F] == "Maker"
        assert len(decode(out / "strip.jpg").getexif()) == 0

    def test_too_many_pixels(self, cli, dark, out):
        done = cli("enhance", dark, "-o", out / "x.png", "-e", "gamma", "--max-pixels", 319)
        assert_one_line(done, dark, "20 x 16 are too many pixels; at most 319")
        assert cli("enhance", dark, "-o", out, "-e", "gamma", "--max-pixels", 320).code == 0

    def test_into_a_folder(self, cli, dark, out):
        assert cli("enhance", dark, "-o", out, "-e", "gamma").code == 0
        np.testing.assert_array_equal(pixels(out / dark.name), gamma_of(pixels(dark)))

    @pytest.mark.parametrize("size", [(8, 9), (1, 5)])
    def test_an_enlarging_enhancer_writes_twice_the_size(self, cli, tmp_path, out, size):
        source = save(tmp_path / "small.png", random_picture(*size))
        done = cli("enhance", source, "-o", out / "large.png", "-e", "spline-x2", "--json")
        assert (done.code, done.err) == (0, "")
        (row,) = json.loads(done.out)["pictures"]
        assert (row["height"], row["width"]) == (2 * size[0], 2 * size[1])
        wanted = enhancekit.load("spline-x2").enhance(pixels(source))
        assert wanted.shape == (2 * size[0], 2 * size[1], 3)
        np.testing.assert_array_equal(pixels(out / "large.png"), wanted)

    def test_an_enlarged_picture_is_not_mixed_with_the_one_that_came(self, cli, dark, out):
        given = ("-e", "spline-x2", "--strength", "0.5")
        done = cli("enhance", dark, "-o", out / "x.png", *given)
        assert_one_line(done, "builtin:spline-x2", "enlarges", "leave strength at 1")
        assert list(out.iterdir()) == []

    def test_several(self, cli, tmp_path, out):
        names = ["a.png", "b.png", "c.bmp"]
        sources = [save(tmp_path / n, random_picture(seed=i)) for i, n in enumerate(names)]
        done = cli("enhance", *sources, "-o", out, "-e", "gamma")
        assert (done.code, done.err) == (0, "")
        assert sorted(p.name for p in out.iterdir()) == names
        for source in sources:
            np.testing.assert_array_equal(pixels(out / source.name), gamma_of(pixels(source)))
            assert str(out / source.name) in done.out

    def test_json(self, cli, tmp_path, out):
        sources = [save(tmp_path / f"{i}.png", random_picture(8 + i, 9)) for i in range(2)]
        done = cli("enhance", *sources, "-o", out, "-e", "gamma", "--json")
        found = json.loads(done.out)
        assert found["enhancer"] == "builtin:gamma"
        for i, (row, source) in enumerate(zip(found["pictures"], sources, strict=True)):
            assert row["input"] == str(source)
            assert row["output"] == str(out / source.name)
            assert row["error"] is None
            assert (row["width"], row["height"]) == (9, 8 + i)
            assert row["seconds"] >= 0

    def test_existing_output_is_kept(self, cli, dark, out):
        target = out / "x.png"
        target.write_bytes(b"dear to me")
        done = cli("enhance", dark, "-o", target, "-e", "gamma")
        assert_one_line(done, target, "exists already", "--overwrite")
        assert target.read_bytes() == b"dear to me"

    def test_existing_output_is_replaced_if_asked(self, cli, dark, out):
        target = out / "x.png"
        target.write_bytes(b"old")
        done = cli("enhance", dark, "-o", target, "-e", "identity", "--overwrite", "always")
        assert done.code == 0
        np.testing.assert_array_equal(pixels(target), pixels(dark))

    def test_a_failure_leaves_the_old_output(self, cli, tmp_path, out):
        (tmp_path / "bad.png").write_bytes(b"bad")
        (out / "x.png").write_bytes(b"old")
        done = cli(
            "enhance", tmp_path / "bad.png", "-o", out / "x.png", "-e", "gamma",
            "--overwrite", "always",
        )  # fmt: skip
        assert_one_line(done, tmp_path / "bad.png")
        assert (out / "x.png").read_bytes() == b"old"

    @pytest.mark.parametrize("spelling", ["dark.png", "./dark.png", "out/../dark.png"])
    def test_the_input_is_never_overwritten(self, cli, dark, out, monkeypatch, spelling):
        monkeypatch.chdir(dark.parent)
        before = dark.read_bytes()
        done = cli("enhance", dark, "-o", spelling, "-e", "gamma", "--overwrite", "always")
        assert_one_line(done, dark, "overwrite itself")
        assert dark.read_bytes() == before

    def test_the_network(self, cli, dark, out, weights):
        done = cli("enhance", dark, "-o", out / "x.png", "-e", NET, "--weights", weights, *TINY)
        assert (done.code, done.err) == (0, "")
        enhancer = enhancekit.load(NET, weights=weights, width=4, counts=[1, 1], pack=1)
        np.testing.assert_array_equal(pixels(out / "x.png"), enhancer.enhance(pixels(dark)))
        assert (pixels(out / "x.png") != pixels(dark)).any()

    def test_a_control(self, cli, dark, out, weights):
        for name, value in (("low", 0.2), ("high", 0.8)):
            done = cli(
                "enhance", dark, "-o", out / f"{name}.png", "-e", NET, "--weights", weights,
                "--control", f"exposure={value}", *TINY,
            )  # fmt: skip
            assert done.code == 0, done.err
        low, high = (pixels(out / f"{n}.png").mean() / 255 for n in ("low", "high"))
        assert low == pytest.approx(0.2, abs=0.03)
        assert high == pytest.approx(0.8, abs=0.03)


class TestPartlyFailed:
    @pytest.fixture
    def mixed(self, tmp_path):
        (tmp_path / "bad.png").write_bytes(b"bad")
        good = [save(tmp_path / f"{n}.png", random_picture()) for n in ("a", "z")]
        return [good[0], tmp_path / "bad.png", tmp_path / "none.png", good[1]]

    def test_the_others_are_done(self, cli, mixed, out):
        done = cli("enhance", *mixed, "-o", out, "-e", "gamma")
        assert done.code == 3
        assert sorted(p.name for p in out.iterdir()) == ["a.png", "z.png"]
        bad, missing = done.err.splitlines()
        assert bad.startswith(f"error: {mixed[1]}: not a picture")
        assert missing.startswith(f"error: {mixed[2]} does not exist")
        assert len(done.out.splitlines()) == 2

    def test_json(self, cli, mixed, out):
        done = cli("enhance", *mixed, "-o", out, "-e", "gamma", "--json")
        assert done.code == 3
        rows = json.loads(done.out)["pictures"]
        assert [row["error"] is None for row in rows] == [True, False, False, True]
        assert [row["output"] is None for row in rows] == [False, True, True, False]
        assert str(mixed[1]) in rows[1]["error"]

    def test_all_failed(self, cli, mixed, out):
        done = cli("enhance", *mixed[1:3], "-o", out, "-e", "gamma")
        assert (done.code, done.out) == (1, "")
        assert len(done.err.splitlines()) == 2
        assert list(out.iterdir()) == []


def truncated(path, kind):
    Image.fromarray(random_picture(40, 40)).save(path, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD_PICTURES = {
    "text.jpg": (lambda p: p.write_text("dear diary\n" * 9), "not a picture"),
    "text.png": (lambda p: p.write_text("\n"), "not a picture"),
    "half.png": (lambda p: truncated(p, "PNG"), "truncated"),
    "half.jpg": (lambda p: truncated(p, "JPEG"), "truncated"),
    "half.webp": (lambda p: truncated(p, "WEBP"), ""),
    "header.png": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), ""),
    "empty.png": (lambda p: p.touch(), "empty"),
    "empty.jpg": (lambda p: p.touch(), "empty"),
    "folder.png": (lambda p: p.mkdir(), "is a folder, whose results need one"),
    "missing.png": (lambda p: None, "does not exist"),
    "file.txt/inside.png": (lambda p: p.parent.write_text("x"), "cannot be read: Not a directory"),
    "n" * 300 + ".png": (lambda p: None, "File name too long"),
}


class TestBadPicture:
    @pytest.mark.parametrize("name", BAD_PICTURES, ids=lambda n: n[:20])
    def test_one_line_and_no_output(self, cli, tmp_path, out, name):
        make, cause = BAD_PICTURES[name]
        make(tmp_path / name)
        done = cli("enhance", tmp_path / name, "-o", out / "x.png", "-e", "gamma")
        assert_one_line(done, tmp_path / name, cause)
        assert list(out.iterdir()) == []

    def test_what_is_not_taken_along_is_a_warning(self, cli, tmp_path, out):
        source = tmp_path / "moving.png"
        frames = [Image.new("L", (8, 8), shade) for shade in (0, 9)]
        frames[0].save(source, save_all=True, append_images=frames[1:])
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            done = cli("enhance", source, "-o", out / "x.png", "-e", "identity")
        assert done.code == 0
        assert done.err.startswith(f"warning: {source}: has several frames or pages, of which only")
        np.testing.assert_array_equal(pixels(out / "x.png"), np.zeros((8, 8)))

    def test_as_json_too(self, cli, tmp_path, out):
        done = cli("enhance", tmp_path / "none.png", "-o", out / "x.png", "-e", "gamma", "--json")
        assert done.code == 1
        (row,) = json.loads(done.out)["pictures"]
        assert row["output"] is None
        assert row["error"] in done.err


class TestBadTarget:
    @pytest.mark.parametrize(
        ("target", "cause"),
        [
            ("nowhere/x.png", "no folder"),
            ("x.docx", "cannot write .docx"),
            ("x.gif", "cannot write .gif"),
            ("dark.png/x.png", "no folder"),
            ("n" * 300 + ".png", "File name too long"),
        ],
        ids=lambda t: t[:20],
    )
    def test_refused(self, cli, dark, target, cause):
        before = sorted(dark.parent.rglob("*"))
        done = cli("enhance", dark, "-o", dark.parent / target, "-e", "gamma")
        assert_one_line(done, dark.parent / target, cause)
        assert sorted(dark.parent.rglob("*")) == before

    def test_refused_before_any_work(self, cli, dark, out):
        done = cli("enhance", dark, "-o", out / "x.docx", "-e", "no-such-enhancer")
        assert_one_line(done, "cannot write .docx")

    @pytest.mark.parametrize("inside", [False, True])
    def test_a_folder_of_that_name(self, cli, dark, out, inside):
        (out / dark.name).mkdir()
        done = cli("enhance", dark, "-o", out if inside else out / dark.name / "", "-e", "gamma")
        if inside:
            assert_one_line(done, out / dark.name, "is a folder")
        else:  # the folder itself is where the picture goes
            assert done.code == 0
            assert (out / dark.name / dark.name).is_file()

    @pytest.mark.skipif(os.geteuid() == 0, reason="everything is writable for root")
    def test_no_permission(self, cli, dark, out):
        out.chmod(0o500)
        done = cli("enhance", dark, "-o", out / "x.png", "-e", "gamma")
        assert_one_line(done, out / "x.png", "no permission")

    def test_a_folder_where_nothing_can_be_made(self, cli, dark):
        done = cli("enhance", dark, "-o", "/proc/x.png", "-e", "gamma")
        assert_one_line(done, "/proc/x.png")

    def test_a_format_that_would_lose_alpha(self, cli, tmp_path, out):
        source = save(tmp_path / "a.png", np.zeros((8, 8, 4), np.uint8))
        done = cli("enhance", source, "-o", out / "x.jpg", "-e", "gamma")
        assert_one_line(done, out / "x.jpg", "RGBA", ".png")
        assert list(out.iterdir()) == []

    def test_several_need_a_folder(self, cli, dark, out):
        other = save(out.parent / "other.png", random_picture())
        done = cli("enhance", dark, other, "-o", out / "x.png", "-e", "gamma")
        assert_one_line(done, out / "x.png", "is no folder")
        assert list(out.iterdir()) == []

    @pytest.mark.parametrize("slash", ["", "/"])
    def test_a_folder_for_one_is_made_too(self, cli, dark, out, slash):
        done = cli("enhance", dark, "-o", f"{out / 'folder'}{slash}", "-e", "identity")
        assert done.code == 0, done.err
        assert (out / "folder" / dark.name).is_file()

    def test_no_folder_for_one_that_is_not_there(self, cli, out):
        done = cli("enhance", out / "no.png", "-o", out / "folder", "-e", "identity")
        assert_one_line(done, "no.png does not exist")
        assert not (out / "folder").exists()

    def test_a_folder_for_several_is_made(self, cli, dark, out):
        other = save(out.parent / "other.png", random_picture())
        assert cli("enhance", dark, other, "-o", out / "new", "-e", "gamma").code == 0
        assert sorted(p.name for p in (out / "new").iterdir()) == ["dark.png", "other.png"]

    def test_two_of_one_name(self, cli, dark, out):
        (out.parent / "b").mkdir()
        other = save(out.parent / "b" / dark.name, random_picture())
        assert_one_line(cli("enhance", dark, other, "-o", out, "-e", "gamma"), "share a name")
        assert list(out.iterdir()) == []


class TestBadChoice:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["-e", "gama"], ["no enhancer is called 'gama'", "did you mean 'gamma'"]),
            (["-e", "nobody:gamma"], ["no enhancer is called 'nobody:gamma'", "gamma"]),
            (["-e", NET, "--device", "cuda:9"], ["device 'cuda:9'", "CUDA devices"]),
            (["-e", "gamma", "--device", "cuda:9"], ["device 'cuda:9'"]),
            (["-e", NET, "--device", "toaster"], ["'toaster' is no device"]),
            (["-e", "gamma", "--device", "toaster"], ["'toaster' is no device"]),
            (["-e", NET, "--device", "mps"], ["device 'mps' is not supported"]),
            (["-e", "mfnn-paper"], ["mfnn:mfnn-paper", "no trained weights", "enhancekit train"]),
            (["-e", "mfnn-report"], ["mfnn:mfnn-report", "no trained weights", "enhancekit train"]),
            (["-e", "gamma", "--option", "gama=2"], ["no option gama", "gamma"]),
            (["-e", "gamma", "--option", "gamma"], ["--option takes key=value, not 'gamma'"]),
            (["-e", "gamma", "--option", "tile=2"], ["--option tile", "--tile"]),
            (["-e", "gamma", "--option", "gamma=0"], ["gamma must be above 0"]),
            (["-e", "gamma", "--option", "gamma=bright"], ["builtin:gamma", "gamma"]),
            (["-e", "gamma", "--strength", "1.5"], ["strength", "1.5"]),
            (["-e", "gamma", "--strength", "-0.1"], ["strength", "-0.1"]),
            (["-e", "gamma", "--strength", "nan"], ["strength", "nan"]),
            (["-e", "gamma", "--control", "exposure=0.5"], ["no control 'exposure'"]),
            (["-e", "gamma", "--control", "exposure"], ["--control takes key=value"]),
            (
                ["-e", "gamma", "--control", "a=1", "--control", "a=2"],
                ["--control a is given twice"],
            ),
            (["-e", "gamma", "--control", "exposure=1", "--exposure", "1"], ["say the same"]),
            (["-e", "gamma", "--tile", "big"], ["--tile", "'big'"]),
            (["-e", "gamma", "--tile", "-3"], ["--tile", "'-3'"]),
            (["-e", "gamma", "--precision", "fp8"], ["precision 'fp8'"]),
            (["-e", "gamma", "--weights", "x.safetensors"], ["builtin:gamma", "no weights"]),
        ],
        ids=lambda v: " ".join(v) if v[0].startswith("-") else "",
    )
    def test_one_line_and_no_output(self, cli, dark, out, arguments, said):
        done = cli("enhance", dark, "-o", out / "x.png", *arguments)
        assert_one_line(done, *said)
        assert list(out.iterdir()) == []

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--precision", "fp8"], ["precision 'fp8'"]),
            (["--tile", "0"], ["tile", "0"]),
            (["--control", "exposure=2"], ["exposure", "0.95", "2"]),
            (["--control", "exposure=bright"], ["exposure", "bright"]),
            (["--control", "contrast=1"], ["no control 'contrast'", "exposure"]),
        ],
        ids=lambda v: " ".join(v) if v[0].startswith("-") else "",
    )
    def test_of_a_network(self, cli, dark, out, weights, arguments, said):
        given = ("-e", NET, "--weights", weights, *TINY, *arguments)
        assert_one_line(cli("enhance", dark, "-o", out / "x.png", *given), *said)
        assert list(out.iterdir()) == []

    def test_two_plugins_offering_a_default(self, cli, dark, out, make_plugin):
        for name in ("one", "two"):
            make_plugin(
                enhancers=[{"name": "best", "task": "t", "target": "x:y", "default": True}],
                name=name,
                distribution=f"d-{name}",
            )
        done = cli("enhance", dark, "-o", out / "x.png")
        assert_one_line(done, "--enhancer", "one:best", "two:best")

    def test_nobody_offering_a_default(self, cli, dark, out, fresh_host, monkeypatch):
        monkeypatch.setenv("ENHANCEKIT_PLUGINS", "builtin")
        reset()
        assert_one_line(cli("enhance", dark, "-o", out / "x.png"), "--enhancer", "gamma")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a tiny untrained network, as training would write them."""
    module = enhancekit.load(NET, pretrained=False, width=4, counts=[1, 1], pack=1).module
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    config = {"width": 4, "counts": [1, 1], "context": "mfnn:exposure"}
    card = Card(name=NET, backbone="mfnn:mfnn", config=config, license="of a test")
    save_weights(path, module.state_dict(), card)
    return path


def with_header(path, change):
    """Rewrite the header of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def with_card(path, **changes):
    def change(header):
        card = json.loads(header["__metadata__"]["enhancekit"])
        header["__metadata__"]["enhancekit"] = json.dumps({**card, **changes})

    with_header(path, change)


def with_state(path, change):
    """Rewrite the tensors of a safetensors file, keeping its card."""
    state = load_file(path)
    change(state)
    save_weights(path, state, read_card(path))


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


BAD_WEIGHTS = {
    "missing": (lambda p: p.unlink(), "does not exist"),
    "empty": (lambda p: p.write_bytes(b""), "safetensors file"),
    "text": (lambda p: p.write_text("weights\n" * 99), "safetensors file"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "safetensors file"),
    "seven bytes": (lambda p: cut(p, 7), "safetensors file"),
    "half a header": (lambda p: cut(p, 200), "safetensors file"),
    "half": (lambda p: cut(p, p.stat().st_size // 2), "damaged"),
    "last byte lost": (lambda p: cut(p, p.stat().st_size - 1), "damaged"),
    "bytes too many": (lambda p: p.write_bytes(p.read_bytes() + b"12345678"), "damaged"),
    "huge header": (
        lambda p: p.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
        "safetensors file",
    ),
    "header is a list": (
        lambda p: p.write_bytes(struct.pack("<Q", 2) + b"[]"),
        "safetensors file",
    ),
    "header is no UTF-8": (
        lambda p: p.write_bytes(struct.pack("<Q", 4) + b"{\xff\xfe}"),
        "safetensors file",
    ),
    "metadata is a list": (lambda p: with_header(p, lambda h: h.update(__metadata__=[])), ""),
    "no metadata": (lambda p: with_header(p, lambda h: h.pop("__metadata__")), "no enhancekit mod"),
    "card is no JSON": (
        lambda p: with_header(p, lambda h: h["__metadata__"].update(enhancekit="{")),
        "no enhancekit model card",
    ),
    "card is a list": (
        lambda p: with_header(p, lambda h: h["__metadata__"].update(enhancekit="[]")),
        "no enhancekit model card",
    ),
    "card's config is a number": (lambda p: with_card(p, config=3), ""),
    "card with a key too many": (lambda p: with_card(p, colour="red"), "colour"),
    "of another backbone": (lambda p: with_card(p, backbone="other:net"), "other:net"),
    "of another width": (
        lambda p: with_card(p, config={"width": 8, "counts": [1, 1], "context": "mfnn:exposure"}),
        "width: 8 there, 4 asked for",
    ),
    "a hole": (lambda p: with_header(p, lambda h: h.pop("head.final.bias")), "damaged"),
    "a tensor lost": (lambda p: with_state(p, lambda s: s.pop("head.final.bias")), "damaged"),
    "a tensor too many": (lambda p: with_state(p, lambda s: s.update(x=torch.ones(1))), "damaged"),
    "a tensor of another shape": (
        lambda p: with_state(p, lambda s: s.update({"head.final.bias": torch.ones(4)})),
        "damaged",
    ),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "Is a directory"),
}


class TestBadWeights:
    @pytest.mark.parametrize("kind", BAD_WEIGHTS)
    def test_one_line_and_no_output(self, cli, dark, out, weights, tmp_path, kind):
        damage, cause = BAD_WEIGHTS[kind]
        path = tmp_path / "mine.safetensors"
        path.write_bytes(weights.read_bytes())
        damage(path)
        done = cli("enhance", dark, "-o", out / "x.png", "-e", NET, "--weights", path, *TINY)
        assert_one_line(done, "mine.safetensors", cause)
        assert list(out.iterdir()) == []

    def test_not_finite(self, cli, dark, out, weights, tmp_path):
        path = tmp_path / "mine.safetensors"
        path.write_bytes(weights.read_bytes())
        with_state(path, lambda s: s.update({k: v * float("nan") for k, v in s.items()}))
        done = cli("enhance", dark, "-o", out / "x.png", "-e", NET, "--weights", path, *TINY)
        assert_one_line(done, f"enhancer mfnn:{NET}", "NaN")
        assert list(out.iterdir()) == []

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ([], ["width: 4 there, 32 asked for", "counts"]),
            (["--option", "width=4"], ["counts: [1, 1] there, [4, 4, 4] asked for"]),
            ([*TINY, "--option", "norm=true"], ["norm: 'unset' there, True asked for"]),
        ],
        ids=["none", "half of them", "one more"],
    )
    def test_options_that_do_not_match(self, cli, dark, out, weights, options, said):
        done = cli("enhance", dark, "-o", out / "x.png", "-e", NET, "--weights", weights, *options)
        assert_one_line(done, "tiny.safetensors", *said, "enhancekit train")
        assert list(out.iterdir()) == []

    def test_an_option_the_network_has_not(self, cli, dark, out, weights):
        given = ("--weights", weights, *TINY, "--option", "depth=3")
        done = cli("enhance", dark, "-o", out / "x.png", "-e", NET, *given)
        assert_one_line(done, "backbone mfnn:mfnn", "no option depth", "width")


class TestEvaluate:
    METRICS = ("psnr", "ssim", "mae", "delta_e")

    @pytest.fixture
    def expected(self, pairs):
        rows = {}
        for path in sorted((pairs / "low").iterdir()):
            ours = gamma_of(pixels(path)) / 255
            true = pixels(pairs / "high" / path.name) / 255
            rows[path.stem] = {
                "psnr": peak_signal_noise_ratio(true, ours, data_range=1),
                "ssim": structural_similarity(
                    true, ours, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5,
                    use_sample_covariance=False,
                ),
                "mae": np.abs(true - ours).mean(),
                "delta_e": deltaE_ciede2000(rgb2lab(true), rgb2lab(ours)).mean(),
            }  # fmt: skip
        return rows

    def test_equals_scikit_image(self, cli, pairs, expected):
        chosen = [text for name in self.METRICS for text in ("--metric", name)]
        done = cli("evaluate", "gamma", "--data", pairs, *chosen, "--json")
        assert (done.code, done.err) == (0, "")
        (found,) = json.loads(done.out)
        assert (found["enhancer"], found["pairs"]) == ("builtin:gamma", 6)
        assert sorted(row["picture"] for row in found["pictures"]) == sorted(expected)
        for row in found["pictures"]:
            for name in self.METRICS:
                assert row[name] == pytest.approx(expected[row["picture"]][name], rel=1e-5)
        for name in self.METRICS:
            values = {stem: row[name] for stem, row in expected.items()}
            metric = found["metrics"][name]
            better = enhancekit.metrics.get(name).spec.higher_is_better
            worst = (min if better else max)(values, key=values.get)
            assert metric["mean"] == pytest.approx(np.mean(list(values.values())), rel=1e-5)
            assert (metric["worst_picture"], metric["higher_is_better"]) == (worst, better)
            assert metric["worst"] == pytest.approx(values[worst], rel=1e-5)
            assert metric["protocol"]

    def test_table_names_the_protocol(self, cli, pairs, expected):
        done = cli("evaluate", "gamma", "--data", pairs)
        assert (done.code, done.err) == (0, "")
        for text in ("builtin:gamma", "6 pictures", "RGB, whole pictures, outputs rounded"):
            assert text in done.out
        for name, digits in (("psnr", 2), ("ssim", 4)):
            mean = np.mean([row[name] for row in expected.values()])
            assert f" {mean:.{digits}f} " in done.out

    def test_equal_pictures_are_infinitely_good(self, cli, tmp_path):
        for side in ("input", "target"):
            (tmp_path / side).mkdir()
            save(tmp_path / side / "a.png", random_picture())
        (found,) = json.loads(cli("evaluate", "identity", "--data", tmp_path, "--json").out)
        assert found["metrics"]["psnr"]["mean"] == "inf"
        assert found["metrics"]["ssim"]["mean"] == pytest.approx(1)

    def test_held_out_scenes_only(self, cli, pairs):
        given = ("--split", "held-out", "--held-out", 0.5, "--scene", r"^(\d)", "--json")
        (found,) = json.loads(cli("evaluate", "identity", "--data", pairs, *given).out)
        wanted = [str(i) for i in range(6) if is_held_out(str(i), 0.5)]
        assert [row["picture"] for row in found["pictures"]] == wanted
        assert 0 < len(wanted) < 6

    def test_controls(self, cli, pairs):
        brightness = []
        for exposure in ("0.2", "0.8"):
            given = ("--metric", "mae", "--control", f"exposure={exposure}", "--json")
            (found,) = json.loads(cli("evaluate", "mfnn-lite", "--data", pairs, *given).out)
            brightness.append(found["metrics"]["mae"]["mean"])
            assert found["controls"] == {"exposure": float(exposure)}
        assert brightness[0] != brightness[1]

    @pytest.mark.parametrize("make", [(), ("--make", "gaussian:25")], ids=["pairs", "made"])
    def test_mode(self, cli, pairs, make):
        folder = pairs / "high" if make else pairs
        given = ("--data", folder, *make, "--metric", "psnr")
        found = []
        for mode in ("exact", "best"):
            done = cli("evaluate", "mfnn-denoise-lite", *given, "--mode", mode, "--json")
            found += json.loads(done.out)
        assert [one["mode"] for one in found] == ["exact", "best"]
        assert [" mode=best" in one["label"] for one in found] == [False, True]
        exact, best = ([row["psnr"] for row in one["pictures"]] for one in found)
        assert max(abs(a - b) for a, b in zip(exact, best, strict=True)) > 1e-3
        done = cli("evaluate", "gamma", *given, "--mode", "best")
        assert_one_line(done, "builtin:gamma", "is a function")

    @pytest.mark.parametrize("make", [(), ("--make", "gaussian:25")], ids=["pairs", "made"])
    def test_unknown_controls(self, cli, pairs, make):
        folder = pairs / "high" if make else pairs
        done = cli("evaluate", "gamma", "--data", folder, *make, "--control", "sigma=3")
        assert_one_line(done, "gamma", "sigma")
        done = cli("evaluate", "gamma", "clahe", "--data", pairs, "--control", "sigma=3")
        assert_one_line(done, "--control belong to one enhancer")

    def test_inputs_made_of_references(self, cli, tmp_path):
        flat = np.full((64, 64, 3), 128, np.uint8)
        for name in "ab":
            save(tmp_path / f"{name}.png", flat)
        given = ("--data", tmp_path, "--make", "gaussian:25", "--json")
        done = cli("evaluate", "identity", "nl-means", *given)
        assert (done.code, done.err) == (0, "")
        plain, better = json.loads(done.out)
        assert (plain["pairs"], plain["scenes"]) == (2, 2)
        first, second = (row["psnr"] for row in plain["pictures"])
        wanted = pytest.approx(20 * np.log10(255 / 25), abs=0.2)
        assert (first, second) == (wanted, wanted)
        assert first != second  # each name has noise of its own
        assert better["metrics"]["psnr"]["mean"] > plain["metrics"]["psnr"]["mean"] + 6
        (again, _) = json.loads(cli("evaluate", "identity", "nl-means", *given).out)
        assert again["pictures"] == plain["pictures"]

    def test_enlarging_of_references_made_smaller(self, cli, pairs, tmp_path):
        save(tmp_path / "odd.png", pixels(pairs / "high" / "0.png")[:23])
        given = ("--data", tmp_path, "--make", "bicubic-x2", "--json")
        done = cli("evaluate", "spline-x2", *given)
        assert (done.code, done.err) == (0, "")
        (found,) = json.loads(done.out)
        assert 5 < found["metrics"]["psnr"]["mean"] < 60
        done = cli("evaluate", "identity", *given)
        assert_one_line(done, "'odd'", "the output is 12x11, the reference is 24x22")

    def test_held_out_references_only(self, cli, pairs):
        given = ("--make", "camera", "--split", "held-out", "--held-out", 0.5, "--json")
        (found,) = json.loads(cli("evaluate", "identity", "--data", pairs / "high", *given).out)
        wanted = [str(i) for i in range(6) if is_held_out(str(i), 0.5)]
        assert [row["picture"] for row in found["pictures"]] == wanted

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--make", "snow"], ["'snow'", "camera, gaussian"]),
            (["--make", "gaussian:much"], ["'gaussian:much'", "no number"]),
            (["--make", "gaussian:-5"], ["gaussian:-5", "0.01 to 255"]),
            (["--make", "camera:5"], ["camera:5", "only gaussian and poisson"]),
            (["--make", "camera", "--scene", "(x)"], ["--scene", "--make"]),
        ],
        ids=" ".join,
    )
    def test_what_cannot_be_made(self, cli, pairs, arguments, said):
        done = cli("evaluate", "identity", "--data", pairs / "high", *arguments)
        assert_one_line(done, *said)

    @pytest.fixture
    def folder(self, tmp_path):
        for side in ("low", "high"):
            (tmp_path / side).mkdir()
            for stem in "ab":
                save(tmp_path / side / f"{stem}.png", random_picture())
        return tmp_path

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda d: save(d / "high/b.png", random_picture(16, 21)), ["'b'", "20x16", "21x16"]),
            (lambda d: (d / "high/b.png").unlink(), ["1 pictures have no partner", "high", "b"]),
            (lambda d: (d / "low/a.png").unlink(), ["1 pictures have no partner", "low", "a"]),
            (lambda d: (d / "low/a.png").write_bytes(b"x"), ["low/a.png", "not a picture"]),
            (lambda d: (d / "high/b.png").write_bytes(b""), ["high/b.png", "empty"]),
            (lambda d: save(d / "low/a.bmp", random_picture()), ["a.bmp", "a.png", "rename"]),
            (lambda d: (d / "high").rename(d / "good"), ["neither low/ and high/"]),
            (lambda d: [p.unlink() for p in d.glob("*/*")], ["holds no pictures"]),
            (lambda d: [save(p, random_picture(8, 8)) for p in d.glob("*/*")], ["11x11"]),
        ],
        ids=[
            "two sizes", "no target", "no input", "no picture", "empty", "two of one stem",
            "no folder", "no pictures", "too small",
        ],
    )  # fmt: skip
    def test_bad_data(self, cli, folder, spoil, said):
        spoil(folder)
        assert_one_line(cli("evaluate", "gamma", "--data", folder), *said)

    def test_data_check_lists_the_unpaired_beside_the_broken(self, cli, folder):
        (folder / "high/b.png").unlink()
        (folder / "low/a.png").write_bytes(b"x")
        done = cli("data", "check", folder)
        assert done.code == 1
        assert f"b has no partner in {folder / 'high'}" in done.out
        assert "low/a.png" in done.out

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["gama"], ["'gama'", "'gamma'"]),
            (["gamma", "--protocol", "rbg"], ["no protocol is called 'rbg'", "rgb"]),
            (["gamma", "clahe", "--option", "gamma=1"], ["--option", "one enhancer"]),
            (["gamma", "--option", "device=cpu"], ["--option device", "--device"]),
            (["gamma", "--metric", "pnsr"], ["no metric is called 'pnsr'", "'psnr'"]),
            (["gamma", "--scene", "(x)"], ["'(x)' does not match"]),
            (["gamma", "--scene", "("], ["scene pattern '('"]),
            (["gamma", "--option", "x=1"], ["no option x"]),
            (["gamma", "--split", "held-out", "--held-out", "0"], ["no scene", "held out"]),
            (["mfnn-paper"], ["no trained weights"]),
            ([NET, "--device", "cuda:9"], ["'cuda:9'"]),
        ],
        ids=" ".join,
    )
    def test_bad_choice(self, cli, pairs, arguments, said):
        assert_one_line(cli("evaluate", *arguments, "--data", pairs), *said)

    def test_a_broken_metric_is_blamed_by_name(self, cli, pairs, make_plugin):
        make_plugin(
            metrics=[
                {"name": "bad", "target": "{code}:bad", "higher_is_better": True, "protocol": "p"}
            ],
            code="def bad(output, reference):\n    return 1 / 0\n",
        )
        done = cli("evaluate", "gamma", "--data", pairs, "--metric", "bad")
        assert_one_line(done, "metric orbit:bad (orbit-plugin 1.0)", "ZeroDivisionError")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_recipe):
    """Return the folder of a tiny training run, and how the process that ran it ended."""
    out = tmp_path_factory.mktemp("trained") / "run"
    changes = [text for change in tiny_recipe(out) for text in ("--set", change)]
    return out, shell("train", RECIPE, *changes, "--device", "cpu")


class TestTrain:
    def test_says_what_it_does(self, trained):
        out, done = trained
        assert (done.returncode, done.stderr) == (0, "")
        held = sum(is_held_out(str(i), 0.5) for i in range(6))
        assert f"{6 - held} training p" in done.stdout
        assert f"{held} held out of low" in done.stdout
        assert "step 3: loss " in done.stdout
        assert done.stdout.splitlines()[-1] == f"weights: {out / 'best.safetensors'}"

    def test_card(self, trained):
        card = read_card(trained[0] / "best.safetensors")
        assert (card.name, card.backbone) == (NET, "mfnn:mfnn")
        assert (card.config["width"], card.config["counts"]) == (4, [1, 1])
        assert card.training.startswith("3 steps")
        assert "charbonnier + 0.15*ssim" in card.training
        assert card.figures

    def test_weights_can_be_used(self, cli, trained, dark, out):
        path = trained[0] / "best.safetensors"
        done = cli("enhance", dark, "-o", out / "x.png", "-e", NET, "--weights", path, *TINY)
        assert (done.code, done.err) == (0, "")
        assert pixels(out / "x.png").shape == pixels(dark).shape

    def test_weights_of_other_options_cannot(self, cli, trained, dark, out):
        path = trained[0] / "best.safetensors"
        given = ("--weights", path, "--option", "width=6", "--option", "counts=[1,1]")
        done = cli("enhance", dark, "-o", out / "x.png", "-e", NET, *given)
        assert_one_line(done, "best.safetensors", "width: 4 there, 6 asked for")
        assert list(out.iterdir()) == []

    def test_weights_can_be_evaluated(self, cli, trained, pairs):
        path = trained[0] / "best.safetensors"
        given = ("--weights", path, *TINY, "--split", "held-out", "--held-out", "0.5")
        done = cli("evaluate", NET, "--data", pairs, "--scene", r"^(\d)", *given, "--json")
        (found,) = json.loads(done.out)
        (stated,) = read_card(path).figures.values()
        assert found["metrics"]["psnr"]["mean"] == pytest.approx(stated["low"], abs=0.05)

    def train(self, cli, changes, *more):
        return cli("train", RECIPE, *(t for c in changes for t in ("--set", c)), *more)

    def test_a_run_is_not_overwritten(self, cli, trained, tiny_recipe):
        done = self.train(cli, tiny_recipe(trained[0]))
        assert_one_line(done, trained[0], "already holds a run", "--resume")

    def test_resuming_a_finished_run_changes_nothing(self, cli, trained, tiny_recipe):
        before = (trained[0] / "best.safetensors").read_bytes()
        done = self.train(cli, tiny_recipe(trained[0]), "--resume")
        assert (done.code, done.err) == (0, "")
        assert "step" not in done.out
        assert (trained[0] / "best.safetensors").read_bytes() == before

    def test_resuming_by_another_recipe_is_refused(self, cli, trained, tiny_recipe):
        done = self.train(cli, tiny_recipe(trained[0], "run.batch=2"), "--resume")
        assert_one_line(done, "run.batch (1 then, 2 now)")

    def test_without_anything_held_out(self, cli, tmp_path, tiny_recipe, dark, out):
        done = self.train(cli, tiny_recipe(tmp_path / "run", "data.held_out=0", "run.steps=1"))
        assert (done.code, done.err) == (0, "")
        path = done.out.splitlines()[-1].removeprefix("weights: ")
        done = cli("enhance", dark, "-o", out / "x.png", "-e", NET, "--weights", path, *TINY)
        assert (done.code, done.err) == (0, "")

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (["run.steps=0"], ["run.steps"]),
            (["run.stpes=5"], ["run.stpes", "unknown key"]),
            (["optim.lr=fast"], ["optim.lr"]),
            (["data.held_out=1.5"], ["data.held_out"]),
            (["nonsense"], ["'nonsense'", "section.key=value"]),
            (["loss=charbonier"], ["no loss is called 'charbonier'", "'charbonnier'"]),
            (["loss=2*", "run.steps=1"], ["2*"]),
            (["model.enhancer=mfnn-light"], ["no enhancer is called 'mfnn-light'", f"'{NET}'"]),
            (["model.enhancer=gamma"], ["builtin:gamma", "nothing to train"]),
            (["model.options={width = 5}"], ["width must be an even number", "5"]),
            (["model.options={block = 'acme:fsat'}"], ["no block is called 'acme:fsat'"]),
            (["data.root='/nowhere'"], ["/nowhere/low is not a folder"]),
            (["data.crop=400"], ["24x24", "400"]),
            (["data.held_out=0.999"], ["no training p", "held_out"]),
            (["model.weights='no.safetensors'"], ["no.safetensors", "does not exist"]),
            (["model.only='nothing'"], ["'nothing' matches no parameter"]),
        ],
        ids=" ".join,
    )
    def test_bad_recipe(self, cli, tmp_path, tiny_recipe, changes, said):
        done = self.train(cli, tiny_recipe(tmp_path / "run", *changes))
        assert_one_line(done, *said)
        assert not (tmp_path / "run").exists()

    def test_impossible_device(self, cli, tmp_path, tiny_recipe):
        done = self.train(cli, tiny_recipe(tmp_path / "run"), "--device", "cuda:9")
        assert_one_line(done, "'cuda:9'")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "cannot be read"),
            ("[data", "no valid TOML"),
            ("loss = 'l1'", "data: "),
            ("\0", "no valid TOML"),
        ],
    )
    def test_bad_file(self, cli, tmp_path, text, said):
        path = tmp_path / "recipe.toml"
        if text is not None:
            path.write_text(text)
        assert_one_line(cli("train", path), path, said)

    def test_a_recipe_of_no_package(self, cli):
        assert_one_line(cli("train", "no_such_package:x.toml"), "no_such_package:x.toml")
