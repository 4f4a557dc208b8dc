"""Pairs of folders, scenes, and which scenes are held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enhancekit.errors import DataError
from enhancekit.training.pairs import find_pairs, is_held_out, pictures_in, sound_pairs
from enhancekit.training.recipe import Data, Source
from enhancekit.training.sources import split_pairs

HELD_OF_60 = [7, 23, 25, 39, 50, 56]
"""Of the scenes s0 to s59, at a share of a tenth."""


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(path)
    return path


def folders(root, inputs, targets):
    """Make pictures whose brightness is their place in the list."""
    for side, names in (("low", inputs), ("high", targets)):
        (root / side).mkdir(parents=True)
        for value, name in enumerate(names):
            save(root / side / name, value)
    return root / "low", root / "high"


class TestPictures:
    def test_any_extension_and_nothing_else(self, tmp_path):
        names = ["a.png", "b.JPG", "c.jpeg", "d.tif", "e.tiff", "f.webp", "g.bmp"]
        for name in names:
            save(tmp_path / name)
        for other in ("notes.txt", "LICENSE", "video.mp4", "h.gif", "i.png.part"):
            (tmp_path / other).write_bytes(b"x")
        found = pictures_in(tmp_path)
        assert [p.name for p in found.values()] == names
        assert list(found) == list("abcdefg")

    def test_in_natural_order(self, tmp_path):
        for name in ("10.png", "9.png", "1.png", "2b.png", "2a.png", "a10.png", "a9.png"):
            save(tmp_path / name)
        assert list(pictures_in(tmp_path)) == ["1", "2a", "2b", "9", "10", "a9", "a10"]

    @pytest.mark.parametrize("stem", ["x1²3", "²", "٣", "1", "a b", "ü-1"])
    def test_any_name(self, tmp_path, stem):
        save(tmp_path / f"{stem}.png")
        save(tmp_path / "7z.png")
        assert set(pictures_in(tmp_path)) == {stem, "7z"}

    def test_a_folder_named_like_a_picture_is_none(self, tmp_path):
        save(tmp_path / "a.png")
        (tmp_path / "b.png").mkdir()
        assert list(pictures_in(tmp_path)) == ["a"]

    def test_what_macos_puts_beside_pictures_is_none(self, tmp_path):
        for name in ("a.png", "._a.png"):
            (tmp_path / name).touch()
        assert list(pictures_in(tmp_path)) == ["a"]

    def test_missing_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"nowhere is not a folder"):
            pictures_in(tmp_path / "nowhere")

    def test_a_file_is_no_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"a\.png is not a folder"):
            pictures_in(save(tmp_path / "a.png"))

    def test_empty_folder(self, tmp_path):
        (tmp_path / "notes.txt").write_text("x")
        with pytest.raises(DataError, match=r"holds no pictures .*\.png"):
            pictures_in(tmp_path)

    def test_the_same_stem_twice(self, tmp_path):
        save(tmp_path / "scene.png")
        save(tmp_path / "scene.jpg")
        with pytest.raises(DataError, match=r"both scene\.(png|jpg) and scene\.(png|jpg)"):
            pictures_in(tmp_path)


class TestPairing:
    def test_by_stem_whatever_the_extension(self, tmp_path):
        low, high = folders(tmp_path, ["2.png", "10.jpg", "1.webp"], ["10.png", "1.bmp", "2.tif"])
        pairs = find_pairs(low, high)
        assert [p.name for p in pairs] == ["1", "2", "10"]
        assert [p.input.name for p in pairs] == ["1.webp", "2.png", "10.jpg"]
        assert [p.target.name for p in pairs] == ["1.bmp", "2.tif", "10.png"]
        assert {p.input.parent for p in pairs} == {low}
        assert {p.target.parent for p in pairs} == {high}

    @pytest.mark.parametrize("side", ["low", "high"])
    def test_without_a_partner(self, tmp_path, side):
        both = ["1.png", "2.png"]
        extra = [*both, "10.png", "9.png"]
        names = (extra, both) if side == "low" else (both, extra)
        other = "high" if side == "low" else "low"
        with pytest.raises(DataError, match=rf"2 pictures have no partner .*{other}: 9, 10$"):
            find_pairs(*folders(tmp_path, *names))

    def test_many_without_a_partner_are_not_all_listed(self, tmp_path):
        names = [f"{i}.png" for i in range(20)]
        with pytest.raises(DataError, match=r"19 pictures .*: 1, 2, 3, 4, 5 \.\.\."):
            find_pairs(*folders(tmp_path, names, names[:1]))

    @pytest.mark.parametrize("missing", ["low", "high"])
    def test_a_missing_folder(self, tmp_path, missing):
        low, high = folders(tmp_path, ["1.png"], ["1.png"])
        moved = tmp_path / missing
        moved.rename(tmp_path / "elsewhere")
        with pytest.raises(DataError, match=rf"{missing} is not a folder"):
            find_pairs(low, high)

    @pytest.mark.parametrize("empty", ["low", "high"])
    def test_an_empty_folder(self, tmp_path, empty):
        names = {"low": ["1.png"], "high": ["1.png"], empty: []}
        with pytest.raises(DataError, match=rf"{empty} holds no pictures"):
            find_pairs(*folders(tmp_path, names["low"], names["high"]))


class TestScenes:
    names = ("s1_a.png", "s1_b.png", "s2_a.png", "s10_a.png")

    def test_from_the_stem(self, tmp_path):
        pairs = find_pairs(*folders(tmp_path, self.names, self.names), r"^(s\d+)_")
        assert [p.scene for p in pairs] == ["s1", "s1", "s2", "s10"]

    def test_anywhere_in_the_stem(self, tmp_path):
        pairs = find_pairs(*folders(tmp_path, self.names, self.names), "_(.)")
        assert [p.scene for p in pairs] == ["a", "b", "a", "a"]

    @pytest.mark.parametrize("pattern", ["s1", "[", "(", r"^(?:s\d+)"])
    def test_a_pattern_without_a_group(self, tmp_path, pattern):
        with pytest.raises(DataError, match="needs one group") as caught:
            find_pairs(*folders(tmp_path, self.names, self.names), pattern)
        assert repr(pattern) in str(caught.value)

    @pytest.mark.parametrize("pattern", [r"^(x\d+)", "s1_(a)", "s(10)?_"])
    def test_a_pattern_that_does_not_match(self, tmp_path, pattern):
        with pytest.raises(DataError, match="does not match 's"):
            find_pairs(*folders(tmp_path, self.names, self.names), pattern)

    def test_without_one_equal_references_are_one_scene(self, tmp_path):
        low, high = folders(tmp_path, ["1.png", "2.png", "3.png"], ["1.png", "2.png", "3.png"])
        (high / "3.png").write_bytes((high / "1.png").read_bytes())
        scenes = [p.scene for p in find_pairs(low, high)]
        assert scenes[0] == scenes[2] != scenes[1]


class TestSplit:
    @pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
    def test_the_share_is_about_what_was_asked_for(self, share):
        held = sum(is_held_out(f"scene {i}", share) for i in range(4000))
        assert held / 4000 == pytest.approx(share, abs=0.03)

    def test_none_and_nearly_all(self):
        names = [f"scene {i}" for i in range(500)]
        assert not any(is_held_out(name, 0.0) for name in names)
        assert all(is_held_out(name, 1.0) for name in names)

    def test_the_same_everywhere(self):
        held = [i for i in range(60) if is_held_out(f"s{i}", 0.1)]
        # a change of the hash would put training scenes of shipped weights among the held out
        assert held == HELD_OF_60

    def test_a_larger_share_holds_out_more_of_the_same(self):
        names = [f"s{i}" for i in range(300)]
        small, large = ({n for n in names if is_held_out(n, share)} for share in (0.1, 0.3))
        assert small < large

    def test_scenes_stand_on_one_side(self, tmp_path):
        names = [f"s{scene}_{shot}.png" for scene in range(12) for shot in range(3)]
        folders(tmp_path, names, names)
        source = Source(input="low", target="high", scene=r"^(s\d+)_")
        data = Data(root=str(tmp_path), sources=(source,), held_out=0.4)
        (training,), held_out = split_pairs(data)
        held = held_out["low"]
        assert len(training) + len(held) == 36
        assert training
        assert held
        assert not {p.scene for p in training} & {p.scene for p in held}
        assert all(is_held_out(p.scene, 0.4) for p in held)
        assert split_pairs(data) == ([training], held_out)

    def test_equal_references_stand_on_one_side(self, tmp_path):
        names = [f"{i}.png" for i in range(24)]
        _, high = folders(tmp_path, names, names)
        for i in range(0, 24, 2):
            (high / f"{i + 1}.png").write_bytes((high / f"{i}.png").read_bytes())
        data = Data(root=str(tmp_path), sources=(Source(input="low", target="high"),), held_out=0.4)
        (training,), held_out = split_pairs(data)
        numbers = {int(p.name) // 2 for p in training}
        assert 0 < len(numbers) < 12
        assert not numbers & {int(p.name) // 2 for p in held_out["low"]}

    def test_every_source_is_split(self, tmp_path):
        names = [f"{i}.png" for i in range(10)]
        for part in ("a", "b"):
            folders(tmp_path / part, names, names)
        sources = tuple(
            Source(input=f"{part}/low", target=f"{part}/high", scene=r"(\d+)") for part in "ab"
        )
        training, held_out = split_pairs(Data(root=str(tmp_path), sources=sources, held_out=0.5))
        assert [len(pairs) for pairs in training] == [10 - len(h) for h in held_out.values()]
        assert list(held_out) == ["a/low", "b/low"]
        assert {p.input.parts[-3] for p in training[1]} == {"b"}

    def test_what_one_source_holds_out_no_other_trains_on(self, tmp_path):
        names = [f"{i}.png" for i in range(10)]
        for part in ("a", "b"):
            folders(tmp_path / part, names, names)
            for i in range(10):  # the same references under both, told apart by content or by name
                Image.new("RGB", (4, 4), (20 * i, 0, 0)).save(tmp_path / part / f"high/{i}.png")
        sources = (
            Source(input="a/low", target="a/high"),
            Source(input="b/low", target="b/high", scene=r"(\d+)"),
        )
        training, held_out = split_pairs(Data(root=str(tmp_path), sources=sources, held_out=0.5))
        unseen = {p.name for pairs in held_out.values() for p in pairs}
        assert len(unseen) > max(map(len, held_out.values()))
        assert [{p.name for p in pairs} for pairs in training] == 2 * [set("0123456789") - unseen]

    def test_the_root_may_be_relative(self, tmp_path, monkeypatch):
        folders(tmp_path / "data", ["1.png"], ["1.png"])
        monkeypatch.chdir(tmp_path)
        data = Data(root="data", sources=(Source(input="low", target="high"),), held_out=0.0)
        ((pair,),), _ = split_pairs(data)
        assert pair.input == Path("data/low/1.png")


class TestBroken:
    @pytest.fixture
    def root(self, tmp_path):
        folders(
            tmp_path, ["a.png", "b.png", "c.png", "d.png"], ["a.png", "b.png", "c.png", "e.png"]
        )
        (tmp_path / "high" / "a.png").write_bytes(b"no picture")
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "low" / "b.png")
        return tmp_path

    def test_each_is_named_once_when_skipped(self, root):
        skipped = []
        pairs = find_pairs(root / "low", root / "high", skipped=skipped)
        assert [p.name for p in pairs] == ["a", "b", "c"]
        assert [p.name for p in sound_pairs(pairs, skipped)] == ["c"]
        assert [line.startswith(("d has no", "e has no")) for line in skipped[:2]] == [True, True]
        assert "'a' cannot be read" in skipped[2]
        assert "'b' has two sizes" in skipped[3]
        assert len(skipped) == 4

    def test_the_first_stops_otherwise(self, root):
        pairs = find_pairs(root / "low", root / "high", skipped=[])
        with pytest.raises(DataError, match="'a' cannot be read"):
            sound_pairs(pairs)
