"""Recipes: TOML with every key checked, and changes from the command line."""

from __future__ import annotations

import json
import re

import pytest

import enhancekit
from enhancekit.builtin.composite import parse
from enhancekit.errors import RecipeError
from enhancekit.training.recipe import Recipe, read_recipe

SMALLEST = """
loss = "l1"
[data]
[[data.sources]]
input = "low"
target = "high"
[model]
enhancer = "mfnn-lite"
[run]
out = "runs/x"
steps = 10
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(SMALLEST)
    return str(path)


def shipped():
    """The recipes that installed plugins name in their hints."""
    hints = {e.qualified_name: e.spec.train_hint for e in enhancekit.enhancers.list()}
    return {n: re.search(r"enhancekit train (\S+)", h)[1] for n, h in hints.items() if h}


class TestShipped:
    @pytest.mark.parametrize(("name", "recipe"), shipped().items())
    def test_parses(self, name, recipe):
        read = read_recipe(recipe, ["data.root=anywhere"])
        # the example's recipe trains what it compares its own with, and its own by one option
        known = "acme:small-scr" if name == "acme:small-fast" else name
        assert enhancekit.enhancers.get(read.model.enhancer).qualified_name == known
        assert read.data.root == "anywhere"
        assert read.data.sources or read.data.clean

    @pytest.mark.parametrize("recipe", shipped().values())
    def test_its_losses_exist(self, recipe):
        read = read_recipe(recipe)
        for text in (read.loss, *(phase.loss for phase in read.phases)):
            assert not text or all(name in enhancekit.losses for _, name in parse(text))

    def test_there_are_some(self):
        assert len(shipped()) >= 4


class TestRead:
    def test_defaults(self, source):
        recipe = read_recipe(source)
        assert recipe.data.root == "."
        assert recipe.data.held_out == 0.1
        assert recipe.optim.betas == (0.9, 0.999)
        assert recipe.run.accumulate == 1
        assert recipe.model.options == {}

    def test_survives_json(self, source):
        recipe = read_recipe(source, ["model.options={counts = [1, 2], width = 4}"])
        assert Recipe.model_validate(json.loads(recipe.model_dump_json())) == recipe

    def test_is_frozen(self, source):
        with pytest.raises(ValueError, match="frozen"):
            read_recipe(source).run.steps = 5

    @pytest.mark.parametrize(
        ("text", "said"),
        [("loss = ", "no valid TOML"), ("", "loss: "), ("loss = 'l1'", "data: ")],
    )
    def test_broken_files(self, tmp_path, text, said):
        path = tmp_path / "bad.toml"
        path.write_text(text)
        with pytest.raises(RecipeError, match=rf"recipe .*bad\.toml.*{said}"):
            read_recipe(str(path))

    @pytest.mark.parametrize(
        "source",
        [
            "nowhere.toml",
            "nopackage:recipes/a.toml",
            "enhancekit:nowhere.toml",
            "math:a.toml",
            ":a.toml",
            "a b:c.toml",
            "enhancekit.errors:a.toml",
        ],
    )
    def test_missing_files(self, source):
        with pytest.raises(RecipeError, match="cannot be read"):
            read_recipe(source)

    def test_a_folder(self, tmp_path):
        with pytest.raises(RecipeError, match="cannot be read"):
            read_recipe(str(tmp_path))

    def test_not_text(self, tmp_path):
        (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(RecipeError, match="cannot be read"):
            read_recipe(str(tmp_path / "a.toml"))


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ("run.stepz=5", "run.stepz: unknown key"),
            ("speed=5", "speed: unknown key"),
            ("data.sources=[{input='a', target='b', scenes='x'}]", "data.sources.0.scenes: unk"),
            ("optim.betas=[0.9, 0.99, 0.5]", "optim.betas: "),
            ("optim.betas=[0.9, 1.5]", "optim.betas.1: "),
            ("run.steps=0", "run.steps: "),
            ("run.steps=ten", "run.steps: "),
            ("run.steps=1.5", "run.steps: "),
            ("run.steps=true", "run.steps: "),
            ("optim.lr=true", "optim.lr: "),
            ("data.held_out=false", "data.held_out: "),
            ("run.batch=-1", "run.batch: "),
            ("run.precision=fp64", "run.precision: "),
            ("run.context_batch=-1", "run.context_batch: "),
            ("data.held_out=1.0", "data.held_out: "),
            ("data.held_out=-0.1", "data.held_out: "),
            ("data.crop=0", "data.crop: "),
            ("data.shrink=[0]", "data.shrink.0: "),
            ("data.augment=perhaps", "data.augment: "),
            ("optim.lr=0", "optim.lr: "),
            ("optim.lr=nan", "optim.lr: "),
            ("optim.eps=inf", "optim.eps: "),
            ("optim.schedule=linear", "optim.schedule: "),
            ("optim.ema=1", "optim.ema: "),
            ("optim.clip=-1", "optim.clip: "),
            ("model.enhancer=5", "model.enhancer: "),
            ("loss=5", "loss: "),
            ("run=5", "run: "),
        ],
    )
    def test_names_the_key(self, source, change, said):
        with pytest.raises(RecipeError) as caught:
            read_recipe(source, [change])
        assert said in str(caught.value)
        assert "recipe.toml" in str(caught.value)

    def test_all_at_once(self, source):
        with pytest.raises(RecipeError) as caught:
            read_recipe(source, ["run.stepz=5", "run.batch=0"])
        assert "run.stepz: unknown key" in str(caught.value)
        assert "run.batch: " in str(caught.value)

    @pytest.mark.parametrize("missing", ["run.out", "run.steps", "model.enhancer"])
    def test_missing_keys(self, tmp_path, missing):
        path = tmp_path / "a.toml"
        key = missing.split(".")[1]
        path.write_text("\n".join(x for x in SMALLEST.splitlines() if not x.startswith(key)))
        with pytest.raises(RecipeError, match=f"{missing}: "):
            read_recipe(str(path))


class TestChanges:
    @pytest.mark.parametrize(
        ("change", "value"),
        [
            ("data.root=/some/where", "/some/where"),
            ("data.root='/some/where'", "/some/where"),
            ('data.root="a b"', "a b"),
            ("data.root=a b", "a b"),
            ("data.root = spaced ", "spaced"),
            ("data.root=", ""),
            ("data.root=a=b", "a=b"),
            ("data.root=C:\\pictures", "C:\\pictures"),
        ],
    )
    def test_text_may_be_bare(self, source, change, value):
        assert read_recipe(source, [change]).data.root == value

    @pytest.mark.parametrize(
        ("change", "path", "value"),
        [
            ("run.steps=7", "run.steps", 7),
            ("run.steps=1_000", "run.steps", 1000),
            ("optim.lr=3e-4", "optim.lr", 3e-4),
            ("data.augment=false", "data.augment", False),
            ("data.shrink=[1, 2]", "data.shrink", (1, 2)),
            ("loss=0.5*l1 + ssim", "loss", "0.5*l1 + ssim"),
            ("model.options={width = 4}", "model.options", {"width": 4}),
            ("model.options.width=4", "model.options", {"width": 4}),
            ("model.options.block=acme:fast", "model.options", {"block": "acme:fast"}),
            ("model.options.block_options.a=1", "model.options", {"block_options": {"a": 1}}),
            ("loss_options.vgg.weights=a.pth", "loss_options", {"vgg": {"weights": "a.pth"}}),
        ],
    )
    def test_values_and_nesting(self, source, change, path, value):
        found = read_recipe(source, [change])
        for part in path.split("."):
            found = getattr(found, part)
        assert found == value

    def test_what_looks_like_no_text_is_to_be_quoted(self, source):
        with pytest.raises(
            RecipeError, match=r"run\.out: .*not 2024-01-02; quote it: '\"2024-01-02\"'"
        ):
            read_recipe(source, ["run.out=2024-01-02"])
        assert read_recipe(source, ['run.out="2024-01-02"']).run.out == "2024-01-02"

    def test_the_folder_of_a_run_has_a_name(self, source):
        with pytest.raises(RecipeError, match=r"run\.out: "):
            read_recipe(source, ["run.out="])

    def test_blanks_around_a_loss_mean_nothing(self, source):
        assert read_recipe(source, ["loss=' l1 '"]).loss == "l1"

    def test_later_ones_win(self, source):
        assert read_recipe(source, ["run.steps=7", "run.steps=8"]).run.steps == 8

    def test_they_add_sections(self, source):
        assert read_recipe(source, ["optim.warm_up=3"]).optim.warm_up == 3

    @pytest.mark.parametrize(
        "change", ["run.steps", "=5", " =5", "", "run.=3", "run.steps=5\nloss='l1'"]
    )
    def test_unreadable(self, source, change):
        with pytest.raises(RecipeError, match=r"cannot read the change .*section\.key=value"):
            read_recipe(source, [change])

    @pytest.mark.parametrize("change", ["loss.l1=2", "data.sources.0.input=x", "run.out.a.b=1"])
    def test_into_a_value(self, source, change):
        with pytest.raises(RecipeError, match="is a value, not a section"):
            read_recipe(source, [change])
