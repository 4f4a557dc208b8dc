"""Reports of evaluations: four files that agree with the figures, and a page that stands alone."""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
import io
import json
import math
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

import enhancekit
from enhancekit.errors import DataError
from enhancekit.training.evaluation import Evaluation, Sample, chosen_pairs, read_sample
from enhancekit.training.evaluation_report import as_dict, as_markdown, measure, write_report
from enhancekit.training.protocols import find_protocol

WEIGHTS = {"width": 4, "counts": (1, 1), "pack": 1}
NASTY = "<script>alert(1)&\"'"
FILES = {"pictures.csv", "report.html", "results.json", "results.md"}


class Page(HTMLParser):
    """What a browser would see of a report."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.texts, self._open = [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in {"src", "href", "data"}]
        self._open.append(tag)

    def handle_data(self, data):
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass


@pytest.fixture
def data(tmp_path):
    """Three pairs; the second is best for ``identity``, since both sides are nearly equal."""
    root = tmp_path / "data"
    random = np.random.default_rng(0)
    for side in ("low", "high"):
        (root / side).mkdir(parents=True)
    for name, factor in (("a, b", 0.3), (NASTY, 0.95), ("c|d", 0.1)):
        high = random.integers(60, 256, (20, 24, 3), np.uint8)
        Image.fromarray(high).save(root / "high" / f"{name}.png")
        Image.fromarray((high * factor).astype(np.uint8)).save(root / "low" / f"{name}.png")
    return root


def measure_all(data, evaluations, pictures=True):
    return {
        pair.name: measure(read_sample(pair), evaluations, pictures=pictures)
        for pair in chosen_pairs(data)
    }


@pytest.fixture
def made(data):
    """Evaluations of two enhancers, and the thumbnails."""
    evaluations = [
        Evaluation(enhancekit.load(n, device="cpu"), find_protocol("lol"), (), True)
        for n in ("identity", "gamma")
    ]
    strips = measure_all(data, evaluations)
    return evaluations, strips


def shown(address):
    """Decode a thumbnail."""
    with Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) as picture:
        return np.asarray(picture)


class TestWhatWasMeasured:
    @pytest.mark.parametrize("split", [(), ("--split", "held-out", "--held-out", 0.99)])
    def test_reports_say_which_pairs(self, data, cli, tmp_path, split):
        out = tmp_path / "out"
        given = ("--make", "gaussian:25", *split, "--precision", "fp32", "--tile", "none")
        done = cli("evaluate", "identity", "--data", data / "high", *given, "-o", out)
        assert done.code == 0, done.err
        share = ", the share of 0.99 that is held out" if split else ""
        said = f"scenes of {data / 'high'}, inputs made: gaussian:25{share}, 95% interval"
        assert said in done.out
        assert said in (out / "results.md").read_text()
        assert "Computed in fp32." in done.out
        (found,) = json.loads((out / "results.json").read_text())
        assert found["data"] == {
            "folder": str(data / "high"),
            "make": "gaussian:25",
            "held_out": 0.99 if split else None,
            "scene": "",
        }

    def test_one_scene_has_no_interval(self, data, cli):
        done = cli("evaluate", "identity", "--data", data, "--scene", "^()", "--metric", "psnr")
        row = done.out.splitlines()[2]
        assert re.fullmatch(r"\| builtin:identity \| \d+\.\d\d \|", row)
        assert "95%" not in done.out

    def test_a_share_without_a_split(self, data, cli):
        done = cli("evaluate", "identity", "--data", data, "--held-out", 0.2)
        said = "--held-out is the share of --split held-out; give both, or neither"
        assert (done.code, done.err) == (1, f"error: {said}\n")


class TestMeasure:
    def test_every_picture_is_shown_at_its_own_size(self, data):
        pair = chosen_pairs(data / "high", made=True)[0]
        evaluation = Evaluation(enhancekit.load("spline-x2"), find_protocol("rgb"))
        strip = measure(read_sample(pair, "bicubic-x2"), [evaluation], pictures=True)
        sizes = {caption: shown(address).shape for caption, address in strip.items()}
        assert sizes == {
            "input": (10, 12, 3),
            "builtin:spline-x2": (20, 24, 3),
            "reference": (20, 24, 3),
        }

    def test_noise_beyond_black_and_white_is_shown_cut_off(self):
        reference = np.zeros((32, 40, 3), np.uint8)
        reference[:, 20:] = 255
        outside = np.where(reference > 0, np.float32(1.9), np.float32(-0.9))
        evaluation = Evaluation(enhancekit.load("identity"), find_protocol("rgb"))
        strip = measure(Sample("a", "a", outside, reference), [evaluation], pictures=True)
        assert strip["input"] == strip["reference"] == strip["builtin:identity"]
        assert np.abs(shown(strip["input"]).astype(int) - reference).max() < 12
        assert len(evaluation.rows) == 1


def strictly(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


class TestFiles:
    def test_there_are_four(self, made, tmp_path):
        write_report(tmp_path / "new" / "folder", *made, "title")
        assert {p.name for p in (tmp_path / "new" / "folder").iterdir()} == FILES

    def test_csv_is_the_rows(self, made, tmp_path):
        write_report(tmp_path, *made, "title")
        with (tmp_path / "pictures.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        wanted = [
            {"enhancer": e.enhancer.entry.qualified_name, **row} for e in made[0] for row in e.rows
        ]
        assert len(found) == len(wanted) == 6
        for row, want in zip(found, wanted, strict=True):
            assert row.keys() == want.keys()
            for key, value in want.items():
                assert (row[key] if isinstance(value, str) else float(row[key])) == value

    def test_json_is_everything(self, made, tmp_path):
        write_report(tmp_path, *made, "title")
        found = strictly((tmp_path / "results.json").read_text())
        assert found == json.loads(json.dumps(as_dict(made[0])))
        assert [e["enhancer"] for e in found] == ["builtin:identity", "builtin:gamma"]
        for evaluation, entry in zip(made[0], found, strict=True):
            assert (entry["pairs"], entry["scenes"], entry["protocol"]) == (3, 3, "lol")
            assert entry["precision"] == "fp32"
            assert entry["distribution"].startswith("enhancekit ")
            assert entry["pictures"] == evaluation.rows
            for name, summary in evaluation.summaries().items():
                assert entry["metrics"][name]["mean"] == summary.mean
                assert entry["metrics"][name]["interval"] == list(summary.interval)
                assert entry["metrics"][name]["worst_picture"] == summary.worst_picture

    def test_how_each_metric_is_computed_stands_below(self, made):
        assert "psnr: over all channels, peak 1; ssim: scikit-image, " in as_markdown(made[0])

    def test_a_bar_in_a_name_is_none_of_the_table(self, made, monkeypatch):
        monkeypatch.setattr(made[0][0], "options", {"how": "a|b"})
        assert "| builtin:identity how=a\\|b | " in as_markdown(made[0])

    def test_markdown_has_a_row_for_each_enhancer(self, made, tmp_path):
        write_report(tmp_path, *made, "title")
        text = (tmp_path / "results.md").read_text()
        assert text == as_markdown(made[0])
        head, rule, *rows = [
            [c.strip() for c in line.strip("|").split("|")]
            for line in text.splitlines()
            if line.startswith("|")
        ]
        assert head[:4] == ["enhancer", "psnr, dB", "psnr (GT-mean), dB", "ssim"]
        assert set(rule) == {"---"}
        assert [row[0] for row in rows] == ["builtin:identity", "builtin:gamma"]
        for evaluation, row in zip(made[0], rows, strict=True):
            assert len(row) == len(head) == len(rule)
            for summary, cell in zip(evaluation.summaries().values(), row[1:], strict=True):
                mean, low, high = (float(n) for n in re.findall(r"[\d.]+", cell))
                tolerance = 0.00501 if summary.unit == "dB" else 0.0000501
                assert mean == pytest.approx(summary.mean, abs=tolerance)
                assert [low, high] == pytest.approx(list(summary.interval), abs=tolerance)
        assert "Means over 3 pictures of 3 scenes, 95% interval by scene" in text
        assert f"Protocol `lol`: {find_protocol('lol').text}" in text

    def test_an_infinite_figure_is_strict_json_too(self, data, tmp_path):
        evaluation = Evaluation(enhancekit.load("identity"), find_protocol("rgb"))
        for path in (data / "high").iterdir():
            (data / "low" / path.name).write_bytes(path.read_bytes())
        strips = measure_all(data, [evaluation])
        write_report(tmp_path / "out", [evaluation], strips, "equal")
        assert evaluation.rows[0]["psnr"] == math.inf
        (found,) = strictly((tmp_path / "out" / "results.json").read_text())
        assert float(found["metrics"]["psnr"]["mean"]) == math.inf
        assert found["metrics"]["ssim"]["mean"] == 1.0


class TestPage:
    @pytest.fixture
    def text(self, made, tmp_path):
        write_report(tmp_path, *made, f"title of {NASTY}")
        return (tmp_path / "report.html").read_text()

    def test_stands_alone(self, text):
        page = Page(text)
        assert not re.search(r"https?://|url\(|@import", text)
        assert not {"script", "link", "iframe", "object"} & set(page.tags)
        assert len(page.addresses) == page.tags.count("img") == 3 * 4
        assert all(a.startswith("data:image/jpeg;base64,") for a in page.addresses)

    def test_names_are_escaped(self, text):
        assert "<script" not in text
        page = Page(text)
        assert page.texts["title"] == page.texts["h1"] == [f"title of {NASTY}"]
        assert NASTY in page.texts["h2"]

    def test_the_worst_of_the_first_enhancer_comes_first(self, text, made):
        rows = sorted(made[0][0].rows, key=lambda row: row["psnr"])
        assert Page(text).texts["h2"] == [row["picture"] for row in rows] == ["c|d", "a, b", NASTY]

    def test_each_strip_goes_from_input_to_reference_with_figures(self, text, made):
        wanted = []
        for name in ("c|d", "a, b", NASTY):
            first, second = (
                next(f"{r['psnr']:.4g}" for r in e.rows if r["picture"] == name) for e in made[0]
            )
            wanted += ["input", f"builtin:identity {first}", f"builtin:gamma {second}", "reference"]
        assert Page(text).texts["figcaption"] == wanted

    def test_the_table_is_that_of_the_markdown(self, text, made):
        page = Page(text)
        assert page.texts["th"][:3] == ["enhancer", "psnr, dB", "psnr (GT-mean), dB"]
        cells = [e.enhancer.entry.qualified_name for e in made[0]]
        assert [c for c in page.texts["td"] if ":" in c] == cells
        assert len(page.texts["td"]) == 2 * len(page.texts["th"])

    def test_worst_first_also_where_less_is_better(self, data, tmp_path):
        evaluation = Evaluation(enhancekit.load("identity"), find_protocol("rgb"), ["mae"])
        strips = measure_all(data, [evaluation], pictures=False)
        assert set(map(len, strips.values())) == {0}
        write_report(tmp_path, [evaluation], strips, "title")
        page = Page((tmp_path / "report.html").read_text())
        assert page.texts["h2"] == ["c|d", "a, b", NASTY]
        assert "img" not in page.tags


class TestNotWritten:
    @pytest.mark.parametrize("place", ["", "below"])
    def test_a_file_in_the_way(self, made, tmp_path, place):
        (tmp_path / "taken").write_text("mine")
        with pytest.raises(DataError, match=r"the report cannot be written to .*taken"):
            write_report(tmp_path / "taken" / place, *made, "title")
        assert (tmp_path / "taken").read_text() == "mine"

    @pytest.mark.parametrize("fails", [1, 3])
    def test_a_full_disk_leaves_whole_files(self, made, tmp_path, monkeypatch, fails):
        out = tmp_path / "out"
        write_report(out, *made, "the first")
        before = {p.name: p.read_bytes() for p in out.iterdir()}
        calls = []

        def fsync(number):
            calls.append(number)
            if len(calls) == fails:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(DataError, match="No space left"):
            write_report(out, *made, "the second")
        assert len(calls) == fails
        assert {p.name for p in out.iterdir()} == FILES
        assert (out / "report.html").read_bytes() == before["report.html"]
        strictly((out / "results.json").read_text())


class TestCommandLine:
    def test_end_to_end(self, data, tmp_path, cli):
        out = tmp_path / "out"
        done = cli(
            *("evaluate", "identity", "gamma", "--data", data, "-o", out),
            *("--protocol", "lol", "--gt-mean"),
        )
        assert (done.code, done.err) == (0, "")
        assert {p.name for p in out.iterdir()} == FILES
        assert done.out.strip() == (out / "results.md").read_text().strip()
        for name in ("psnr", "ssim", "mae", "delta_e"):
            assert f"{name} (GT-mean)" in done.out
        page = Page((out / "report.html").read_text())
        assert page.texts["h1"] == ["identity, gamma on data"]
        assert len(page.addresses) == 3 * 4

    @pytest.mark.parametrize(
        ("names", "make"),
        [(("identity", "nl-means"), "gaussian:25"), (("spline-x2",), "bicubic-x2")],
    )
    def test_inputs_made_of_references(self, data, tmp_path, cli, names, make):
        out = tmp_path / "out"
        done = cli("evaluate", *names, "--data", data / "high", "--make", make, "-o", out)
        assert (done.code, done.err) == (0, "")
        page = Page((out / "report.html").read_text())
        assert page.texts["h1"] == [f"{', '.join(names)} on high {make}"]
        assert len(page.addresses) == 3 * (2 + len(names))
        found = strictly((out / "results.json").read_text())
        assert [entry["pairs"] for entry in found] == [3] * len(names)

    def test_json_is_strict(self, data, cli):
        for path in (data / "high").iterdir():
            (data / "low" / path.name).write_bytes(path.read_bytes())
        done = cli("evaluate", "identity", "--data", data, "--metric", "psnr", "--json")
        assert done.code == 0, done.err
        (found,) = strictly(done.out)
        assert list(found["metrics"]) == ["psnr"]
        assert float(found["metrics"]["psnr"]["mean"]) == math.inf

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (
                ("--option", "width=4"),
                "--option and --control belong to one enhancer; evaluate it alone",
            ),
            (("--weights", "a"), "--weights stands once for each enhancer, in their order"),
            (3 * ("--weights", "a"), "--weights stands once for each enhancer, in their order"),
        ],
    )
    def test_what_does_not_fit_two_enhancers(self, data, cli, given, said):
        done = cli("evaluate", "identity", "gamma", "--data", data, *given)
        assert (done.code, done.out, done.err) == (1, "", f"error: {said}\n")

    def test_weights_go_to_the_enhancers_in_their_order(self, data, cli, tmp_path):
        paths = [tmp_path / name for name in ("shipped.safetensors", "untrained.safetensors")]
        for path, pretrained in zip(paths, (True, False), strict=True):
            enhancekit.load("mfnn-lite", pretrained=pretrained, device="cpu").save(path)
        names = ["mfnn-lite"] * 2
        given = [part for path in paths for part in ("--weights", path)]
        command = ("evaluate", "--data", data, "--metric", "psnr", "--json")
        both = strictly(cli(*command, *names, *given).out)
        alone = [strictly(cli(*command, names[0], "--weights", path).out)[0] for path in paths]
        assert both == alone
        assert both[0] != both[1]

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (("--protocol", "lab"), "no protocol is called 'lab'; there are rgb, lol, y-border2"),
            (("--metric", "psrn"), "psrn"),
            (("--data", "nowhere"), "nowhere is not a folder"),
            (("--protocol", "y-border2", "--metric", "delta_e"), "luma alone"),
        ],
    )
    def test_one_line_of_error(self, data, cli, given, said):
        done = cli("evaluate", "identity", "--data", data, *given)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert said in done.err


class TestLabels:
    @pytest.fixture
    def evaluations(self, data, tmp_path):
        """One network with two sets of weights, and a function with two options."""
        made = []
        for seed in (0, 1):
            enhancer = enhancekit.load("mfnn-lite", pretrained=False, device="cpu", **WEIGHTS)
            torch.manual_seed(seed)
            torch.nn.init.normal_(enhancer.module.head.final.bias, std=3)
            path = tmp_path / f"{seed}.safetensors"
            enhancer.save(path)
            made.append(Evaluation(enhancer, find_protocol("rgb"), ["psnr"], weights=path))
        for gamma in (0.5, 0.5, 0.7):
            enhancer = enhancekit.load("gamma", gamma=gamma)
            made.append(
                Evaluation(enhancer, find_protocol("rgb"), ["psnr"], options={"gamma": gamma})
            )
        return made

    def test_every_row_says_what_was_measured(self, data, tmp_path, evaluations):
        strips = {
            pair.name: measure(read_sample(pair), evaluations, pictures=True)
            for pair in chosen_pairs(data)
        }
        labels = [f"mfnn:mfnn-lite {tmp_path / f'{seed}.safetensors'}" for seed in (0, 1)]
        labels += [
            "builtin:gamma gamma=0.5",
            "builtin:gamma gamma=0.5 #2",
            "builtin:gamma gamma=0.7",
        ]
        found = as_dict(evaluations)
        assert [entry["label"] for entry in found] == labels
        digest = hashlib.sha256((tmp_path / "1.safetensors").read_bytes()).hexdigest()
        weights = {"file": str(tmp_path / "1.safetensors"), "sha256": digest}
        assert [entry["weights"] for entry in found[1:3]] == [weights, None]
        assert found[4]["options"] == {"gamma": 0.7}
        rows = [line for line in as_markdown(evaluations).splitlines() if line.startswith("| ")]
        assert [row.split(" | ")[0].lstrip("| ") for row in rows[2:]] == labels
        write_report(tmp_path / "report", evaluations, strips, "t")
        table = csv.DictReader(io.StringIO((tmp_path / "report/pictures.csv").read_text()))
        assert list(dict.fromkeys(row["enhancer"] for row in table)) == labels
        captions = Page((tmp_path / "report/report.html").read_text()).texts["figcaption"]
        for label, evaluation in zip(labels, evaluations, strict=True):
            for row in evaluation.rows:
                assert f"{label} {row['psnr']:.4g}" in captions
        for strip in strips.values():
            assert list(strip) == ["input", *labels, "reference"]
            assert strip[labels[0]] != strip[labels[1]]
            assert strip[labels[2]] == strip[labels[3]]
