"""Runs that end badly: killed, NaN, full disks; what is left can be trusted and gone on from."""

from __future__ import annotations

import csv
import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from enhancekit.builtin.losses import L1
from enhancekit.errors import DataError, DeviceError, EnhanceKitError, NonFiniteError
from enhancekit.training.batches import Batches
from enhancekit.training.loop import Trainer
from enhancekit.training.recipe import read_recipe

SHIPPED = "enhancekit_mfnn:recipes/mfnn-lite.toml"
STEPS, SAVE_EVERY, PHASE = 12, 4, 6
KILLED = """
import os, signal, sys, torch
from enhancekit.cli import main

honest, saved = torch.save, []

def save(state, file):
    saved.append(state["step"])
    if len(saved) == 2:
        file.write(b"half a checkpoint")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    honest(state, file)

torch.save = save
main()
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Compute in one thread, as the process that is killed does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def changes(tiny_recipe):
    """Changes that make a tiny recipe with everything in it that could break resuming."""

    def make(out, *more):
        return tiny_recipe(
            out,
            "loss='l1 + 0.1*ssim'",
            f"phases=[{{step = {PHASE}, loss = 'charbonnier + 0.5*grad'}}]",
            "data.held_out=0.3",
            "data.shrink=[1, 2]",
            "data.crop=12",
            "optim.lr=5e-3",
            "optim.ema=0.9",
            "optim.warm_up=2",
            "optim.weight_decay=0.01",
            f"run.steps={STEPS}",
            "run.batch=2",
            f"run.save_every={SAVE_EVERY}",
            "run.validate_every=5",
            "run.log_every=1",
            *more,
            options="{width = 4, counts = [1, 1], dropout = 0.3}",
        )

    return make


@pytest.fixture(scope="module")
def recipe(changes):
    return lambda out, *more: read_recipe(SHIPPED, changes(out, *more))


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """Return the folder of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    for _ in Trainer(recipe(out), device="cpu").run():
        pass
    return out


def options(changes):
    return [word for change in changes for word in ("--set", change)]


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def state_of(folder):
    return torch.load(folder / "state.pt", weights_only=True)


def equal(a, b):
    """Compare nested states to the bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_killed_while_checkpointing_and_resumed_is_the_same_to_the_bit(
    whole, changes, tmp_path, cli
):
    out = tmp_path / "run"
    arguments = ["train", SHIPPED, *options(changes(out))]
    (tmp_path / "killed.py").write_text(KILLED)
    done = subprocess.run(
        [sys.executable, tmp_path / "killed.py", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = state_of(out)
    assert left["step"] == SAVE_EVERY
    assert SAVE_EVERY * 2 % 5  # five pictures, two a step: amid an epoch
    assert max(int(row["step"]) for row in rows(out)) == 2 * SAVE_EVERY
    with (out / "metrics.csv").open("a") as file:
        file.write(f"{SAVE_EVERY + 1},loss,777\n")

    resumed = cli(*arguments, "--resume")
    assert (resumed.code, resumed.err) == (0, "")
    wanted, found = state_of(whole), state_of(out)
    assert found["step"] == STEPS
    for part in ("network", "average", "optimiser", "best"):
        assert equal(wanted[part], found[part]), part
    assert not equal(left["network"], found["network"])
    assert (out / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


class TestRecords:
    def test_metrics(self, whole):
        found = rows(whole)
        names = {s: {r["name"] for r in found if int(r["step"]) == s} for s in range(1, STEPS + 1)}
        for step, given in names.items():
            terms = {"l1", "ssim"} if step <= PHASE else {"charbonnier", "grad"}
            validated = {"psnr/low"} if step in {5, 10, STEPS} else set()
            assert given == {"loss", "lr"} | {f"loss/{t}" for t in terms} | validated
        values = {(int(r["step"]), r["name"]): float(r["value"]) for r in found}
        assert len(values) == len(found)
        for step in range(1, STEPS + 1):
            first, second = (
                (values[step, "loss/l1"], 0.1 * values[step, "loss/ssim"])
                if step <= PHASE
                else (values[step, "loss/charbonnier"], 0.5 * values[step, "loss/grad"])
            )
            # the rest is the loss of the thumbnails
            assert values[step, "loss"] > first + second - 1e-5
        assert [values[s, "lr"] for s in (1, 2, 3)] == pytest.approx([2.5e-3, 5e-3, 5e-3], rel=1e-3)

    @pytest.mark.parametrize("every", [3, 4])
    def test_log_every(self, recipe, tmp_path, every):
        more = (f"run.log_every={every}", "run.steps=7", "run.validate_every=100")
        list(Trainer(recipe(tmp_path, *more), device="cpu").run())
        assert sorted({int(r["step"]) for r in rows(tmp_path)}) == sorted(
            {*range(every, 8, every)} | {7}
        )

    def test_recipe_and_environment(self, whole, recipe):
        assert json.loads((whole / "recipe.json").read_text()) == recipe(whole).model_dump(
            mode="json"
        )
        found = json.loads((whole / "environment.json").read_text())
        assert found["torch"] == torch.__version__
        assert found["python"] == ".".join(map(str, sys.version_info[:3]))
        assert found["threads"] == 1
        assert found["plugins"]["builtin"].startswith("enhancekit ")
        assert found["plugins"]["mfnn"].startswith("enhancekit-mfnn ")

    def test_samples_show_input_output_reference(self, whole, pairs):
        # scene 4 is held out
        names = {f"low-4-{step:07d}.jpg" for step in (5, 10, STEPS)}
        assert {p.name for p in (whole / "samples").iterdir()} == names
        for name in names:
            with Image.open(whole / "samples" / name) as sample:
                strip = np.asarray(sample).astype(float)
            assert strip.shape == (24, 3 * 24, 3)
            for side, start in (("low", 0), ("high", 48)):
                with Image.open(pairs / side / "4.png") as picture:
                    wanted = np.asarray(picture).astype(float)
                seen = strip[:, start : start + 24]
                assert seen.mean() == pytest.approx(wanted.mean(), abs=3)
                assert np.corrcoef(seen.mean(2).ravel(), wanted.mean(2).ravel())[0, 1] > 0.7

    def test_tensorboard_has_the_same_figures(self, recipe, tmp_path, monkeypatch):
        shown = []
        monkeypatch.setattr(
            SummaryWriter, "add_scalar", lambda _, name, value, step: shown.append((step, name))
        )
        list(Trainer(recipe(tmp_path, "run.steps=2", "phases=[]"), device="cpu").run())
        assert shown == [(int(r["step"]), r["name"]) for r in rows(tmp_path)]
        assert len(list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))) == 1

    def test_tensorboard_is_written(self, whole):
        (events,) = (whole / "tensorboard").iterdir()
        data = events.read_bytes()
        for name in ("loss/charbonnier", "psnr/low", "lr"):
            assert data.count(name.encode()) >= 3


class TestNonFinite:
    @pytest.mark.parametrize(("accumulate", "number", "step"), [(1, 3, 3), (2, 3, 1)])
    def test_a_batch_names_itself(
        self, changes, tmp_path, monkeypatch, cli, accumulate, number, step
    ):
        honest = Batches.batch

        def batch(self, asked, size):
            given = honest(self, asked, size)
            if asked == number:
                given.input[0, 0, 3, 3] = torch.nan
            return given

        monkeypatch.setattr(Batches, "batch", batch)
        more = (f"run.accumulate={accumulate}", "run.save_every=1")
        arguments = ["train", SHIPPED, *options(changes(tmp_path / "run", *more))]
        done = cli(*arguments)
        assert done.code == 1
        assert done.err.startswith(f"error: the loss at step {step}, batch {number}, is nan")
        assert done.err.count("\n") == 1
        state = state_of(tmp_path / "run")
        assert state["step"] == step
        assert all(torch.isfinite(t).all() for t in state["network"].values())
        monkeypatch.setattr(Batches, "batch", honest)
        assert cli(*arguments, "--resume").code == 0

    def test_a_target_too(self, recipe, tmp_path, monkeypatch):
        honest = Batches.batch

        def batch(self, asked, size):
            given = honest(self, asked, size)
            given.target[-1, 2, 0, 0] = torch.inf
            return given

        monkeypatch.setattr(Batches, "batch", batch)
        with pytest.raises(NonFiniteError, match="step 0, batch 0"):
            list(Trainer(recipe(tmp_path / "run"), device="cpu").run())

    def test_too_little_memory_in_the_backward_pass(self, recipe, tmp_path, monkeypatch):
        class Greedy(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, grad):
                raise torch.OutOfMemoryError("not enough memory")

        honest = L1.per_picture
        monkeypatch.setattr(L1, "per_picture", lambda self, o, r: honest(self, Greedy.apply(o), r))
        with pytest.raises(DeviceError, match="out of memory"):
            list(Trainer(recipe(tmp_path / "run"), device="cpu").run())


def full(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


def half(state, file):
    file.write(b"half")
    full()


def as_torch_says_it(state, file):
    raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")


def truly(state, file, honest=torch.save):
    """Save under a limit on the size of files, which fails as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        honest(state, file)
        file.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestFullDisk:
    @pytest.mark.parametrize(
        ("module", "name", "fails"),
        [
            (os, "fsync", full),
            (torch, "save", half),
            (torch, "save", as_torch_says_it),
            (torch, "save", truly),
        ],
        ids=["fsync", "half", "torch", "limit"],
    )
    def test_the_old_checkpoint_stays(
        self, recipe, changes, tmp_path, monkeypatch, cli, module, name, fails
    ):
        out = tmp_path / "run"
        more = ("run.save_every=1", "run.validate_every=100", "run.steps=3")
        next(Trainer(recipe(out, *more), device="cpu").run())
        before = (out / "state.pt").read_bytes()
        files = {p.name for p in out.iterdir()}
        monkeypatch.setattr(module, name, fails)
        done = cli("train", SHIPPED, *options(changes(out, *more)), "--resume")
        assert done.code == 1
        assert done.err.startswith(f"error: the checkpoint {out / 'state.pt'} cannot be written: ")
        assert done.err.count("\n") == 1
        assert (out / "state.pt").read_bytes() == before
        assert {p.name for p in out.iterdir()} == files
        monkeypatch.undo()
        list(Trainer(recipe(out, *more), resume=True, device="cpu").run())
        assert state_of(out)["step"] == 3

    @pytest.mark.parametrize("file", ["recipe.json", "metrics.csv"])
    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
    def test_records(self, recipe, tmp_path, file):
        (tmp_path / file).symlink_to("/dev/full")
        with pytest.raises(DataError, match="No space left"):
            list(Trainer(recipe(tmp_path, "run.steps=1"), device="cpu").run())

    def test_what_a_killed_save_left_is_cleared_away(self, recipe, tmp_path):
        (tmp_path / ".enhancekit-0123").write_bytes(b"half a checkpoint")
        list(Trainer(recipe(tmp_path, "run.steps=1"), device="cpu").run())
        assert not (tmp_path / ".enhancekit-0123").exists()

    @pytest.mark.parametrize("below", ["", "run"])
    def test_a_file_where_the_run_should_stand(self, recipe, tmp_path, below):
        (tmp_path / "taken").write_text("mine")
        with pytest.raises(EnhanceKitError, match="taken"):
            list(Trainer(recipe(tmp_path / "taken" / below, "run.steps=1"), device="cpu").run())


def test_checkpointing_blocks_gives_the_same_gradients(tiny_recipe, tmp_path, monkeypatch):
    recomputed, gradients = [], []
    honest = torch.utils.checkpoint.checkpoint
    for module in ("torch.utils.checkpoint.checkpoint", "enhancekit_mfnn.blocks.checkpoint"):
        monkeypatch.setattr(
            module, lambda *a, **k: recomputed.append(1) or honest(*a, **k), raising=False
        )
    for wanted in ("false", "true"):
        changed = tiny_recipe(
            tmp_path / wanted,
            "run.steps=1",
            options=f"{{width = 4, counts = [2, 2], dropout = 0.3, checkpointing = {wanted}}}",
        )
        trainer = Trainer(read_recipe(SHIPPED, changed), device="cpu")
        list(trainer.run())
        assert bool(recomputed) == (wanted == "true")
        gradients.append({n: p.grad for n, p in trainer.network.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-8, msg=name)
