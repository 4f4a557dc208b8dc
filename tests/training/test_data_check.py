"""``data check``: what a folder of pairs holds, and what is wrong with it, by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from enhancekit.training.data_check import DataReport, check_pairs
from enhancekit.training.evaluation import chosen_pairs
from enhancekit.training.pairs import is_held_out

SCENE = r"^([a-z]+)"
HELD, TRAINED = "b", "a"  # at a share of a half


def save(root, name, high, low=None):
    for side, array in (("low", high // 4 if low is None else low), ("high", high)):
        (root / side).mkdir(exist_ok=True, parents=True)
        Image.fromarray(array).save(root / side / f"{name}.png")


def picture(seed, height=40, width=48):
    """A smooth view of its own."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def check(root, **options):
    return check_pairs(chosen_pairs(root, scene=SCENE), 0.5, **options)


def test_the_scenes_of_this_test():
    assert [is_held_out(s, 0.5) for s in (HELD, TRAINED)] == [True, False]


class TestSound:
    @pytest.fixture
    def root(self, tmp_path):
        for seed, name in enumerate(("a1", "a2", "b1", "b2", "b3")):
            save(tmp_path, name, picture(seed))
        save(tmp_path, "c1", picture(9, 30, 20))
        return tmp_path

    def test_what_it_holds(self, root):
        advanced = []
        report = check(root, advance=lambda: advanced.append(1))
        assert len(advanced) == report.pairs == 6
        assert report.scenes == 3
        assert report.held_out == 3 + is_held_out("c", 0.5)
        assert list(report.sizes.items()) == [("48x40", 5), ("20x30", 1)]
        assert report.sound
        assert (report.broken, report.duplicates, report.leaks) == ([], [], [])

    def test_brightness(self, root):
        report = check(root)
        for side, found in (("low", report.input_mean), ("high", report.target_mean)):
            means = []
            for path in (root / side).iterdir():
                with Image.open(path) as opened:
                    means.append(np.asarray(opened).mean() / 255)
            wanted = (min(means), float(np.median(means)), max(means))
            assert found == pytest.approx(wanted, abs=1e-6)

    def test_the_input_may_show_what_another_reference_shows(self, root):
        save(root, "a3", picture(20), low=picture(0))
        assert check(root).sound


class TestDuplicates:
    def test_equal_references_by_name(self, tmp_path):
        for name, seed in (("a1", 1), ("a2", 2), ("a3", 1), ("a4", 3), ("a5", 2), ("a6", 1)):
            save(tmp_path, name, picture(seed), low=picture(ord(name[1])))
        assert check(tmp_path).duplicates == [["a1", "a3", "a6"], ["a2", "a5"]]

    @pytest.mark.parametrize("size", [(40, 48), (240, 320)])
    def test_pixels_are_compared_all(self, tmp_path, size):
        high = picture(1, *size).copy()
        high[5, 10] = (10, 20, 30)
        swapped = high.copy()
        swapped[5, 10] = (30, 20, 10)  # as bright
        save(tmp_path, "a1", high)
        save(tmp_path, "a2", swapped)
        assert check(tmp_path).duplicates == []


class TestLeaks:
    @pytest.mark.parametrize(
        "alike",
        [
            lambda high: high,
            lambda high: (high * 0.6).astype(np.uint8),  # another exposure
            lambda high: high ^ (np.arange(high.size) % 8).astype(np.uint8).reshape(high.shape),
        ],
        ids=["equal", "exposure", "noise"],
    )
    def test_one_view_on_both_sides_of_the_split(self, tmp_path, alike):
        for seed, name in enumerate(("a1", "a2", "b1")):
            save(tmp_path, name, picture(seed))
        save(tmp_path, "b2", alike(picture(0)))
        report = check(tmp_path)
        assert report.leaks == [("b2", "a1")]
        assert not report.sound

    def test_one_view_on_one_side_is_none(self, tmp_path):
        for name, seed in (("a1", 1), ("a2", 1), ("b1", 2), ("b2", 2)):
            save(tmp_path, name, picture(seed))
        report = check(tmp_path)
        assert report.leaks == []
        assert report.duplicates == [["a1", "a2"], ["b1", "b2"]]

    def test_flat_pictures_show_nothing(self, tmp_path):
        for name, grey in (("a1", 10), ("b1", 200)):
            save(tmp_path, name, np.full((40, 48, 3), grey, np.uint8))
        assert check(tmp_path).leaks == []


class TestBroken:
    @pytest.fixture
    def root(self, tmp_path):
        for seed, name in enumerate(("a1", "a2", "a3", "b1")):
            save(tmp_path, name, picture(seed))
        (tmp_path / "high" / "a2.png").write_bytes(b"no picture")
        whole = (tmp_path / "low" / "a3.png").read_bytes()
        (tmp_path / "low" / "a3.png").write_bytes(whole[:200])
        save(tmp_path, "b1", picture(7), low=picture(7, 48, 40))
        save(tmp_path, "b2", picture(8))
        return tmp_path

    def test_each_is_named_and_the_others_are_counted(self, root):
        report = check(root)
        assert [line.split("'")[1] for line in report.broken] == ["a2", "a3", "b1"]
        assert str(root / "high" / "a2.png") in report.broken[0]
        assert str(root / "low" / "a3.png") in report.broken[1]
        assert "has two sizes" in report.broken[2]
        assert "b1.png is 40x48" in report.broken[2]
        assert (report.pairs, report.scenes, report.held_out) == (2, 2, 1)
        assert report.sizes == {"48x40": 2}
        assert not report.sound

    def test_all(self, root):
        for side in ("low", "high"):
            for path in (root / side).iterdir():
                path.write_bytes(b"")
        report = check(root)
        assert len(report.broken) == 5
        assert (report.pairs, report.sizes, report.input_mean) == (0, {}, (0.0, 0.0, 0.0))

    def test_nothing_to_check(self):
        assert check_pairs([], 0.5) == DataReport()

    @pytest.mark.parametrize("given", [(), ("--json",)])
    def test_the_exit_code(self, root, cli, given):
        done = cli("data", "check", root, "--scene", SCENE, *given)
        assert (done.code, done.err) == (1, "")
        assert "pair 'b1' has two sizes" in done.out.replace("\n", " ")
        if given:
            assert len(json.loads(done.out)["broken"]) == 3


class TestCommandLine:
    @pytest.fixture
    def root(self, tmp_path):
        for name, seed in (("a1", 1), ("a2", 1), ("b1", 2), ("b2", 1)):
            save(tmp_path, name, picture(seed))
        return tmp_path

    def test_table(self, root, cli):
        done = cli("data", "check", root, "--scene", SCENE, "--held-out", 0.5)
        assert (done.code, done.err) == (0, "")
        lines = [" ".join(line.split()) for line in done.out.splitlines()]
        assert "pairs 4 of 2 scenes, 2 held out" in lines
        assert "sizes 48x40 (4)" in lines
        assert "duplicates 1 groups of equal references" in lines
        assert "leaks 2 held-out and training pairs show one view" in lines
        assert "broken 0" in lines
        low, high = (next(x for x in lines if x.startswith(s)) for s in ("inputs", "references"))
        means = check(root).target_mean
        assert f"from {means[0]:.3f} to {means[2]:.3f}, median {means[1]:.3f}" in high
        assert low != high
        assert "equal references: a1, a2, b2" in lines
        assert lines.count("leak: b2 (held out) and a1") == 1
        assert lines.count("leak: b2 (held out) and a2") == 1

    def test_json(self, root, cli):
        done = cli("data", "check", root, "--scene", SCENE, "--held-out", 0.5, "--json")
        assert (done.code, done.err) == (0, "")
        found = json.loads(done.out)
        assert found["pairs"] == 4
        assert found["duplicates"] == [["a1", "a2", "b2"]]
        assert found["leaks"] == [["b2", "a1"], ["b2", "a2"]]
        assert found["sizes"] == {"48x40": 4}

    def test_long_lists_are_cut(self, tmp_path, cli):
        for i in range(13):
            save(tmp_path, f"a{i}", picture(i), low=picture(i, 8, 8))
        done = cli("data", "check", tmp_path, "--scene", SCENE)
        assert done.code == 1
        assert done.out.count("has two sizes") == 10
        assert "... and 3 more; --json lists all" in done.out

    @pytest.mark.parametrize("missing", ["high", "."])
    def test_what_cannot_be_paired(self, root, cli, missing):
        path = root / missing
        path.rename(path.with_name("elsewhere") if missing != "." else root.parent / "elsewhere")
        done = cli("data", "check", root)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
