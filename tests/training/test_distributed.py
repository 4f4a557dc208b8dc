"""Two processes under ``torchrun`` do what one does, and one of them speaks."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest
import torch

SHIPPED = "enhancekit_mfnn:recipes/mfnn-lite.toml"
MAIN = "from enhancekit.cli import main\nmain()\n"

gloo = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch has no gloo",
)


@pytest.fixture
def arguments(tiny_recipe):
    """Arguments of a tiny run that uses whatever could differ between processes."""

    def make(out, accumulate=2):
        changes = tiny_recipe(
            out,
            "loss='charbonnier'",
            "data.crop=12",
            "data.held_out=0.3",
            "optim.lr=5e-3",
            "optim.clip=0.5",
            "optim.warm_up=0",
            "optim.ema=0.5",
            "run.steps=4",
            f"run.accumulate={accumulate}",
            "run.log_every=1",
            options="{width = 4, counts = [1, 1], dropout = 0.3}",
        )
        return ["train", SHIPPED, *(word for c in changes for word in ("--set", c))]

    return make


@pytest.fixture
def one_thread():
    """Compute in one thread, as each process under torchrun does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return {(r["step"], r["name"]): float(r["value"]) for r in csv.DictReader(file)}


@gloo
@pytest.mark.usefixtures("one_thread")
def test_two_processes_are_one_with_twice_the_accumulation(arguments, tmp_path, cli):
    (tmp_path / "main.py").write_text(MAIN)
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--redirects=3"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", *launcher, "--log-dir", tmp_path / "logs"),
            *(tmp_path / "main.py", *arguments(tmp_path / "two")),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    logs = {path.parent.name: path for path in (tmp_path / "logs").rglob("stdout.log")}
    assert sorted(logs) == ["0", "1"], done.stderr
    said = [log.with_name("stderr.log").read_text() for log in logs.values()]
    assert done.returncode == 0, "\n".join((done.stderr, *said))
    alone = cli(*arguments(tmp_path / "one"))
    assert alone.code == 0, alone.err

    states = [torch.load(tmp_path / n / "state.pt", weights_only=True) for n in ("one", "two")]
    assert states[0]["step"] == states[1]["step"] == 4
    for part in ("network", "average"):
        one, two = (state[part] for state in states)
        assert one.keys() == two.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-6, msg=name)
    assert any(
        not torch.equal(value, states[0]["average"][name])
        for name, value in states[0]["network"].items()
    )
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert {step for step, name in one if name == "loss"} == set("1234")
    assert two == pytest.approx(one, rel=1e-4)

    # the first process writes and speaks for both
    assert logs["1"].read_text() == ""
    assert logs["0"].read_text().splitlines()[-1] == f"weights: {tmp_path}/two/best.safetensors"
    assert logs["0"].read_text().count("held out") == alone.out.count("held out") > 0
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1
    assert {p.name for p in (tmp_path / "two").iterdir()} == {
        p.name for p in (tmp_path / "one").iterdir()
    }


@pytest.mark.parametrize(("accumulate", "processes"), [(3, 2), (1, 2), (6, 4)])
def test_batches_that_cannot_be_shared_out(
    arguments, tmp_path, cli, monkeypatch, accumulate, processes
):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    done = cli(*arguments(tmp_path / "run", accumulate))
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"error: run.accumulate: {accumulate} batches cannot be shared out evenly over "
        f"{processes} processes; set it to a multiple\n"
    )
    assert not (tmp_path / "run").exists()
