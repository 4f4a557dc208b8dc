"""Folders with Ray: the same outputs, each once, also when a worker is killed."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from enhancekit.batch import Ray, enhance_folder
from enhancekit.batch.cluster import share_of
from enhancekit.errors import DeviceError, OptionError


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 80, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def tree(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.jsonl"}


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray, which is large, is not installed")
class TestWithRay:
    def test_a_killed_worker_loses_nothing(self, tmp_path, caplog):
        for i in range(16):
            save(tmp_path / "in" / f"{i:02}.png", i)
        (tmp_path / "in" / "bad.png").write_bytes(b"bad")
        given = {"jobs": 2, "encoding": None}
        list(enhance_folder(tmp_path / "in", tmp_path / "plain", "mfnn-lite", **given))
        caplog.set_level(logging.INFO, "enhancekit")
        results = enhance_folder(
            tmp_path / "in", tmp_path / "out", "mfnn-lite", **given, ray=Ray("local", 2)
        )
        found = [next(results) for _ in range(2)]
        # the worker that has nothing to do with what was just given still has pictures in hand
        pids = [int(n) for n in re.findall(r"is ready: process (\d+)", caplog.text)]
        os.kill(pids[0], signal.SIGKILL)
        found += results
        assert re.search(r"was lost .*; [12] pictures are made again", caplog.text)
        assert Counter(r.status for r in found) == {"done": 16, "failed": 1}
        assert tree(tmp_path / "out") == tree(tmp_path / "plain")
        lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        noted = Counter(record["input"] for record in records)
        assert noted == Counter(p.name for p in (tmp_path / "in").iterdir())
        (bad,) = [r["error"] for r in records if r["status"] == "failed"]
        assert "not a picture" in bad
        again = enhance_folder(tmp_path / "in", tmp_path / "out", "mfnn-lite", **given)
        assert Counter(r.status for r in again) == {"kept": 16, "failed": 1}

    def test_no_cluster_there(self, tmp_path, monkeypatch):
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        save(tmp_path / "in" / "a.png", 0)
        results = enhance_folder(tmp_path / "in", tmp_path / "out", "gamma", ray=Ray("auto"))
        with pytest.raises(DeviceError, match=r"Ray cannot be reached at 'auto'"):
            list(results)


def test_without_the_extra(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    save(tmp_path / "in" / "a.png", 0)
    done = cli("enhance", tmp_path / "in", "-o", tmp_path / "out", "-e", "gamma", "--ray", "local")
    assert done.code == 1
    assert "pip install 'enhancekit[ray]'" in done.err


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "wanted"),
    [
        ([{"CPU": 2}], "auto", None, (1, 2, 0, 2)),
        ([{"CPU": 2}], "auto", 2, (2, 1, 0, 1)),
        ([{"CPU": 8}, {"CPU": 4}], "cpu", 1, (1, 8, 0, 8)),
        ([{"CPU": 8}, {"CPU": 4}], "cpu", 2, (2, 4, 0, 4)),
        ([{"CPU": 64, "GPU": 8}, {"CPU": 4}], "cuda", None, (8, 1, 1, 8)),
        ([{"CPU": 8, "GPU": 2}], "auto", 3, (3, 1, 0.5, 2)),
        ([{"CPU": 2, "GPU": 4}], "auto", None, (4, 0.5, 1, 1)),
        ([{"CPU": 8, "GPU": 2}], "cpu", None, (2, 4, 0, 4)),
    ],
)
def test_a_cluster_is_shared_out(nodes, device, workers, wanted):
    found = share_of(nodes, device, workers)
    assert (found.workers, found.cpus, found.gpus, found.threads) == wanted


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "error", "said"),
    [
        ([{"CPU": 2}], "cuda", None, DeviceError, "2 CPUs and 0 GPUs"),
        ([], "auto", None, DeviceError, "0 CPUs"),
        ([{"CPU": 2, "GPU": 2}], "cuda:1", None, OptionError, "auto, cpu or cuda, not 'cuda:1'"),
        ([{"CPU": 2}], "auto", 500, OptionError, "more than a hundred"),
    ],
)
def test_what_cannot_be_shared_out(nodes, device, workers, error, said):
    with pytest.raises(error, match=said):
        share_of(nodes, device, workers)


@pytest.mark.parametrize(
    ("given", "said"), [({"workers": 0}, "at least 1"), ({"address": ""}, "address")]
)
def test_no_such_ray(given, said):
    with pytest.raises(OptionError, match=said):
        Ray(**given)
