"""Folders with Ray: the same outputs, each once, also when a worker is killed."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import signal
import sys
import warnings
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from enhancekit.batch import Ray, cluster, enhance_folder, worker
from enhancekit.batch.cluster import share_of
from enhancekit.errors import DeviceError, FolderError, ImageWarning, OptionError


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


class GoneError(Exception):
    """What `FakeRay` raises for a worker that is no more."""


def copied(thing):
    return pickle.loads(pickle.dumps(thing))  # noqa: S301  our own, of this moment


class FakeActor:
    """A worker in a thread; what goes to it and comes back is pickled, as Ray does."""

    def __init__(self, ray, worker):
        self.ray, self.worker = ray, worker
        self.pool = ThreadPoolExecutor(1)

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *given: self.pool.submit(self.call, name, given))

    def call(self, name, given):
        given = copied(given)
        if self.ray.ends(name, given):
            raise GoneError("its process has died")
        return copied(getattr(self.worker, name)(*given))


class FakeRay(ModuleType):
    """As much of Ray as is used, in threads; `ends` tells which calls take their worker down."""

    exceptions = SimpleNamespace(RayError=GoneError)

    def __init__(self, ends=lambda name, given: False):
        super().__init__("ray")
        self.ends = ends
        self.actors, self.killed, self.running = [], [], False

    def is_initialized(self):
        return self.running

    def init(self, **given):
        self.running = True

    def shutdown(self):
        self.running = False

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {}}]

    def remote(self, **given):
        def hire(kind):
            self.actors.append(FakeActor(self, kind()))
            return self.actors[-1]

        return lambda kind: SimpleNamespace(remote=lambda: hire(kind))

    def wait(self, refs, num_returns, timeout):
        done = wait(refs, timeout, FIRST_COMPLETED).done
        return list(done)[:num_returns], []

    def get(self, ref):
        return ref.result()

    def kill(self, actor):
        self.killed.append(actor)


@pytest.fixture
def fake(monkeypatch):
    def put(**given):
        ray = FakeRay(**given)
        monkeypatch.setitem(sys.modules, "ray", ray)
        return ray

    # which workers change for their process
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    return put


@pytest.fixture
def source(tmp_path):
    for i in range(10):
        save(tmp_path / "in" / f"{i:02}.png", i)
    return tmp_path / "in"


class TestWorkers:
    def test_a_picture_that_takes_workers_down(self, tmp_path, fake, source):
        save(source / "05x.png", 5)
        ray = fake(ends=lambda name, given: name == "step" and "05x" in str(given[0]))
        found = {
            r.input.name: r
            for r in enhance_folder(source, tmp_path / "out", "gamma", jobs=3, ray=Ray("local", 2))
        }
        bad = found.pop("05x.png")
        assert bad.status == "failed"
        assert "05x.png: 3 workers of Ray ended while they made it" in bad.error
        assert {r.status for r in found.values()} == {"done"}
        assert (len(ray.actors), ray.running) == (2 + 3, False)
        assert set(ray.killed) == set(ray.actors)
        (source / "05x.png").unlink()
        list(enhance_folder(source, tmp_path / "plain", "gamma"))
        assert tree(tmp_path / "out") == tree(tmp_path / "plain")
        lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
        assert sorted(json.loads(line)["input"] for line in lines) == sorted([*found, "05x.png"])

    def test_closing_finishes_what_is_in_hand(self, tmp_path, fake, source):
        fake()
        results = enhance_folder(source, tmp_path / "out", "gamma", jobs=2, ray=Ray("local", 2))
        next(results)
        results.close()
        made = set(tree(tmp_path / "out"))
        assert 1 <= len(made) <= 4
        lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
        assert {json.loads(line)["output"] for line in lines} == made

    @pytest.mark.filterwarnings("ignore:a worker of Ray could not start:UserWarning")
    def test_workers_that_cannot_start(self, tmp_path, fake, source):
        ray = fake(ends=lambda name, given: name == "open")
        with pytest.raises(DeviceError, match=r"could not start: GoneError: its process has died"):
            list(enhance_folder(source, tmp_path / "out", "gamma", ray=Ray("local", 2)))
        assert not ray.running
        assert len(ray.actors) < 12

    def test_a_worker_that_would_make_something_else(self, tmp_path, fake, source, monkeypatch):
        fake()

        class Elsewhere(worker.Worker):
            def open(self, plan, settings, *rest):
                other = replace(settings, version="enhancekit 99")
                return super().open(plan, other, *rest)

        monkeypatch.setattr(cluster, "Worker", Elsewhere)
        with pytest.raises(DeviceError, match=r"would not make the same outputs.*enhancekit 99"):
            list(enhance_folder(source, tmp_path / "out", "gamma", ray=Ray("local", 1)))

    def test_a_worker_that_does_not_see_the_folders(self, tmp_path, fake, source, monkeypatch):
        fake()

        class Elsewhere(worker.Worker):
            def open(self, plan, settings, staging, *rest):
                return super().open(plan, settings, staging / "not" / "here", *rest)

        monkeypatch.setattr(cluster, "Worker", Elsewhere)
        with pytest.raises(FolderError, match="must share the folders"):
            list(enhance_folder(source, tmp_path / "out", "gamma", ray=Ray("local", 1)))

    def test_what_is_wrong_for_all_is_raised(self, tmp_path, fake, source):
        fake()
        with pytest.raises(OptionError, match="strength"):
            list(enhance_folder(source, tmp_path / "out", "gamma", strength=2, ray=Ray()))
        assert not (tmp_path / "out").exists()

    def test_warnings_come_back(self, tmp_path, fake, monkeypatch):
        (tmp_path / "in").mkdir()
        pages = [Image.new("L", (4, 4), i) for i in range(2)]
        pages[0].save(tmp_path / "in" / "a.tif", save_all=True, append_images=pages[1:])
        fake()
        said = []
        # here both sides are one process, of whose warnings the worker has taken possession
        warn = SimpleNamespace(
            warn=lambda text, category, stacklevel: said.append((text, category))
        )
        monkeypatch.setattr(cluster, "warnings", warn)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            list(enhance_folder(tmp_path / "in", tmp_path / "out", "gamma", ray=Ray()))
        ((text, category),) = said
        assert category is ImageWarning
        assert "a.tif: has several frames or pages, of which only the first is read" in text

    def test_nothing_to_do_starts_nothing(self, tmp_path, fake, source):
        list(enhance_folder(source, tmp_path / "out", "gamma"))
        ray = fake()
        found = list(enhance_folder(source, tmp_path / "out", "gamma", ray=Ray()))
        assert {r.status for r in found} == {"kept"}
        assert ray.actors == []


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
