"""Folders: what is done, kept, refused and noted, and that nothing disturbs the outcome."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import enhancekit
from enhancekit.batch import Shard, enhance_folder, read_manifests
from enhancekit.errors import FolderError, ImageWarning, OptionError, WeightsError
from enhancekit.imaging.formats import Encoding

JOBS = 3
slow = """
import threading, time
RELEASE = threading.Event()
RUNNING = threading.Semaphore(0)
THREADS = set()
def slow(picture):
    THREADS.add(threading.get_ident())
    if picture.shape[0] == 5:  # the one that hangs
        RUNNING.release()
        RELEASE.wait(20)
    return picture
def alone(picture):
    assert not BUSY.locked()
    with BUSY:
        time.sleep(0.005)
    return picture
BUSY = threading.Lock()
def interrupted(picture):
    RUNNING.release()
    time.sleep(0.05)
    return picture
def patient(picture):
    time.sleep(0.4)
    return picture
"""


def save(path, height=8, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 80, (height, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pixels(path):
    with Image.open(path) as picture:
        return np.array(picture)


def lines(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def statuses(results):
    return {r.input.name: r.status for r in results}


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "in"
    for i, name in enumerate(("a.png", "b.png", "sub/c.png", "sub/deep/d.jpg")):
        save(folder / name, seed=i)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def slow_plugin(make_plugin):
    plugin = make_plugin(
        enhancers=[
            {"name": name, "task": "t", "target": f"{{code}}:{name}"}
            for name in ("slow", "alone", "interrupted", "patient")
        ],
        code=slow,
    )
    enhancekit.load("slow")
    module = sys.modules[f"{plugin.module}_code"]
    yield module
    module.RELEASE.set()


class TestWhatIsDone:
    def test_the_folder_alone(self, source, out):
        results = list(enhance_folder(source, out, "gamma"))
        assert statuses(results) == {"a.png": "done", "b.png": "done"}
        assert all(r.total == 2 and r.error is None for r in results)
        assert sorted(p.name for p in out.iterdir()) == ["a.png", "b.png", "manifest.jsonl"]
        wanted = enhancekit.load("gamma").enhance(source / "a.png")
        np.testing.assert_array_equal(pixels(out / "a.png"), np.asarray(wanted))

    def test_subfolders(self, source, out):
        list(enhance_folder(source, out, "gamma", recursive=True))
        found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
        assert found == {"a.png", "b.png", "sub/c.png", "sub/deep/d.jpg", "manifest.jsonl"}

    @pytest.mark.parametrize(
        ("include", "found"),
        [
            (["*.JPG"], {"d.jpg"}),
            (["?.png"], {"a.png", "b.png", "c.png"}),
            (["sub/*"], {"c.png", "d.jpg"}),
            (["a*", "d*"], {"a.png", "d.jpg"}),
        ],
    )
    def test_include(self, source, out, include, found):
        results = enhance_folder(source, out, "identity", recursive=True, include=include)
        assert set(statuses(results)) == found

    def test_options_reach_the_enhancer(self, source, out):
        given = {"options": {"gamma": 0.5}, "strength": 0.25}
        list(enhance_folder(source, out, "gamma", **given))
        wanted = enhancekit.load("gamma", gamma=0.5).enhance(source / "a.png", strength=0.25)
        np.testing.assert_array_equal(pixels(out / "a.png"), np.asarray(wanted))

    def test_names_with_a_dot_in_front_are_left_out(self, source, out):
        save(source / "._a.png")
        save(source / ".hidden" / "x.png")
        results = list(enhance_folder(source, out, "identity", recursive=True))
        assert len(results) == 4

    def test_output_inside_the_input_is_not_done_again(self, source):
        for status in ("done", "kept"):
            results = list(enhance_folder(source, source / "out", "identity", recursive=True))
            assert [r.status for r in results] == [status] * 4

    def test_shards_are_disjoint_and_complete(self, source, out):
        for i in range(20):
            save(source / f"{i:02}.png", seed=i)
        parts = [
            set(statuses(enhance_folder(source, out, "identity", shard=Shard(i, 3))))
            for i in (1, 2, 3)
        ]
        assert all(parts)
        assert sum(map(len, parts)) == len(set.union(*parts)) == 22
        assert sorted(p.name for p in out.glob("*.jsonl")) == [
            f"manifest-{i}-of-3.jsonl" for i in (1, 2, 3)
        ]
        assert len(read_manifests(out)) == 22
        again = list(enhance_folder(source, out, "identity"))
        assert {r.status for r in again} == {"kept"}

    def test_one_is_computed_at_a_time(self, tmp_path, out, slow_plugin):
        for i in range(12):
            save(tmp_path / "in" / f"{i}.png")
        results = list(enhance_folder(tmp_path / "in", out, "alone", jobs=4))
        assert [r.error for r in results] == [None] * 12

    def test_jobs_give_the_same(self, source, out, tmp_path):
        for jobs in (1, 4):
            list(enhance_folder(source, tmp_path / f"{jobs}", "gamma", jobs=jobs, recursive=True))
        one, four = (tree(tmp_path / name) for name in ("1", "4"))
        del one["manifest.jsonl"], four["manifest.jsonl"]
        assert one == four


class TestManifest:
    def test_a_line(self, source, out):
        (result,) = enhance_folder(source, out, "gamma", include=["a.png"], strength=0.5)
        (line,) = lines(out)
        assert line["input"] == line["output"] == "a.png"
        assert line["input_sha256"] == hashlib.sha256((source / "a.png").read_bytes()).hexdigest()
        assert line["output_sha256"] == hashlib.sha256((out / "a.png").read_bytes()).hexdigest()
        assert line["enhancer"] == "builtin:gamma"
        assert line["version"] == f"enhancekit {enhancekit.__version__}"
        assert line["weights_sha256"] is None
        assert line["options"]["options"] == {"gamma": 1 / 2.2}
        assert line["options"]["strength"] == 0.5
        assert (line["status"], line["error"]) == ("done", None)
        assert line["seconds"] == result.seconds > 0

    def test_hash_of_weights(self, source, out):
        list(enhance_folder(source, out, "mfnn-lite", include=["a.png"]))
        (line,) = lines(out)
        assert line["weights_sha256"] == enhancekit.enhancers.get("mfnn-lite").spec.weights.sha256

    def test_an_unfinished_last_line_is_cut_off(self, source, out):
        list(enhance_folder(source, out, "gamma"))
        whole = (out / "manifest.jsonl").read_bytes()
        (out / "manifest.jsonl").write_bytes(whole[:-30])
        (out / lines_output(whole)[-1]).unlink()
        assert sorted(statuses(enhance_folder(source, out, "gamma")).values()) == ["done", "kept"]
        assert [line["output"] for line in lines(out)] == lines_output(whole)

    def test_a_damaged_line_is_a_warning(self, source, out):
        list(enhance_folder(source, out, "gamma"))
        text = (out / "manifest.jsonl").read_text().splitlines()
        (out / "manifest.jsonl").write_text(f"{text[0]}\nhello\n{text[1]}\n")
        with pytest.warns(UserWarning, match=r"manifest\.jsonl, line 2 is damaged"):
            assert len(read_manifests(out)) == 2

    def test_the_last_line_counts_whatever_the_clock_said(self, source, out):
        def run(**how):
            done = enhance_folder(source, out, "gamma", overwrite="stale", **how)
            return {result.status for result in done}

        run()
        manifest = out / "manifest.jsonl"
        lines = [json.loads(line) for line in manifest.read_text().splitlines()]
        ahead = [line | {"finished": "2091-01-01T00:00:00+00:00"} for line in lines]
        manifest.write_text("".join(json.dumps(line) + "\n" for line in ahead))
        assert [run(strength=0.5), run(strength=0.5), run()] == [{"done"}, {"kept"}, {"done"}]

    def test_the_last_record_counts(self, source, out):
        list(enhance_folder(source, out, "gamma"))
        list(enhance_folder(source, out, "identity", overwrite="always"))
        assert {r.enhancer for r in read_manifests(out).values()} == {"builtin:identity"}
        assert len(lines(out)) == 4


def lines_output(data):
    return [json.loads(line)["output"] for line in data.splitlines()]


def flip(path):
    """Change a picture's content, but not its size."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


CHANGES = {
    "settings": ({"strength": 0.5}, lambda s, o: None, {"a.png", "b.png"}),
    "options": ({"options": {"gamma": 0.9}}, lambda s, o: None, {"a.png", "b.png"}),
    "input": ({}, lambda s, o: save(s / "a.png", seed=99), {"a.png"}),
    "input alike in size": ({}, lambda s, o: flip(s / "b.png"), {"b.png"}),
    "output cut": ({}, lambda s, o: os.truncate(o / "a.png", 20), {"a.png"}),
    "no record": ({}, lambda s, o: (o / "manifest.jsonl").unlink(), {"a.png", "b.png"}),
    "touched": ({}, lambda s, o: os.utime(s / "a.png"), set()),
}


class TestExistingOutput:
    @pytest.fixture
    def done(self, source, out):
        list(enhance_folder(source, out, "gamma"))
        return tree(out)

    def test_is_kept(self, source, out, done):
        assert set(statuses(enhance_folder(source, out, "gamma")).values()) == {"kept"}
        assert tree(out) == done

    def test_only_what_is_missing_is_done(self, source, out, done):
        (out / "a.png").unlink()
        results = enhance_folder(source, out, "gamma")
        assert statuses(results) == {"a.png": "done", "b.png": "kept"}
        assert {**tree(out), "manifest.jsonl": b""} == {**done, "manifest.jsonl": b""}

    def test_always(self, source, out, done):
        results = enhance_folder(source, out, "gamma", overwrite="always")
        assert set(statuses(results).values()) == {"done"}

    @pytest.mark.parametrize("change", CHANGES)
    def test_stale(self, source, out, done, change):
        given, make, stale = CHANGES[change]
        make(source, out)
        before = tree(out)
        kept = statuses(enhance_folder(source, out, "gamma", **given))
        assert {name for name, status in kept.items() if status == "stale"} == stale
        assert set(kept.values()) <= {"kept", "stale"}
        assert {**tree(out), "manifest.jsonl": b""} == {**before, "manifest.jsonl": b""}
        redone = statuses(enhance_folder(source, out, "gamma", overwrite="stale", **given))
        assert {name for name, status in redone.items() if status == "done"} == stale
        last = statuses(enhance_folder(source, out, "gamma", overwrite="stale", **given))
        assert set(last.values()) == {"kept"}

    def test_a_failure_keeps_the_old_output(self, source, out, done):
        (source / "a.png").write_bytes(b"broken")
        found = statuses(enhance_folder(source, out, "gamma", overwrite="stale"))
        assert found == {"a.png": "failed", "b.png": "kept"}
        assert (out / "a.png").read_bytes() == done["a.png"]
        assert statuses(enhance_folder(source, out, "gamma"))["a.png"] == "stale"


def test_encoding(source, out):
    encoding = Encoding(quality=30)
    given = {"recursive": True, "encoding": encoding}
    found = {r.input.name: r for r in enhance_folder(source, out, "identity", **given)}
    assert {n: r.status for n, r in found.items()} == {
        "a.png": "failed", "b.png": "failed", "c.png": "failed", "d.jpg": "done",
    }  # fmt: skip
    assert found["a.png"].error.startswith(f"{out / 'a.png'}: PNG has no quality")
    found = statuses(enhance_folder(source, out, "identity", recursive=True))
    assert found["d.jpg"] == "stale"


def test_too_many_pixels(source, out):
    found = list(enhance_folder(source, out, "identity", max_pixels=95))
    assert {r.status for r in found} == {"failed"}


class TestFailures:
    @pytest.fixture
    def mixed(self, source):
        (source / "bad.png").write_bytes(b"bad")
        (source / "empty.png").touch()
        return source

    def test_the_others_are_done(self, mixed, out):
        results = {r.input.name: r for r in enhance_folder(mixed, out, "gamma")}
        assert {n: r.status for n, r in results.items()} == {
            "a.png": "done", "b.png": "done", "bad.png": "failed", "empty.png": "failed",
        }  # fmt: skip
        assert "not a picture" in results["bad.png"].error
        assert {line["input"]: line["status"] for line in lines(out)} == {
            n: r.status for n, r in results.items()
        }
        assert not (out / "bad.png").exists()
        assert list(out.glob(".*")) == []

    def test_failed_ones_are_tried_again(self, mixed, out):
        list(enhance_folder(mixed, out, "gamma"))
        save(mixed / "bad.png")
        found = statuses(enhance_folder(mixed, out, "gamma"))
        assert (found["bad.png"], found["empty.png"], found["a.png"]) == ("done", "failed", "kept")

    def test_stop_at_the_first(self, tmp_path, out):
        for i in range(30):
            save(tmp_path / "in" / f"{i:02}.png")
        (tmp_path / "in" / "00.png").write_bytes(b"bad")
        found = list(enhance_folder(tmp_path / "in", out, "gamma", jobs=2, keep_going=False))
        assert "failed" in {r.status for r in found}
        assert len(found) < 10
        assert len(lines(out)) == len(found)

    def test_a_format_that_cannot_be_written_names_the_output(self, tmp_path, out):
        (tmp_path / "in").mkdir()
        shutil.copy(save(tmp_path / "x.png"), tmp_path / "in" / "x.qoi")
        (result,) = enhance_folder(tmp_path / "in", out, "gamma", include=["*"])
        assert str(out / "x.qoi") in result.error

    def test_links_in_a_circle(self, source, tmp_path):
        (tmp_path / "circle").symlink_to("circle")
        with pytest.raises(FolderError, match=r"circle .*leads nowhere"):
            list(enhance_folder(source, tmp_path / "circle", "gamma"))

    def test_no_regular_file(self, source, out):
        os.mkfifo(source / "pipe.png")
        (source / "link.png").symlink_to("nowhere")
        results = {r.input.name: r for r in enhance_folder(source, out, "gamma")}
        assert "no regular file" in results["pipe.png"].error
        assert "cannot be read" in results["link.png"].error

    def test_a_wrong_option_notes_nothing(self, source, out):
        list(enhance_folder(source, out, "gamma"))
        before = (out / "manifest.jsonl").read_bytes()
        with pytest.raises(OptionError, match="strength"):
            list(enhance_folder(source, out, "gamma", overwrite="always", strength=3, jobs=3))
        assert (out / "manifest.jsonl").read_bytes() == before
        assert set(statuses(enhance_folder(source, out, "gamma")).values()) == {"kept"}

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"strength": 3}, "strength"),
            ({"controls": {"exposure": 1}}, "no control 'exposure'"),
            ({"encoding": Encoding(quality=50, format="png")}, "quality"),
        ],
    )
    def test_what_is_wrong_for_all_is_refused_before_the_first(self, source, out, wrong, said):
        with pytest.raises(OptionError, match=said):
            list(enhance_folder(source, out, "gamma", **wrong))
        assert not out.exists()

    @pytest.mark.parametrize("shard", [None, Shard(1, 1)])
    def test_results_of_an_earlier_run_are_left_out(self, source, shard):
        list(enhance_folder(source, source / "first", "gamma", recursive=True, shard=shard))
        with pytest.warns(UserWarning, match=r"in/first holds results of an earlier run, left out"):
            second = statuses(enhance_folder(source, source / "second", "gamma", recursive=True))
        assert not [name for name in second if "first" in str(name)]

    def test_what_waits_to_be_taken_is_not_late(self, source, out):
        done = []
        for result in enhance_folder(source, out, "identity", recursive=True, time_limit=2):
            done.append(result.status)
            if len(done) == 1:
                time.sleep(2.2)
        assert len(done) >= 3
        assert set(done) == {"done"}

    def test_warnings_name_the_output(self, tmp_path, out):
        (tmp_path / "in").mkdir()
        picture = Image.new("RGB", (8, 8))
        picture.save(tmp_path / "in/a.jpg", comment=b"seen")
        with pytest.warns(ImageWarning, match=rf"^{out}/a.tif: TIFF has no place for a JPEG's"):
            list(enhance_folder(tmp_path / "in", out, "identity", encoding=Encoding(format="tif")))

    def test_a_time_limit(self, tmp_path, out, slow_plugin):
        for i, height in enumerate((4, 5, 4, 4, 5, 4)):
            save(tmp_path / "in" / f"{i}.png", height=height)
        begun = time.perf_counter()
        found = {
            r.input.name: r
            for r in enhance_folder(tmp_path / "in", out, "slow", jobs=2, time_limit=2)
        }
        assert time.perf_counter() - begun < 15
        assert {n for n, r in found.items() if r.status == "failed"} == {"1.png", "4.png"}
        assert "took longer than 2 s" in found["1.png"].error
        slow_plugin.RELEASE.set()
        time.sleep(0.2)  # the threads given up come to their ends, and write nothing
        assert sorted(p.name for p in out.iterdir()) == [
            "0.png", "2.png", "3.png", "5.png", "manifest.jsonl",
        ]  # fmt: skip
        assert len(lines(out)) == 6

    def test_waiting_for_its_turn_does_not_count(self, tmp_path, out, slow_plugin):
        for i in range(8):
            save(tmp_path / "in" / f"{i}.png")
        results = enhance_folder(tmp_path / "in", out, "patient", jobs=8, time_limit=2.4)
        assert {r.status for r in results} == {"done"}

    @pytest.mark.parametrize("given", [{"strength": 2}, {"controls": {"exposure": 0.5}}])
    def test_what_is_wrong_for_all_is_raised(self, source, out, given):
        with pytest.raises(OptionError):
            list(enhance_folder(source, out, "gamma", **given))
        assert not (out / "a.png").exists()


class TestSafety:
    def test_what_is_replaced_passes_on_its_permissions(self, source, out):
        list(enhance_folder(source, out, "gamma"))
        (out / "a.png").chmod(0o640)
        list(enhance_folder(source, out, "gamma", overwrite="always"))
        assert stat.S_IMODE((out / "a.png").stat().st_mode) == 0o640

    def test_a_link_to_another_output_is_replaced_not_followed(self, source, out):
        out.mkdir()
        (out / "a.png").symlink_to(out / "b.png")
        list(enhance_folder(source, out, "gamma", overwrite="always"))
        assert not (out / "a.png").is_symlink()
        assert (out / "a.png").read_bytes() != (out / "b.png").read_bytes()

    def test_a_link_out_of_the_output(self, source, out, tmp_path):
        (tmp_path / "else").mkdir()
        out.mkdir()
        (out / "sub").symlink_to(tmp_path / "else")
        (tmp_path / "else" / "a.png").write_bytes(b"dear to me")
        (out / "a.png").symlink_to(tmp_path / "else" / "a.png")
        results = enhance_folder(source, out, "gamma", recursive=True, overwrite="always")
        found = {r.input.name: r for r in results}
        for name in ("a.png", "c.png", "d.jpg"):
            assert "leads out of the output folder" in found[name].error
        assert found["b.png"].status == "done"
        assert tree(tmp_path / "else") == {"a.png": b"dear to me"}

    def test_a_link_that_comes_while_it_works(self, source, out, tmp_path, monkeypatch):
        from enhancekit.batch import work

        (tmp_path / "else").mkdir()

        def write_and_link(picture, staged, *args, write=work.write, **kwargs):
            write(picture, staged, *args, **kwargs)
            (out / "sub").symlink_to(tmp_path / "else")

        monkeypatch.setattr(work, "write", write_and_link)
        (result,) = enhance_folder(source, out, "gamma", recursive=True, include=["c.png"])
        assert "leads out" in result.error
        assert tree(tmp_path / "else") == {}

    def test_a_picture_that_changes_while_it_is_read(self, source, out, monkeypatch):
        from enhancekit.batch import work

        def write_and_change(picture, staged, *args, write=work.write, **kwargs):
            write(picture, staged, *args, **kwargs)
            os.utime(source / "a.png", ns=(1, 1))

        monkeypatch.setattr(work, "write", write_and_change)
        (result,) = enhance_folder(source, out, "gamma", include=["a.png"])
        assert "a.png was changed while it was read; run again" in result.error
        assert not (out / "a.png").exists()

    def test_a_file_that_others_make_meanwhile_is_kept(self, source, out, monkeypatch):
        from enhancekit.batch import work

        def write_and_meddle(picture, staged, *args, write=work.write, **kwargs):
            write(picture, staged, *args, **kwargs)
            (out / "a.png").write_bytes(b"dear to me")

        monkeypatch.setattr(work, "write", write_and_meddle)
        (result,) = enhance_folder(source, out, "gamma", include=["a.png"])
        assert result.status != "done"
        assert (out / "a.png").read_bytes() == b"dear to me"

    @pytest.mark.parametrize("name", [".enhancekit", "manifest.jsonl"])
    def test_a_link_in_place_of_its_own_files(self, source, out, tmp_path, name):
        out.mkdir()
        (out / name).symlink_to(save(tmp_path / "else" / "x.png"))
        before = tree(tmp_path / "else")
        with pytest.raises(FolderError, match="is a link"):
            list(enhance_folder(source, out, "gamma"))
        assert tree(tmp_path / "else") == before

    def test_a_link_to_a_folder_is_not_followed(self, source, out, tmp_path):
        save(tmp_path / "else" / "x.png")
        (source / "sub" / "away").symlink_to(tmp_path / "else")
        with pytest.warns(UserWarning, match="is a link to a folder"):
            results = list(enhance_folder(source, out, "gamma", recursive=True))
        assert len(results) == 4

    @pytest.mark.parametrize("relative", [".", "..", "../in"])
    def test_an_output_that_holds_the_input(self, source, relative):
        before = tree(source)
        with pytest.raises(FolderError, match="holds the input"):
            enhance_folder(source, source / relative, "gamma", overwrite="always")
        assert tree(source) == before

    def test_an_input_that_is_its_own_output(self, source, out):
        save(out / "a.png")
        (source / "a.png").unlink()
        (source / "a.png").symlink_to(out / "a.png")
        before = (out / "a.png").read_bytes()
        found = {r.input.name: r for r in enhance_folder(source, out, "gamma", overwrite="always")}
        assert "overwrite itself" in found["a.png"].error
        assert (out / "a.png").read_bytes() == before

    def test_another_run_at_the_same_time(self, source, out):
        first = enhance_folder(source, out, "gamma", jobs=1)
        next(first)
        with pytest.raises(FolderError, match="another run works into"):
            next(enhance_folder(source, out, "gamma"))
        list(enhance_folder(source, out, "gamma", shard=Shard(1, 1)))  # but a shard may
        first.close()
        assert {r.status for r in enhance_folder(source, out, "gamma")} == {"kept"}


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "error", "said"),
        [
            ({"jobs": 0}, OptionError, "jobs"),
            ({"time_limit": 0}, OptionError, "time limit"),
            ({"overwrite": "sometimes"}, OptionError, "sometimes"),
            ({"include": ["*.heic"]}, FolderError, r"match \*\.heic"),
            ({"weights": "w.safetensors"}, OptionError, "no weights"),
        ],
    )
    def test_before_any_work(self, source, out, given, error, said):
        with pytest.raises(error, match=said):
            enhance_folder(source, out, "gamma", **given)
        assert not out.exists()

    def test_missing_weights(self, source, out):
        with pytest.raises(WeightsError):
            enhance_folder(source, out, "mfnn-lite", weights="none.safetensors")

    def test_no_folder(self, tmp_path, out):
        with pytest.raises(FolderError, match="no folder"):
            enhance_folder(tmp_path / "nowhere", out, "gamma")

    def test_an_output_that_is_a_file(self, source, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(FolderError, match="is a file"):
            enhance_folder(source, tmp_path / "file", "gamma")

    @pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", ""])
    def test_shards(self, text):
        with pytest.raises(OptionError, match="a shard is i/n"):
            Shard.parse(text)


class TestDisturbed:
    def test_closing_finishes_what_is_in_hand(self, tmp_path, out):
        for i in range(20):
            save(tmp_path / "in" / f"{i:02}.png")
        results = enhance_folder(tmp_path / "in", out, "gamma", jobs=JOBS)
        next(results)
        results.close()
        made = {p.name for p in out.glob("*.png")}
        assert 1 <= len(made) <= JOBS
        assert {line["output"] for line in lines(out) if line["status"] == "done"} == made
        assert not (out / ".enhancekit").exists()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_killed_at_random_moments(self, tmp_path):
        for i in range(100):
            save(tmp_path / "in" / f"{i:02}.png", height=64, seed=i)
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("killing.py"), tmp_path, "5", "1"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["killed"] == 5
        assert found["partial"] == []
        assert (found["exit"], found["equal"], found["count"]) == (0, True, 100)
        assert found["more than once"] <= 5 * JOBS
        assert found["left over"] == []


@pytest.fixture
def interruptible():
    """A shell's background jobs are started with Ctrl-C ignored, which Python then leaves so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TestCommandLine:
    def test_done(self, cli, source, out):
        done = cli("enhance", source, "-o", out, "-e", "gamma", "--recursive", "--jobs", 2)
        assert (done.code, done.err) == (0, "")
        assert done.out == f"{out}: 4 done, 0 kept, 0 failed\n"
        again = cli("enhance", source, "-o", out, "-e", "gamma", "--recursive", "--strength", 0.5)
        assert (again.code, again.err) == (0, "")
        assert "4 kept that are stale" in again.out
        assert "--overwrite stale" in again.out

    def test_include_and_shard(self, cli, source, out):
        given = ("--recursive", "--include", "*.PNG", "--shard", "1/1")
        assert "3 done" in cli("enhance", source, "-o", out, "-e", "gamma", *given).out

    def test_some_failed(self, cli, source, out):
        (source / "bad.png").write_bytes(b"bad")
        done = cli("enhance", source, "-o", out, "-e", "gamma")
        assert done.code == 3
        left = "left out: the pictures of 1 subfolder(s), which --recursive does"
        assert done.out == f"{out}: 2 done, 0 kept, 1 failed\n{left}\n"
        head, row = done.err.splitlines()
        assert head.split() == ["failed", "why"]
        assert row.startswith(f"{source / 'bad.png'}  not a picture")

    def test_what_is_left_out(self, cli, source, out):
        for name in ("a.CR2", "b.cr2", "c.gif", ".d.gif", "sub/e.nef"):
            (source / name).write_bytes(b"raw")
        done = cli("enhance", source, "-o", out, "-e", "gamma")
        assert done.code == 0
        assert done.out.splitlines()[1] == (
            "left out: 2 .cr2, which is not read; 1 .gif, which is not read; the pictures of 1 "
            "subfolder(s), which --recursive does"
        )
        inside = source / "out"
        for more, left in (
            ((), {".cr2": 2, ".gif": 1, "subfolders": 1}),
            (("--recursive",), {".cr2": 2, ".gif": 1, ".nef": 1}),
            (("--recursive", "--include", "*.png"), {}),
        ):
            done = cli("enhance", source, "-o", inside, "-e", "gamma", "--json", *more)
            assert json.loads(done.out)["left_out"] == left

    def test_the_name_of_a_picture_for_a_folder(self, cli, source, tmp_path):
        done = cli("enhance", source, "-o", tmp_path / "x.jpg", "-e", "gamma")
        assert (done.code, done.out) == (1, "")
        said = f"x.jpg is the name of a picture, but {source} is a folder, whose results need one"
        assert said in done.err
        assert not (tmp_path / "x.jpg").exists()

    def test_one_in_twenty_broken(self, cli, source, out, tmp_path):
        whole = (source / "a.png").read_bytes()
        for i in range(200):
            data = [whole, whole[: 60 + i], b"", b"GIF89a" + whole][
                0 if i % 20 else 1 + i // 20 % 3
            ]
            (tmp_path / f"many/{i // 50}").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"many/{i // 50}/{i:03}.png").write_bytes(data)
        given = ("-e", "gamma", "--recursive", "--jobs", 4)
        done = cli("enhance", tmp_path / "many", "-o", out, *given)
        assert done.code == 3
        assert done.out == f"{out}: 190 done, 0 kept, 10 failed\n"
        listed = [line.split()[0] for line in done.err.splitlines()[1:]]
        broken = [f"{i // 50}/{i:03}.png" for i in range(0, 200, 20)]
        assert sorted(listed) == [str(tmp_path / "many" / name) for name in broken]
        made = {p.relative_to(out).as_posix() for p in out.rglob("*.png")}
        assert len(made) == 190
        assert made.isdisjoint(broken)
        failed = [line["input"] for line in lines(out) if line["status"] == "failed"]
        assert sorted(failed) == broken

    def test_all_failed(self, cli, source, out):
        (source / "bad.png").write_bytes(b"bad")
        assert cli("enhance", source, "-o", out, "-e", "gamma", "--include", "bad*").code == 1

    def test_json(self, cli, source, out):
        (source / "bad.png").write_bytes(b"bad")
        done = cli("enhance", source, "-o", out, "-e", "gamma", "--json")
        found = json.loads(done.out)
        assert (found["done"], found["failed"], found["total"]) == (2, 1, 3)
        assert found["failures"][0]["input"] == str(source / "bad.png")

    def test_interrupted(self, cli, tmp_path, out, slow_plugin, interruptible):
        for i in range(40):
            save(tmp_path / "in" / f"{i:02}.png")

        def interrupt():
            for _ in range(5):
                slow_plugin.RUNNING.acquire()
            os.kill(os.getpid(), 2)

        threading.Thread(target=interrupt, daemon=True).start()
        done = cli("enhance", tmp_path / "in", "-o", out, "-e", "interrupted", "--jobs", JOBS)
        assert (done.code, done.err.strip().splitlines()[-1]) == (130, "interrupted")
        assert "not begun" in done.out
        made = {p.name for p in out.glob("*.png")}
        assert 4 <= len(made) <= 4 + 2 * JOBS
        assert {line["output"] for line in lines(out) if line["status"] == "done"} == made
        again = cli("enhance", tmp_path / "in", "-o", out, "-e", "identity")
        assert f"{40 - len(made)} done" in again.out

    @pytest.mark.parametrize(
        "option",
        [
            ["--recursive"], ["--include", "*"], ["--jobs", "2"], ["--shard", "1/2"],
            ["--no-keep-going"], ["--ray", "local"], ["--workers", "2"], ["--overwrite", "stale"],
        ],
        ids=" ".join,
    )  # fmt: skip
    def test_options_of_folders_with_a_file(self, cli, source, out, option):
        out.mkdir()
        done = cli("enhance", source / "a.png", "-o", out, "-e", "gamma", *option)
        assert done.code == 1
        assert "is for one folder of pictures" in done.err
        assert option[0].replace("--no-", "--") in done.err
        assert list(out.iterdir()) == []


class TestFormat:
    def test_all_are_written_in_one(self, source, out):
        (source / "b.png").rename(source / "b.PNG")
        encoding = Encoding(format="png")
        found = list(enhance_folder(source, out, "identity", recursive=True, encoding=encoding))
        assert {r.output.relative_to(out).as_posix() for r in found} == {
            "a.png", "b.PNG", "sub/c.png", "sub/deep/d.png",
        }  # fmt: skip
        with Image.open(out / "sub" / "deep" / "d.png") as made:
            assert made.format == "PNG"
        np.testing.assert_array_equal(
            pixels(out / "sub/deep/d.png"), pixels(source / "sub/deep/d.jpg")
        )
        (line,) = [line for line in lines(out) if line["input"] == "sub/deep/d.jpg"]
        assert line["output"] == "sub/deep/d.png"
        again = list(enhance_folder(source, out, "identity", recursive=True, encoding=encoding))
        assert {r.status for r in again} == {"kept"}

    def test_two_that_would_be_one(self, source, out):
        save(source / "a.webp")
        with pytest.raises(FolderError, match=r"a\.png and a\.webp would both become a\.tif"):
            enhance_folder(source, out, "identity", encoding=Encoding(format="tif"))
        assert not out.exists()

    def test_an_output_of_another_input_is_stale(self, source, out):
        encoding = Encoding(format="tif")
        list(enhance_folder(source, out, "identity", encoding=encoding))
        (source / "a.png").rename(source / "a.webp")
        found = statuses(enhance_folder(source, out, "identity", encoding=encoding))
        assert found == {"a.webp": "stale", "b.png": "kept"}

    def test_unknown(self):
        with pytest.raises(OptionError, match=r"format 'gif' is none of avif, bmp,"):
            Encoding(format="gif")

    def test_by_name(self, cli, source, out):
        out.mkdir()
        given = ("-e", "identity", "--format", "png")
        assert cli("enhance", source / "sub/deep/d.jpg", "-o", out, *given).code == 0
        assert cli("enhance", source / "a.png", "-o", out / "unnamed", *given).code == 0
        for name in ("d.png", "unnamed"):
            with Image.open(out / name) as made:
                assert made.format == "PNG"
        done = cli("enhance", source / "a.png", "-o", out / "x.jpg", *given)
        assert done.code == 1
        assert "x.jpg would not be PNG by its suffix" in done.err


class TestFilesByName:
    def test_a_time_limit(self, cli, tmp_path, out, slow_plugin):
        sources = [
            save(tmp_path / "in" / f"{i}.png", height=height) for i, height in enumerate((4, 5, 4))
        ]
        out.mkdir()
        done = cli("enhance", *sources, "-o", out, "-e", "slow", "--time-limit", 2)
        assert done.code == 3
        assert f"{sources[1]} took longer than 2 s and was given up" in done.err
        slow_plugin.RELEASE.set()
        time.sleep(0.3)  # the thread given up comes to its end, and writes nothing
        assert sorted(p.name for p in out.iterdir()) == ["0.png", "2.png"]

    def test_no_time(self, cli, source, tmp_path):
        done = cli(
            "enhance", source / "a.png", "-o", tmp_path / "x.png", "-e", "gamma", "--time-limit", 0
        )
        assert done.code == 1
        assert "time limit is above 0" in done.err


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize(
    ("engine", "said"), [("none", "engine 'none' is none of 'torch'"), ("ray", "use --ray local")]
)
def test_the_engine_is_asked_for(cli, source, out, kind, engine, said):
    out.mkdir()
    given = source if kind == "folder" else source / "a.png"
    done = cli("enhance", given, "-o", out, "-e", "mfnn-lite", "--engine", engine)
    assert done.code == 1
    assert said in done.err


def test_another_engine_makes_an_output_stale(source, out):
    list(enhance_folder(source, out, "gamma", engine="torch"))
    assert {line["options"]["engine"] for line in lines(out)} == {"torch"}
    text = (out / "manifest.jsonl").read_text().replace('"torch"', '"openvino"')
    (out / "manifest.jsonl").write_text(text)
    assert set(statuses(enhance_folder(source, out, "gamma")).values()) == {"stale"}


def test_workers_without_ray(cli, source, out):
    done = cli("enhance", source, "-o", out, "-e", "gamma", "--workers", 2)
    assert done.code == 1
    assert "--workers goes with --ray" in done.err


def test_progress_shows_the_rate(monkeypatch):
    from enhancekit.cli.output import progress

    monkeypatch.setenv("FORCE_COLOR", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown = progress()
    task = shown.add_task("x", total=10)
    shown.update(task, completed=4)
    time.sleep(0.02)
    shown.update(task, completed=8)
    cells = [str(column(shown.tasks[0])) for column in shown.columns]
    assert any(cell.endswith("/s") for cell in cells)


def test_include_is_a_list(source, out):
    with pytest.raises(OptionError, match=r"include is a list of patterns, not '\*\.png'"):
        list(enhance_folder(source, out, "identity", include="*.png"))
