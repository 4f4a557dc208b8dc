"""The training loop: it learns, it resumes to the bit, it refuses and it fails by name."""

from __future__ import annotations

import copy
import csv
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from pydantic import ValidationError

import enhancekit
from enhancekit.builtin.losses import L1
from enhancekit.errors import (
    DataError,
    DeviceError,
    EnhanceKitError,
    NonFiniteError,
    OptionError,
    PluginError,
    RecipeError,
    UnknownNameError,
    WeightsError,
)
from enhancekit.testing import isolated_plugins
from enhancekit.training.loop import Trainer, learning_rate
from enhancekit.training.pairs import is_held_out
from enhancekit.training.recipe import Optimiser, Recipe
from enhancekit.training.validation import validate
from enhancekit.weights import read_card, save_weights

WIDTH, HEIGHT = 48, 40
TINY = {"width": 4, "counts": [1, 1], "context": "mfnn:exposure"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Eight pairs of a smooth picture and a darker, yellowish one."""
    root = tmp_path_factory.mktemp("dataset")
    random = np.random.default_rng(0)
    for side in ("low", "high"):
        (root / side).mkdir()
    for i in range(8):
        coarse = Image.fromarray(random.integers(40, 256, (5, 6, 3), np.uint8))
        high = coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        low = (np.asarray(high) / 255.0) * (0.3, 0.28, 0.12)
        high.save(root / "high" / f"s{i}.png")
        Image.fromarray((low * 255).astype(np.uint8)).save(root / "low" / f"s{i}.png")
    return root


@pytest.fixture
def recipe(dataset, tmp_path):
    """Make a tiny recipe; sections are updated by the keywords."""

    def make(out="run", loss="l1", phases=(), loss_options=None, **sections):
        table = {
            "loss": loss,
            "phases": phases,
            "loss_options": loss_options or {},
            "data": {
                "root": str(dataset),
                "sources": [{"input": "low", "target": "high", "scene": r"(s\d)"}],
                "held_out": 0.3,
                "crop": 24,
            },
            "model": {"enhancer": "mfnn-lite", "options": TINY},
            "optim": {"lr": 5e-3},
            "run": {
                "out": str(tmp_path / out),
                "steps": 4,
                "batch": 2,
                "precision": "fp32",
                "validate_every": 100,
                "save_every": 100,
            },
        }
        for section, values in sections.items():
            table[section] |= values
        return Recipe.model_validate(table)

    return make


class TestThumbnails:
    """Decisions about whole pictures are taught by thumbnails, or nothing is said to be taught."""

    def test_thumbnails_that_teach_nothing(self, recipe):
        model = {"enhancer": "mfnn-denoise-lite", "options": {"width": 4, "counts": [1, 1]}}
        for loss, said in (("l1", "set it to 0$"), ("", "set it to 0, and give a loss$")):
            made = recipe(loss=loss, model=model, run={"context_batch": 2})
            with pytest.raises(RecipeError, match=f"'mfnn-denoise-lite' learns nothing .*{said}"):
                Trainer(made, device="cpu")

    def test_decisions_that_nothing_teaches_are_told_of(self, recipe, tmp_path):
        trainer, _ = train(recipe())
        (note,) = trainer.notes
        assert "context_batch is 0" in note
        assert Trainer(recipe("b", run={"context_batch": 2}), device="cpu").notes == []
        begun = {"weights": str(tmp_path / "run/last.safetensors")}
        assert Trainer(recipe("c", model=begun), device="cpu").notes == []


class TestCard:
    def test_it_says_what_the_weights_began_with(self, recipe, tmp_path):
        train(recipe("first", loss="charbonnier"))
        card = replace(read_card(tmp_path / "first/last.safetensors"), license="CC0-1.0")
        state = safetensors.torch.load_file(tmp_path / "first/last.safetensors")
        save_weights(tmp_path / "start.safetensors", state, replace(card, data="my garden"))
        model = {"weights": str(tmp_path / "start.safetensors"), "only": "head"}
        made = recipe("second", model=model, run={"save_every": 1})
        train(made, steps=2)
        (tmp_path / "start.safetensors").unlink()
        train(made, resume=True)
        found = read_card(tmp_path / "second/last.safetensors")
        assert found.license == "CC0-1.0"
        assert found.split == {"held_out": 0.3, "scenes": [r"(s\d)"]}
        assert found.training.startswith("weights of mfnn-lite (4 steps, loss charbonnier, enhance")
        assert found.training.endswith("only head")
        assert ", then 4 steps, loss l1, " in found.training
        assert found.data.startswith("low -> high; 30% ")
        assert found.data.endswith("; before, for the weights it began with: my garden")


class TestBrokenPairs:
    @pytest.fixture
    def broken(self, dataset, tmp_path):
        root = shutil.copytree(dataset, tmp_path / "broken")
        held = [i for i in range(8) if is_held_out(f"s{i}", 0.3)]
        trained = [i for i in range(8) if i not in held]
        (root / "high" / f"s{held[0]}.png").write_bytes(b"no picture")
        (root / "low" / f"s{trained[0]}.png").write_bytes(b"no picture")
        (root / "low" / f"s{trained[1]}.png").unlink()
        return root, held[0], trained[0], trained[1]

    def test_are_left_out_by_name_if_asked(self, recipe, broken):
        root, held, unreadable, alone = broken
        trainer = Trainer(recipe(data={"root": str(root), "skip_broken": True}), device="cpu")
        names = [line.split("'")[1] for line in trainer.skipped if "'" in line]
        assert sorted(names) == sorted([f"s{held}", f"s{unreadable}"])
        assert any(line.startswith(f"s{alone} has no partner") for line in trainer.skipped)
        left = [p.name for pairs in trainer.held_out.values() for p in pairs]
        assert len(trainer.data) + len(left) == 5
        assert not {f"s{i}" for i in (held, unreadable, alone)} & set(left)

    def test_photographs_too(self, recipe, dataset, tmp_path):
        root = shutil.copytree(dataset, tmp_path / "photographs")
        trained = next(i for i in range(8) if not is_held_out(f"s{i}", 0.3))
        (root / "high" / f"s{trained}.png").write_bytes(b"no picture")
        data = {"root": str(root), "sources": [], "clean": [{"folder": "high"}]}
        trainer = Trainer(recipe(data={**data, "skip_broken": True}), device="cpu")
        assert [f"s{trained}.png" in line for line in trainer.skipped] == [True]
        with pytest.raises(EnhanceKitError, match=rf"s{trained}\.png: not a picture"):
            Trainer(recipe(data={**data, "skip_broken": False}), device="cpu")

    def test_a_held_out_one_stops_before_the_first_step(self, recipe, broken):
        root, held, unreadable, alone = broken
        for side in ("low", "high"):
            for i in (unreadable, alone):
                (root / side / f"s{i}.png").unlink(missing_ok=True)
        with pytest.raises(DataError, match=f"'s{held}' cannot be read"):
            Trainer(recipe(data={"root": str(root)}), device="cpu")


def train(recipe, *, steps=None, **options):
    """Run a recipe, or its next steps, and give the trainer and what it reported."""
    trainer = Trainer(recipe, device="cpu", **options)
    reports = []
    run = trainer.run()
    for progress in run:
        reports.append(progress)
        if len(reports) == steps:
            run.close()
    return trainer, reports


def snapshot(module):
    return copy.deepcopy(module.state_dict())


def equal(a, b):
    """Compare nested states to the bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_some_scenes_of_the_dataset_are_held_out():
    assert 1 <= sum(is_held_out(f"s{i}", 0.3) for i in range(8)) <= 4


class TestLearning:
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_the_loss_falls(self, recipe, precision):
        run = {"steps": 40, "batch": 4, "precision": precision}
        trainer, reports = train(recipe(run=run))
        losses = [r.loss for r in reports]
        assert all(map(math.isfinite, losses))
        assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
        assert all(p.dtype == torch.float32 for p in trainer.network.parameters())

    def test_training_beats_no_training(self, recipe):
        run = {"steps": 40, "batch": 4, "context_batch": 4}
        trainer = Trainer(recipe(run=run), device="cpu")
        before = trainer.validate()["low"]
        *_, last = trainer.run()
        assert last.psnr["low"] > before + 1
        assert last.psnr["low"] == trainer.validate()["low"]

    def test_reports(self, recipe):
        run = {"steps": 5, "validate_every": 2}
        _, reports = train(recipe(loss="l1 + 0.5*grad", run=run))
        assert [r.step for r in reports] == [1, 2, 3, 4, 5]
        assert {r.steps for r in reports} == {5}
        assert [bool(r.psnr) for r in reports] == [False, True, False, True, True]
        for r in reports:
            assert r.loss == pytest.approx(r.terms["l1"] + 0.5 * r.terms["grad"], rel=1e-5)

    def test_what_a_run_leaves_behind(self, recipe, tmp_path, dataset):
        train(recipe(run={"log_every": 2}))
        out = tmp_path / "run"
        names = {p.name for p in out.iterdir()}
        assert {
            "recipe.json",
            "metrics.csv",
            "state.pt",
            "last.safetensors",
            "best.safetensors",
        } <= names
        assert not [n for n in names if n.startswith(".")]
        card = read_card(out / "best.safetensors")
        assert card.name == "mfnn-lite"
        assert card.backbone == "mfnn:mfnn"
        assert card.config.items() >= {**TINY, "pack": 2}.items()
        assert card.config["block"] == "mfnn:scr"  # defaults, too, which may change
        assert "low -> high" in card.data
        assert "30%" in card.data
        with (out / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["step"] for row in rows} == {"2", "4"}
        assert {"loss", "lr", "psnr/low"} <= {row["name"] for row in rows}

    def test_the_weights_can_be_loaded(self, recipe, tmp_path, dataset):
        trainer, _ = train(recipe())
        path = tmp_path / "run" / "last.safetensors"
        enhancer = enhancekit.load("mfnn-lite", weights=path, **TINY)
        assert equal(enhancer.module.state_dict(), trainer.average.state_dict())
        assert enhancer.enhance(dataset / "low" / "s1.png").size == (WIDTH, HEIGHT)

    def test_a_share_that_takes_no_scene_is_refused(self, recipe):
        with pytest.raises(DataError, match=r"data.held_out: a share of 0\.001 takes none"):
            Trainer(recipe(data={"held_out": 0.001}), device="cpu")

    def test_weights_are_written_when_nothing_is_held_out(self, recipe, tmp_path):
        trainer, _ = train(recipe(data={"held_out": 0.0}))
        path = tmp_path / "run" / "last.safetensors"
        enhancer = enhancekit.load("mfnn-lite", weights=path, **TINY)
        assert equal(enhancer.module.state_dict(), trainer.average.state_dict())

    def test_the_best_weights_are_kept(self, recipe, tmp_path, monkeypatch):
        figures = iter([20.0, 25.0, 22.0, 25.0])
        monkeypatch.setattr(
            "enhancekit.training.loop.validate", lambda *a, **k: {"low": next(figures)}
        )
        trainer, _ = train(recipe(run={"validate_every": 1}))
        out = tmp_path / "run"
        assert read_card(out / "best.safetensors").training.startswith("2 steps")
        assert read_card(out / "last.safetensors").training.startswith("4 steps")
        assert trainer.best == 25.0

    def test_starting_from_weights(self, recipe, tmp_path):
        first, _ = train(recipe())
        path = tmp_path / "run" / "last.safetensors"
        second = Trainer(recipe("again", model={"weights": str(path)}), device="cpu")
        assert equal(second.network.state_dict(), first.average.state_dict())
        assert second.step == 0

    def test_from_clean_photographs_alone(self, recipe):
        data = {"sources": [], "clean": [{"folder": "high"}], "held_out": 0.0}
        _, reports = train(recipe(data=data))
        assert all(math.isfinite(r.loss) for r in reports)

    def test_the_seed_decides_everything(self, recipe):
        runs = []
        for name, seed, disturbance in (("a", 1, 5), ("b", 1, 6), ("c", 2, 5)):
            torch.manual_seed(disturbance)
            options = {"options": {**TINY, "dropout": 0.3}}
            trainer, reports = train(recipe(name, model=options, run={"seed": seed}))
            runs.append((snapshot(trainer.network), [r.loss for r in reports]))
        assert equal(runs[0], runs[1])
        assert not equal(runs[0], runs[2])


class TestPrecision:
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_pictures_stay_in_32_bits_and_the_network_does_not(
        self, recipe, monkeypatch, precision
    ):
        references, features, inputs = [], [], []
        honest = L1.per_picture

        def per_picture(self, output, reference):
            references.append(reference)
            return honest(self, output, reference)

        monkeypatch.setattr(L1, "per_picture", per_picture)
        trainer = Trainer(recipe(run={"steps": 2, "precision": precision}), device="cpu")
        trainer.network.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        trainer.network.head.conv3.register_forward_hook(lambda *a: features.append(a[2].dtype))
        steps = trainer.run()
        next(steps)
        next(steps)
        wanted = torch.bfloat16 if precision == "bf16" else torch.float32
        assert features[:2] == [wanted, wanted]
        assert len(references) == 2
        for number, (low, high) in enumerate(zip(inputs[:2], references, strict=True)):
            batch = trainer.data.batch(number, 2)
            assert torch.equal(low, batch.input)
            assert torch.equal(high, batch.target)  # bf16 would have rounded them
            assert not torch.equal(high, high.bfloat16().float())


class TestEnlarging:
    @pytest.fixture
    def twice(self, recipe):
        """A recipe of inputs half the size, and a network that doubles."""

        def make(crop=24, make="bicubic-x2", name="mfnn-sr-x2", options=None, **run):
            return recipe(
                data={
                    "sources": [],
                    "clean": [{"folder": "high", "make": make}],
                    "held_out": 0.0,
                    "crop": crop,
                },
                model={"enhancer": name, "options": options or {"width": 2, "counts": [0, 1]}},
                run={"steps": 2, **run},
            )

        return make

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_it_trains_and_its_weights_double(self, twice, tmp_path, dataset, precision):
        trainer, reports = train(twice(precision=precision))
        assert len(reports) == 2
        assert all(math.isfinite(r.loss) for r in reports)
        assert trainer.data.batch(0, 1).input.shape == (1, 3, 12, 12)
        path = tmp_path / "run" / "last.safetensors"
        enhancer = enhancekit.load("mfnn-sr-x2", weights=path, width=2, counts=[0, 1])
        assert equal(enhancer.module.state_dict(), trainer.average.state_dict())
        found = enhancer.enhance(dataset / "low" / "s1.png")
        assert found.size == (2 * WIDTH, 2 * HEIGHT)

    @pytest.mark.parametrize("times", [3, 4])
    def test_other_scales_train(self, twice, times):
        class Plugin:
            @enhancekit.hookimpl
            def enhancekit_enhancers(self):
                yield enhancekit.EnhancerSpec(
                    name="larger",
                    summary="x",
                    task="super-resolution",
                    backbone="mfnn:mfnn",
                    config={"scale": times},
                    scale=times,
                )

        with isolated_plugins("mfnn", acme=Plugin()):
            trainer, reports = train(twice(make=f"bicubic-x{times}", name="acme:larger"))
        assert all(math.isfinite(r.loss) for r in reports)
        batch = trainer.data.batch(0, 1)
        assert batch.input.shape == (1, 3, 24 // times, 24 // times)
        assert batch.target.shape == (1, 3, 24, 24)

    def test_it_learns(self, twice):
        # back projection leaves little to learn in forty steps
        options = {"width": 4, "counts": [0, 1], "back_projection": False}
        _, reports = train(twice(steps=40, batch=4, options=options))
        losses = [r.loss for r in reports]
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])

    @pytest.mark.parametrize("make", ["gaussian", "camera", "dark"])
    def test_inputs_as_large_as_their_references_are_refused(self, twice, make):
        with pytest.raises(RecipeError, match=r"data: the network enlarges 2 times, .*as large as"):
            Trainer(twice(make=make), device="cpu")

    def test_pairs_are_refused(self, recipe):
        model = {"enhancer": "mfnn-sr-x2", "options": {"width": 2, "counts": [0, 1]}}
        with pytest.raises(RecipeError, match=r"data: the network enlarges 2 times, .*as large as"):
            Trainer(recipe(model=model), device="cpu")

    def test_smaller_inputs_are_for_networks_that_double(self, twice):
        said = r"enlarges 1 times, .*references are 2 times as large .*bicubic-x2"
        with pytest.raises(RecipeError, match=said):
            Trainer(twice(name="mfnn-lite", options=TINY), device="cpu")

    @pytest.mark.parametrize(("counts", "multiple"), [([0, 1], 4), ([0, 1, 1], 8)])
    def test_the_crop_is_measured_on_the_reference(self, twice, counts, multiple):
        options = {"width": 2, "counts": counts}
        assert Trainer(twice(crop=24, options=options), device="cpu").step == 0
        with pytest.raises(RecipeError, match=rf"crop: 22, .*multiples of {multiple}, at least"):
            Trainer(twice(crop=22, options=options), device="cpu")

    def test_a_packed_network_takes_larger_multiples(self, twice):
        options = {"width": 2, "counts": [0, 1, 1]}
        packed = {"name": "mfnn-denoise", "make": "gaussian", "options": options}
        with pytest.raises(RecipeError, match=r"crop: 20, .*multiples of 8, at least 8"):
            Trainer(twice(crop=20, **packed), device="cpu")
        _, reports = train(twice(crop=24, **packed))
        assert all(math.isfinite(r.loss) for r in reports)


class TestResume:
    @pytest.fixture
    def rich(self, recipe):
        """A recipe in which everything that could break resuming is used."""

        def make(out, **run):
            return recipe(
                out,
                loss="l1 + 0.1*ssim",
                phases=[{"step": 3, "loss": "charbonnier"}, {"step": 6, "loss": "l1 + grad"}],
                data={"shrink": [1, 2], "crop": 16},
                model={"enhancer": "mfnn-lite", "options": {**TINY, "dropout": 0.3}},
                optim={"lr": 5e-3, "ema": 0.9, "clip": 1.0, "warm_up": 2, "weight_decay": 0.01},
                run={
                    "steps": 8,
                    "accumulate": 2,
                    "context_batch": 2,
                    "validate_every": 3,
                    "log_every": 1,
                    "save_every": 4,
                    **run,
                },
            )

        return make

    def test_half_and_half_is_the_whole_to_the_bit(self, rich, tmp_path):
        whole, reports = train(rich("whole"))
        torch.manual_seed(1)
        first, before = train(rich("halves"), steps=4)
        assert first.step == 4
        torch.manual_seed(999)
        torch.rand(17)
        second, after = train(rich("halves"), resume=True)
        assert second.step == 8
        assert [r.step for r in after] == [5, 6, 7, 8]
        assert equal(whole.network.state_dict(), second.network.state_dict())
        assert equal(whole.average.state_dict(), second.average.state_dict())
        assert equal(whole.optimiser.state_dict(), second.optimiser.state_dict())
        assert before + after == reports
        assert whole.best == second.best
        states = [
            torch.load(tmp_path / name / "state.pt", weights_only=True)
            for name in ("whole", "halves")
        ]
        for state in states:
            del state["recipe"]
        assert equal(*states)
        texts = [(tmp_path / n / "metrics.csv").read_text() for n in ("whole", "halves")]
        assert texts[0] == texts[1]

    def test_what_was_done_after_the_checkpoint_is_done_again(self, rich, tmp_path):
        whole, _ = train(rich("whole"))
        train(rich("halves"), steps=6)  # the checkpoint is of step 4
        second, after = train(rich("halves"), resume=True)
        assert [r.step for r in after] == [5, 6, 7, 8]
        assert equal(whole.network.state_dict(), second.network.state_dict())
        texts = [(tmp_path / n / "metrics.csv").read_text() for n in ("whole", "halves")]
        assert texts[0] == texts[1]

    def test_a_finished_run_has_nothing_left_to_do(self, rich):
        first, _ = train(rich("run"))
        second, reports = train(rich("run"), resume=True)
        assert reports == []
        assert equal(first.network.state_dict(), second.network.state_dict())

    def test_what_may_change(self, rich):
        train(rich("run"), steps=4)
        changed = rich("run", save_every=1, validate_every=2, validate_pictures=1, log_every=3)
        second, _ = train(changed, resume=True)
        assert second.step == 8

    @pytest.mark.parametrize(
        ("sections", "said"),
        [
            ({"run": {"batch": 3}}, "run.batch (2 then, 3 now)"),
            ({"run": {"steps": 9}}, "run.steps (4 then, 9 now)"),
            ({"optim": {"lr": 1e-4}}, "optim.lr (0.005 then, 0.0001 now)"),
            ({"loss": "grad"}, "loss ('l1' then, 'grad' now)"),
            ({"model": {"options": {**TINY, "width": 8}}}, "model.options.width (4 then, 8 now)"),
            ({"data": {"held_out": 0.5}}, "data.held_out (0.3 then, 0.5 now)"),
            ({"phases": [{"step": 2, "loss": "grad"}]}, "phases "),
        ],
    )
    def test_another_recipe_is_refused_by_key(self, recipe, sections, said):
        train(recipe())
        with pytest.raises(RecipeError, match="is resumed with the recipe it began with") as caught:
            Trainer(recipe(**sections), resume=True, device="cpu")
        assert said in str(caught.value)
        assert str(caught.value).count(" then, ") == 1

    def test_an_existing_run_is_not_overwritten(self, recipe, tmp_path):
        train(recipe())
        before = (tmp_path / "run" / "state.pt").read_bytes()
        with pytest.raises(RecipeError, match=r"already holds a run.*--resume.*run\.out"):
            Trainer(recipe(), device="cpu")
        assert (tmp_path / "run" / "state.pt").read_bytes() == before

    def test_validation_rounds_as_files_do(self, recipe):
        trainer = Trainer(recipe(), device="cpu")

        def offset(low):
            return low + 0.4 / 255  # less than half a step of 8 bits

        held = {"high": [replace(p, input=p.target) for p in trainer.held_out["low"]]}
        # infinite, one such picture would decide which weights are the best
        assert validate(offset, held, 9, lambda *_: None) == {"high": 100.0}

    def test_validation_clips_as_files_do(self, recipe):
        held = Trainer(recipe(), device="cpu").held_out
        wild = validate(lambda low: low * 5 - 0.5, held, 9, lambda *_: None)
        assert wild == validate(lambda low: (low * 5 - 0.5).clamp(0, 1), held, 9, lambda *_: None)

    def test_the_best_of_other_pictures_is_forgotten(self, recipe):
        train(recipe(run={"validate_every": 1, "save_every": 1}), steps=2)
        more = recipe(run={"validate_every": 1, "save_every": 1, "validate_pictures": 1})
        assert Trainer(more, resume=True, device="cpu").best == -math.inf

    def test_other_pictures_than_it_began_with(self, recipe, dataset, tmp_path):
        root = shutil.copytree(dataset, tmp_path / "data")
        changed = recipe(data={"root": str(root)}, run={"save_every": 1})
        train(changed, steps=2)
        shutil.move(root, tmp_path / "moved")
        moved = recipe(data={"root": str(tmp_path / "moved")}, run={"save_every": 1})
        with pytest.raises(RecipeError, match=r"data\.root"):
            Trainer(moved, resume=True, device="cpu")
        shutil.move(tmp_path / "moved", root)
        for side in ("low", "high"):
            shutil.copy(root / side / "s0.png", root / side / "s9.png")
        with pytest.raises(DataError, match="pictures are not those the run began with"):
            Trainer(changed, resume=True, device="cpu")
        for side in ("low", "high"):
            (root / side / "s9.png").unlink()
        assert Trainer(changed, resume=True, device="cpu").step == 2

    def test_the_best_so_far_is_remembered(self, recipe):
        changed = recipe(run={"validate_every": 1, "save_every": 1})
        first, reports = train(changed, steps=2)
        assert first.best == max(r.psnr["low"] for r in reports[:2])
        assert Trainer(changed, resume=True, device="cpu").best == first.best

    def test_the_weights_it_began_with_may_be_gone(self, recipe, tmp_path):
        train(recipe("first"))
        started = tmp_path / "first" / "last.safetensors"
        changed = recipe(model={"weights": str(started)}, run={"save_every": 1})
        whole, _ = train(changed)
        straight = snapshot(whole.network)
        shutil.rmtree(tmp_path / "run")
        train(changed, steps=2)
        started.unlink()
        again, _ = train(changed, resume=True)
        assert equal(snapshot(again.network), straight)

    def test_nothing_to_resume(self, recipe):
        with pytest.raises(DataError, match=r"no checkpoint .*state\.pt"):
            Trainer(recipe(), resume=True, device="cpu")

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: b"this is no checkpoint",
            lambda data: b".",
            lambda data: b"\x80\x02",
            lambda data: bytes(range(256)),
            lambda data: data[: len(data) // 2],
            lambda data: data[:-1],
            lambda data: b"PK\x03\x04" + data[4:200],
        ],
        ids=["empty", "text", "dot", "pickle", "bytes", "half", "one short", "zip"],
    )
    def test_a_damaged_checkpoint(self, recipe, tmp_path, damage):
        train(recipe())
        path = tmp_path / "run" / "state.pt"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(DataError, match=r"state\.pt"):
            Trainer(recipe(), resume=True, device="cpu")

    @pytest.mark.parametrize("missing", ["recipe", "step", "network", "average", "optimiser"])
    def test_an_incomplete_checkpoint(self, recipe, tmp_path, missing):
        train(recipe())
        path = tmp_path / "run" / "state.pt"
        state = torch.load(path, weights_only=True)
        del state[missing]
        torch.save(state, path)
        with pytest.raises(DataError, match=r"state\.pt"):
            Trainer(recipe(), resume=True, device="cpu")

    @pytest.mark.parametrize("content", [{}, [1, 2], torch.zeros(3)], ids=["{}", "list", "tensor"])
    def test_no_checkpoint_at_all(self, recipe, tmp_path, content):
        train(recipe())
        torch.save(content, tmp_path / "run" / "state.pt")
        with pytest.raises(DataError, match=r"state\.pt"):
            Trainer(recipe(), resume=True, device="cpu")

    def test_a_full_disk_keeps_the_last_checkpoint(self, recipe, tmp_path, monkeypatch):
        run = {"save_every": 2}
        trainer = Trainer(recipe(run=run), device="cpu")
        steps = trainer.run()
        next(steps)
        next(steps)
        before = (tmp_path / "run" / "state.pt").read_bytes()

        def save(state, file):
            file.write(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", save)
        next(steps)
        with pytest.raises(DataError, match=r"state\.pt cannot be written: .*No space"):
            next(steps)
        assert (tmp_path / "run" / "state.pt").read_bytes() == before
        assert not list((tmp_path / "run").glob(".enhancekit-*"))


class TestAccumulate:
    def test_is_one_large_batch(self, recipe):
        # crops as high as the pictures, cut from one place, so that both see the same pixels
        data = {"crop": 40, "augment": False, "held_out": 0.0}
        networks, losses = [], []
        for name, batch, accumulate in (("a", 4, 1), ("b", 2, 2), ("c", 1, 4)):
            run = {"batch": batch, "accumulate": accumulate, "steps": 2, "context_batch": 0}
            trainer = Trainer(recipe(name, data=data, run=run), device="cpu")
            crop = trainer.data._crop
            trainer.data._crop = lambda i, draw, crop=crop: crop(i, torch.Generator())
            losses.append([p.loss for p in trainer.run()])
            networks.append(trainer.network.state_dict())
        for other, values in zip(networks[1:], losses[1:], strict=True):
            assert values == pytest.approx(losses[0], rel=1e-4)
            for name, tensor in networks[0].items():
                torch.testing.assert_close(other[name], tensor, rtol=0, atol=2e-3, msg=name)

    def test_every_batch_is_used_once(self, recipe, monkeypatch):
        asked = []
        trainer = Trainer(recipe(run={"steps": 3, "accumulate": 2}), device="cpu")
        batch = trainer.data.batch
        monkeypatch.setattr(
            trainer.data, "batch", lambda number, size: asked.append(number) or batch(number, size)
        )
        list(trainer.run())
        assert asked == list(range(6))


class TestNonFinite:
    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    @pytest.mark.parametrize(("accumulate", "step", "batch"), [(1, 2, 2), (2, 1, 2)])
    def test_a_loss_names_step_and_batch(self, recipe, monkeypatch, bad, accumulate, step, batch):
        calls = []
        honest = L1.per_picture

        def per_picture(self, output, reference):
            calls.append(1)
            factor = bad if len(calls) == 3 else 1
            return honest(self, output, reference) * factor

        monkeypatch.setattr(L1, "per_picture", per_picture)
        trainer = Trainer(recipe(run={"accumulate": accumulate}), device="cpu")
        wanted = rf"loss at step {step}, batch {batch}, is {bad}.*lower optim\.lr"
        with pytest.raises(NonFiniteError, match=wanted):
            list(trainer.run())
        assert all(torch.isfinite(p).all() for p in trainer.network.parameters())
        assert trainer.step == step

    @pytest.mark.parametrize("clip", [1.0, 0.0])
    def test_a_gradient_names_the_step(self, recipe, monkeypatch, clip):
        class Root(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, grad):
                return grad * math.nan

        honest = L1.per_picture
        monkeypatch.setattr(L1, "per_picture", lambda self, o, r: honest(self, Root.apply(o), r))
        trainer = Trainer(recipe(optim={"clip": clip}), device="cpu")
        with pytest.raises(NonFiniteError, match=r"gradient at step 0"):
            list(trainer.run())
        assert all(torch.isfinite(p).all() for p in trainer.network.parameters())


class TestContext:
    def test_alone_it_changes_only_its_parameters(self, recipe):
        made = recipe(
            loss="", model={"only": "context_block"}, run={"steps": 6, "context_batch": 4}
        )
        trainer = Trainer(made, device="cpu")
        before = snapshot(trainer.network)
        reports = list(trainer.run())
        after = trainer.network.state_dict()
        changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
        exposure = {name for name in after if name.startswith("context_block.")}
        assert changed == exposure
        assert len(exposure) > 4
        assert all(r.loss > 0 for r in reports)
        assert reports[-1].psnr

    def test_alone_it_learns(self, recipe):
        made = recipe(
            loss="",
            model={"only": "context_block"},
            optim={"lr": 3e-3},
            run={"steps": 60, "context_batch": 8},
        )
        _, reports = train(made)
        losses = [r.loss for r in reports]
        assert sum(losses[-10:]) < 0.8 * sum(losses[:10])

    def test_with_the_pictures_both_change(self, recipe):
        trainer = Trainer(recipe(run={"context_batch": 4}), device="cpu")
        before = snapshot(trainer.network)
        list(trainer.run())
        after = trainer.network.state_dict()
        for part in ("context_block.members.0.head.4.weight", "head.final.weight"):
            assert not torch.equal(after[part], before[part])

    def test_without_thumbnails_it_stays(self, recipe):
        trainer = Trainer(recipe(), device="cpu")
        before = snapshot(trainer.network.context_block)
        list(trainer.run())
        assert equal(trainer.network.context_block.state_dict(), before)

    def test_only_the_head(self, recipe):
        trainer = Trainer(recipe(model={"only": r"head\.(final|conv4)"}), device="cpu")
        before = snapshot(trainer.network)
        list(trainer.run())
        after = trainer.network.state_dict()
        changed = {n for n in after if not torch.equal(after[n], before[n])}
        assert {n.rsplit(".", 1)[0] for n in changed} == {"head.final", "head.conv4"}

    def test_a_network_without_one(self, recipe):
        spec = {"options": {**TINY, "context": ""}}
        _, reports = train(recipe(model=spec))
        assert all(math.isfinite(r.loss) for r in reports)


class TestPhases:
    def test_the_step_of_a_phase_is_the_first_it_is_used_for(self, recipe, monkeypatch):
        used = []
        monkeypatch.setattr(
            L1, "per_picture", lambda self, o, r: used.append("l1") or (o - r).abs().mean((1, 2, 3))
        )
        train(recipe(loss="l1", phases=[{"step": 2, "loss": "charbonnier"}], run={"steps": 5}))
        assert used == ["l1"] * 2  # steps are counted from 0

    def test_reported_terms_are_those_of_the_step(self, recipe):
        phases = [{"step": 2, "loss": "l1 + grad"}]
        _, reports = train(recipe(loss="1*l1", phases=phases))
        assert [set(r.terms) for r in reports] == [{"l1"}, {"l1"}, {"l1", "grad"}, {"l1", "grad"}]

    def test_none_follow_the_context_alone(self, recipe):
        made = recipe(loss="", phases=[{"step": 2, "loss": "l1"}], run={"context_batch": 2})
        with pytest.raises(RecipeError, match=r"loss: empty .*has no phases"):
            Trainer(made, device="cpu")

    def test_out_of_order_they_are_refused(self, recipe):
        phases = [{"step": 3, "loss": "grad"}, {"step": 2, "loss": "charbonnier"}]
        with pytest.raises(RecipeError, match="phases: their steps must rise"):
            Trainer(recipe(phases=phases), device="cpu")

    def test_an_unknown_loss_is_found_at_once(self, recipe):
        with pytest.raises(UnknownNameError, match="no loss is called 'vgh'"):
            Trainer(recipe(phases=[{"step": 3, "loss": "l1 + vgh"}]), device="cpu")


class TestLossOptions:
    def test_reach_the_loss(self, recipe):
        options = {"charbonnier": {"eps": 0.25}}
        for text in ("charbonnier", "l1 + 0.5*charbonnier"):
            trainer = Trainer(recipe(loss=text, loss_options=options), device="cpu")
            (loss,) = trainer.objective.module.losses
            found = loss if text == "charbonnier" else loss.losses[1]
            assert found.eps == 0.25

    def test_of_one_phase_do_not_disturb_another(self, recipe):
        # "ssim" stands inside "ms_ssim", but is another loss
        made = recipe(
            loss="l1 + ms_ssim",
            phases=[{"step": 2, "loss": "l1 + ssim"}],
            loss_options={"ssim": {"reduction": "mean"}},
        )
        assert len(Trainer(made, device="cpu").objective.module.losses) == 2

    def test_a_later_loss_that_takes_no_such_crops(self, recipe):
        made = recipe(phases=[{"step": 2, "loss": "l1 + ms_ssim"}])
        said = r"the loss 'l1 \+ ms_ssim' fails on crops of 24: ms_ssim needs pictures of at least"
        with pytest.raises(RecipeError, match=said):
            Trainer(made, device="cpu")

    def test_for_a_loss_that_stands_nowhere(self, recipe):
        with pytest.raises((RecipeError, OptionError), match="charbonier"):
            Trainer(recipe(loss_options={"charbonier": {"eps": 0.1}}), device="cpu")


ODD = """
import random

import numpy as np
import torch
from torch import nn

class Block(nn.Module):
    halo = 1

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + 0.1 * self.conv(x)

class Frozen(Block):
    def __init__(self, channels):
        super().__init__(channels)
        self.gain = nn.Parameter(torch.full((1, channels, 1, 1), 0.5), requires_grad=False)
        self.order = nn.Parameter(torch.arange(channels), requires_grad=False)

    def forward(self, x):
        return (super().forward(x) * self.gain)[:, self.order]

class Masked(Block):
    def __init__(self, channels):
        super().__init__(channels)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, x):
        return super().forward(x) * self.mask.softmax(0).sum()

class Tied(Block):
    halo = 2

    def __init__(self, channels):
        super().__init__(channels)
        self.again = nn.Conv2d(channels, channels, 3, padding=1)
        self.again.weight = self.conv.weight

    def forward(self, x):
        return x + 0.1 * self.again(self.conv(x))

class InPlace(Block):
    def forward(self, x):
        return x.add_(0.1 * self.conv(x))

class Divides(Block):
    def forward(self, x):
        return x + self.conv(x) * (1.0 if self.training else torch.nan)

class Turning(Block):
    def __init__(self, channels):
        super().__init__(channels)
        self.turn = nn.Parameter(torch.full((1, channels, 1, 1), 1 + 0.1j))

    def forward(self, x):
        return super().forward(x) * self.turn.real + 0.1 * self.turn.imag

class Counted(Block):
    def __init__(self, channels):
        super().__init__(channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return super().forward(self.norm(x))

class Drawing(Block):
    def forward(self, x):
        return x + self.conv(x) * random.random() * np.random.random()

class Normed(Block):
    def __init__(self, channels):
        super().__init__(channels)
        self.conv.kept = self.conv.weight * 1  # as the old weight_norm keeps what it computed

class Failing(Block):
    def forward(self, x):
        raise ValueError("not today") if self.training else None

class Typed(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.ones(1, 3, 3, 3) / 27)

    def forward(self, output, target):
        assert output.dtype == target.dtype == torch.float32
        smooth = nn.functional.conv2d(output, self.weight)
        assert smooth.dtype == torch.float32
        return (smooth - nn.functional.conv2d(target, self.weight)).abs().mean()

class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("values", torch.zeros(()))
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, output, target):
        self.values += 1
        return (output - target).abs().mean() * self.scale.exp() / self.values

class Unshaped(nn.Module):
    def forward(self, output, target):
        return (output - target).abs().mean().reshape(1)
"""


class TestOddParts:
    """What plugins may well do, and what they must hear if they may not."""

    @pytest.fixture(autouse=True)
    def odd(self, make_plugin):
        names = (
            "Frozen", "Masked", "Tied", "InPlace", "Divides", "Turning", "Normed", "Failing",
            "Counted", "Drawing",
        )  # fmt: skip
        blocks = [{"name": n.lower(), "role": "residual", "target": f"{{code}}:{n}"} for n in names]
        losses = [
            {"name": n.lower(), "target": f"{{code}}:{n}"}
            for n in ("Counting", "Unshaped", "Typed")
        ]
        make_plugin(name="odd", code=ODD, blocks=blocks, losses=losses)

    def with_block(self, recipe, name, more=None, only="", **sections):
        options = {**TINY, "block": f"odd:{name}", **(more or {})}
        return recipe(model={"options": options, "only": only}, **sections)

    def test_what_is_frozen_stays(self, recipe):
        trainer, _ = train(self.with_block(recipe, "frozen"))
        state = trainer.network.state_dict()
        gains = [value for name, value in state.items() if name.endswith("gain")]
        assert gains
        assert all(bool((gain == 0.5).all()) for gain in gains)

    @pytest.mark.parametrize("decay", [0.0, 0.5])
    def test_a_mask_of_infinity_is_averaged_as_itself(self, recipe, decay):
        trainer, reports = train(self.with_block(recipe, "masked", optim={"ema": decay}))
        assert all(math.isfinite(v) for v in reports[-1].psnr.values())
        average = trainer.average.state_dict()
        masks = [value for name, value in average.items() if name.endswith("mask")]
        assert masks
        assert all(mask.tolist() == [0.0, -math.inf] for mask in masks)

    def test_tied_weights_are_averaged_once_and_saved(self, recipe, tmp_path):
        layout = {"channels_last": False, "steps": 1}
        made = self.with_block(recipe, "tied", optim={"ema": 0.9}, run=layout)
        trainer = Trainer(made, device="cpu")
        torch.nn.init.normal_(trainer.network.head.final.weight)  # or nothing would move yet
        tied = trainer.network.trunks[0].blocks[0].conv
        before = tied.weight.detach().clone()
        for _ in trainer.run():
            pass
        averaged = trainer.average.trunks[0].blocks[0].conv.weight
        moved = (averaged - before) / (tied.weight.detach() - before)
        torch.testing.assert_close(moved, torch.full_like(moved, 0.9), rtol=1e-2, atol=0)
        options = {**TINY, "block": "odd:tied"}
        path = tmp_path / "run/last.safetensors"
        again = enhancekit.load("mfnn-lite", weights=path, **options).module.trunks[0].blocks[0]
        assert torch.equal(again.again.weight, averaged)

    def test_what_draws_from_other_generators(self, recipe, tmp_path):
        weights = []
        for _ in range(2):
            trainer, _ = train(self.with_block(recipe, "drawing"))
            weights.append(snapshot(trainer.network))
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
        assert equal(*weights)

    @pytest.mark.parametrize("only", ["", "head"])
    def test_statistics_move_with_what_is_trained(self, recipe, only):
        trainer, _ = train(self.with_block(recipe, "counted", only=only))
        norm = trainer.network.trunks[0].blocks[0].norm
        assert int(norm.num_batches_tracked) == (0 if only else 4)
        assert trainer.network.head.training

    def test_statistics_count_each_batch_once(self, recipe):
        made = self.with_block(recipe, "counted", {"checkpointing": True})
        trainer, _ = train(made)
        assert int(trainer.network.trunks[0].blocks[0].norm.num_batches_tracked) == 4

    def test_complex_weights_are_averaged(self, recipe):
        trainer, _ = train(self.with_block(recipe, "turning", optim={"ema": 0.9}))
        average, now = (n.trunks[0].blocks[0].turn for n in (trainer.average, trainer.network))
        assert (now - (1 + 0.1j)).abs().max() > (average - (1 + 0.1j)).abs().max() > 0

    def test_losses_are_computed_in_32_bits(self, recipe):
        train(self.with_block(recipe, "tied", run={"precision": "bf16"}, loss="odd:typed"))

    def test_a_network_that_cannot_be_copied(self, recipe):
        with pytest.raises(PluginError, match=r"network of .*mfnn:mfnn .*cannot be copied"):
            Trainer(self.with_block(recipe, "normed"), device="cpu")

    def test_what_failed_at_once_is_tried_again_in_its_folder(self, recipe):
        for _ in range(2):
            with pytest.raises(PluginError, match="not today"):
                train(self.with_block(recipe, "failing"))
        train(recipe())

    def test_the_backward_pass_is_told_of(self, recipe):
        with pytest.raises(PluginError, match=r"failed in the backward pass .*\(2, 3, 24, 24\): "):
            train(self.with_block(recipe, "inplace"))

    def test_nan_in_validation_is_no_result(self, recipe, tmp_path):
        with pytest.raises(NonFiniteError, match=r"NaN for a held-out picture of low after step 4"):
            train(self.with_block(recipe, "divides"))
        assert not (tmp_path / "run/best.safetensors").exists()

    def test_weights_that_end_infinite_are_no_result(self, recipe):
        trainer = Trainer(recipe(run={"steps": 2}, data={"held_out": 0.0}), device="cpu")
        run = trainer.run()
        next(run)
        next(trainer.average.parameters()).data.fill_(math.inf)
        with pytest.raises(NonFiniteError, match=r"the weight \S+ after step 2 is (inf|nan)"):
            next(run)

    def test_a_loss_that_learns_and_counts_goes_on_to_the_bit(self, recipe):
        sections = {"run": {"steps": 6}, "loss": "odd:counting"}
        whole, reports = train(recipe(out="whole", **sections))
        assert reports[-1].terms == {}  # its own "values" are none of ours
        loss = whole.objective.module.losses[0]
        assert float(loss.values) == 6
        assert float(loss.scale.detach()) != 0
        made = recipe(out="halves", **{**sections, "run": {"steps": 6, "save_every": 3}})
        train(made, steps=3)
        halves, _ = train(made, resume=True)
        assert equal(halves.objective.state_dict(), whole.objective.state_dict())
        assert equal(halves.average.state_dict(), whole.average.state_dict())

    @pytest.mark.parametrize("text", ["odd:unshaped", "l1 + odd:unshaped"])
    def test_a_loss_of_a_wrong_shape_is_named(self, recipe, text):
        with pytest.raises(PluginError, match=r"^loss odd:unshaped \(.*\) gave shape \(1,\)"):
            train(recipe(loss=text))

    def test_norms_that_are_only_measured(self, recipe):
        made = recipe(optim={"clip": math.inf}, run={"save_every": 2})
        train(made, steps=2)
        trainer, _ = train(made, resume=True)
        assert trainer.step == 4

    def test_long_names(self, recipe, dataset, tmp_path):
        root = shutil.copytree(dataset, tmp_path / "long")
        for path in [p for side in ("low", "high") for p in (root / side).iterdir()]:
            path.rename(path.with_name(f"{path.stem}{'x' * 240}.png"))
        train(recipe(data={"root": str(root)}))
        assert len(list((tmp_path / "run/samples").iterdir())) == 2


class TestWhatWasTaken:
    """Each of these was once accepted without a word and did something else."""

    @pytest.mark.parametrize("text", ["charbonnier", "l1 + 0.5*charbonnier"])
    def test_a_loss_by_picture_is_no_loss_of_a_batch(self, recipe, text):
        options = {"charbonnier": {"reduction": "none"}}
        with pytest.raises(PluginError, match=r"gave shape \(2,\), but training needs one number"):
            train(recipe(loss=text, loss_options=options))

    def test_an_empty_loss_of_a_phase(self, recipe):
        with pytest.raises(ValidationError, match=r"phases\.0\.loss"):
            recipe(phases=[{"step": 2, "loss": ""}])

    def test_the_card_names_the_losses_that_were_used(self, recipe, tmp_path):
        phases = [{"step": 2, "loss": "charbonnier"}, {"step": 4, "loss": "grad"}]
        train(recipe(phases=phases))
        card = read_card(tmp_path / "run/last.safetensors")
        assert "4 steps, loss l1, then charbonnier, enhancekit" in card.training

    @pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors", "metrics.csv"])
    def test_a_run_without_a_checkpoint_is_not_written_over(self, recipe, tmp_path, name):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / name).write_text("mine")
        with pytest.raises(RecipeError, match=f"already holds {name} of a run that stopped"):
            Trainer(recipe(), device="cpu")
        assert (tmp_path / "run" / name).read_text() == "mine"

    def test_two_sources_with_the_same_inputs(self, recipe):
        source = {"input": "low", "scene": r"(s\d)"}
        sources = [{**source, "target": target} for target in ("high", "low")]
        held_out = Trainer(recipe(data={"sources": sources}), device="cpu").held_out
        assert list(held_out) == ["low to high", "low to low"]
        targets = {pair.target.parent.name for pair in held_out["low to high"]}
        assert targets == {"high"}

    def test_a_source_with_a_slash_behind(self, recipe, tmp_path):
        source = {"input": "low/", "target": "high/", "scene": r"(s\d)"}
        train(recipe(data={"sources": [source]}))
        names = {path.name for path in (tmp_path / "run/samples").iterdir()}
        assert names
        assert all(re.fullmatch(r"low--?s\d-0000004\.jpg", name) for name in names)

    @pytest.mark.parametrize(
        ("section", "values"),
        [
            ("run", {"seed": 2**63}),
            ("data", {"shrink": []}),
            ("data", {"sources": [{"input": "a", "target": "b", "weight": float("inf")}]}),
            ("data", {"clean": [{"folder": "a", "weight": 1e-9}]}),
        ],
    )
    def test_impossible_values(self, recipe, section, values):
        with pytest.raises(ValidationError, match=f"{section}.{next(iter(values))}"):
            recipe(**{section: values})


class TestLearningRate:
    @pytest.mark.parametrize("schedule", ["cosine", "constant"])
    def test_warm_up_rises_linearly(self, schedule):
        optim = Optimiser(lr=0.8, warm_up=4, schedule=schedule)
        rates = [learning_rate(optim, step, 100) for step in range(5)]
        assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8], abs=1e-3)

    def test_cosine(self):
        optim = Optimiser(lr=2.0)
        rates = [learning_rate(optim, step, 100) for step in range(100)]
        assert rates[0] == 2.0
        assert rates[50] == pytest.approx(1.0)
        assert rates == sorted(rates, reverse=True)
        assert 0 < rates[-1] < 0.01
        assert learning_rate(optim, 100, 100) == pytest.approx(0)

    def test_constant(self):
        optim = Optimiser(lr=2.0, schedule="constant")
        assert {learning_rate(optim, step, 10) for step in range(10)} == {2.0}

    @pytest.mark.parametrize("warm_up", [10, 50])
    def test_all_warm_up(self, warm_up):
        rates = [learning_rate(Optimiser(lr=1.0, warm_up=warm_up), s, 10) for s in range(10)]
        assert rates == pytest.approx([(s + 1) / warm_up for s in range(10)])

    def test_the_optimiser_gets_it(self, recipe):
        made = recipe(optim={"warm_up": 2}, run={"steps": 6})
        trainer = Trainer(made, device="cpu")
        for progress in trainer.run():
            wanted = learning_rate(made.optim, progress.step - 1, 6)
            assert [g["lr"] for g in trainer.optimiser.param_groups] == [wanted]


class TestOptimiser:
    def test_adam_as_asked_for(self, recipe):
        made = recipe(optim={"eps": 1e-7, "betas": (0.8, 0.95)})
        optimiser = Trainer(made, device="cpu").optimiser
        (group,) = optimiser.param_groups
        assert group["eps"] == 1e-7
        assert tuple(group["betas"]) == (0.8, 0.95)

    def test_gradients_are_clipped(self, recipe, monkeypatch):
        norms = []
        clip = torch.nn.utils.clip_grad_norm_

        def spy(parameters, limit, *args, **options):
            parameters = list(parameters)
            clip(parameters, limit, *args, **options)
            found = [p.grad.norm() for p in parameters if p.grad is not None]
            norms.append(float(torch.stack(found).norm()))
            return torch.tensor(1.0)

        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
        train(recipe(optim={"clip": 1e-3}))
        assert norms == pytest.approx([1e-3] * 4, rel=0.02)


class TestAverage:
    def test_without_decay_it_is_the_network(self, recipe):
        trainer, _ = train(recipe(model={"options": {**TINY, "norm": True, "output": "sigmoid"}}))
        assert equal(trainer.average.state_dict(), trainer.network.state_dict())

    @pytest.mark.parametrize("decay", [0.05, 0.15, 0.9])
    def test_is_the_moving_average(self, recipe, decay):
        trainer = Trainer(recipe(optim={"ema": decay}), device="cpu")
        name = "encoders.0.conv2.weight"
        wanted = trainer.network.state_dict()[name].clone()
        for progress in trainer.run():
            # the first steps count for more, so that the random start is soon forgotten
            share = min(decay, progress.step / (9 + progress.step))
            wanted = share * wanted + (1 - share) * trainer.network.state_dict()[name]
        torch.testing.assert_close(trainer.average.state_dict()[name], wanted)
        assert not torch.equal(wanted, trainer.network.state_dict()[name])

    def test_is_what_is_validated_and_written(self, recipe, tmp_path):
        trainer, _ = train(recipe(optim={"ema": 0.9}))
        path = tmp_path / "run" / "last.safetensors"
        written = enhancekit.load("mfnn-lite", weights=path, **TINY).module.state_dict()
        assert equal(written, trainer.average.state_dict())
        assert not equal(written, trainer.network.state_dict())


class TestRefused:
    @pytest.mark.parametrize(
        ("sections", "error", "said"),
        [
            ({"model": {"only": "tail"}}, RecipeError, "model.only = 'tail' matches no parameter"),
            ({"model": {"only": "("}}, RecipeError, "model.only"),
            ({"loss": ""}, RecipeError, "loss: empty"),
            ({"model": {"enhancer": "gamma", "options": {}}}, OptionError, "nothing to train"),
            ({"model": {"enhancer": "mfnn-light"}}, UnknownNameError, "mfnn-lite"),
            ({"model": {"options": {**TINY, "widht": 4}}}, OptionError, "widht"),
            ({"model": {"weights": "nowhere.safetensors"}}, WeightsError, "nowhere.safetensors"),
            ({"loss": "l2"}, UnknownNameError, "no loss is called 'l2'"),
            ({"loss": "-1*l1"}, OptionError, "not a positive number"),
            ({"data": {"root": "nowhere"}}, DataError, "nowhere/low is not a folder"),
            ({"data": {"crop": 44}}, DataError, "set data.crop to at most 40"),
            ({"data": {"crop": 25}}, EnhanceKitError, "crop"),
            ({"data": {"sources": []}}, DataError, "no training pictures"),
        ],
    )
    def test_by_name(self, recipe, sections, error, said):
        with pytest.raises(error) as caught:
            train(recipe(**sections))
        assert said in str(caught.value)

    def test_thumbnails_for_a_network_without_global_context(self, recipe, monkeypatch):
        backbone = enhancekit.backbones.get("mfnn")
        local = replace(backbone, spec=replace(backbone.spec, global_context=False))
        config = {**TINY, "context": ""}
        monkeypatch.setattr(
            "enhancekit.training.loop.resolve_config", lambda entry, options: (local, config)
        )
        with pytest.raises(RecipeError, match=r"run\.context_batch: .*declares no global context"):
            Trainer(recipe(run={"context_batch": 2}), device="cpu")

    def test_a_context_that_nothing_chooses_in_training(self, recipe, monkeypatch):
        monkeypatch.delattr("enhancekit_mfnn.network.MFNN.context_for")
        with pytest.raises(PluginError, match=r"mfnn:mfnn .*has no `context_for\(batch\)`"):
            Trainer(recipe(), device="cpu")

    def test_an_impossible_device(self, recipe):
        with pytest.raises(DeviceError, match="nonsense"):
            Trainer(recipe(), device="nonsense")

    def test_nothing_is_written_before_the_first_step(self, recipe, tmp_path):
        with pytest.raises(RecipeError):
            Trainer(recipe(model={"only": "tail"}), device="cpu")
        Trainer(recipe(), device="cpu")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("place", ["forward", "backward"])
    def test_out_of_memory_says_what_to_do(self, recipe, monkeypatch, place):
        def greedy(*_args, **_options):
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")

        trainer = Trainer(recipe(), device="cpu")
        if place == "forward":
            monkeypatch.setattr("enhancekit_mfnn.blocks.SCR.forward", greedy)
        else:
            monkeypatch.setattr(trainer.fabric, "backward", greedy)
        with pytest.raises(DeviceError, match="out of memory"):
            list(trainer.run())

    def test_a_failing_block_is_blamed(self, recipe, monkeypatch):
        def broken(self, x):
            raise ZeroDivisionError("oh")

        monkeypatch.setattr("enhancekit_mfnn.blocks.SCR.forward", broken)
        with pytest.raises(EnhanceKitError, match=r"block mfnn:scr \(enhancekit-mfnn .*failed"):
            train(recipe())
