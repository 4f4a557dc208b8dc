"""Weights to the Hub and back, against a stand-in for its transport: no network is used."""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import enhancekit
from enhancekit.errors import OptionError, UnknownNameError, WeightsError
from enhancekit.hub import model_card
from enhancekit.weights import Card, read_card, save_weights

hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")

TINY = {"width": 4, "counts": (1, 1), "device": "cpu"}
FACTS = {"license": "CC0-1.0", "data": "my garden"}


class StandIn:
    """Repositories in a folder, by commit, laid out as the library's cache is."""

    def __init__(self, folder):
        self.folder = folder
        self.private = {}
        self.main = {}

    def create_repo(self, repo, *, private, exist_ok):
        assert exist_ok
        self.private.setdefault(repo, private)

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        commit = hashlib.sha1(f"{repo_id}{len(self.main)}".encode()).hexdigest()  # noqa: S324
        stored = self.folder / repo_id / "snapshots" / commit
        shutil.copytree(folder_path, stored)
        weights = stored / "model.safetensors"
        blob = self.folder / repo_id / "blobs" / hashlib.sha256(weights.read_bytes()).hexdigest()
        blob.parent.mkdir(exist_ok=True)
        weights.replace(blob)
        weights.symlink_to(blob)
        self.main[repo_id] = commit
        self.message = commit_message
        return SimpleNamespace(oid=commit)

    def download(self, repo, file, revision=None):
        if repo not in self.main:
            raise self._error(errors.RepositoryNotFoundError)
        path = self.folder / repo / "snapshots" / (revision or self.main[repo]) / file
        if not path.parent.is_dir():
            raise self._error(errors.RevisionNotFoundError)
        if not path.exists():
            raise errors.EntryNotFoundError(file)
        return str(path)

    def _error(self, kind):
        return kind.__new__(kind)  # their constructors want the answer of a server

    def readme(self, repo):
        return (self.folder / repo / "snapshots" / self.main[repo] / "README.md").read_text("utf-8")


@pytest.fixture
def far(tmp_path, monkeypatch):
    made = StandIn(tmp_path / "far")
    monkeypatch.setattr(hub, "HfApi", lambda library_name: made)
    monkeypatch.setattr(hub, "hf_hub_download", made.download)
    return made


@pytest.fixture(scope="module")
def trained():
    enhancer = enhancekit.load("mfnn-lite", pretrained=False, **TINY)
    torch.manual_seed(2)
    torch.nn.init.normal_(enhancer.module.head.final.weight, std=0.2)
    return enhancer


@pytest.fixture(scope="module")
def dark():
    return np.random.default_rng(0).integers(0, 60, (13, 18, 3), np.uint8)


def test_there_and_back(far, trained, dark):
    name = enhancekit.push(trained, "me/night", **FACTS)
    assert name == f"hub:me/night@{far.main['me/night']}"
    stored = far.folder / "me/night/snapshots" / far.main["me/night"]
    for each in (name, "hub:me/night"):
        again = enhancekit.load(each, device="cpu")
        digest = hashlib.sha256((stored / "model.safetensors").read_bytes()).hexdigest()
        assert str(again.entry) == f"enhancer hub:mfnn-lite (me/night {digest[:12]})"
        assert again.entry.spec.weights is None
        assert again.card.license == "CC0-1.0"
        np.testing.assert_array_equal(again.enhance(dark), trained.enhance(dark))


def test_nothing_but_weights_and_card(far, trained):
    enhancekit.push(trained, "me/night", private=True, **FACTS)
    stored = far.folder / "me/night/snapshots" / far.main["me/night"]
    assert sorted(p.name for p in stored.iterdir()) == ["README.md", "model.safetensors"]
    assert far.private == {"me/night": True}
    assert far.message == "Upload mfnn-lite"


def test_a_pinned_commit_stays(far, trained, dark):
    first = enhancekit.push(trained, "me/night", **FACTS)
    other = enhancekit.load("mfnn-lite", pretrained=False, **TINY)
    enhancekit.push(other, "me/night", **FACTS)
    pinned, newest = (enhancekit.load(n, device="cpu") for n in (first, "hub:me/night"))
    assert pinned.enhance(dark).tobytes() == trained.enhance(dark).tobytes()
    assert newest.enhance(dark).tobytes() == other.enhance(dark).tobytes()
    assert newest.enhance(dark).tobytes() != pinned.enhance(dark).tobytes()


class TestHash:
    def test_of_ones_own(self, far, trained):
        name = enhancekit.push(trained, "me/night", **FACTS)
        path = far.folder / "me/night/snapshots" / far.main["me/night"] / "model.safetensors"
        right = hashlib.sha256(path.read_bytes()).hexdigest()
        assert enhancekit.load(name, sha256=right.upper()).card.data == "my garden"
        with pytest.raises(WeightsError, match=f"SHA-256 {right}, expected 0000"):
            enhancekit.load(name, sha256="0" * 64)

    def test_of_the_cache(self, far, trained):
        name = enhancekit.push(trained, "me/night", **FACTS)
        (blob,) = (far.folder / "me/night/blobs").iterdir()
        blob.write_bytes(blob.read_bytes()[:-1] + b"\1")
        with pytest.raises(WeightsError, match=f"expected {blob.name}; .*delete the file"):
            enhancekit.load(name)


class TestRefused:
    def test_without_a_licence(self, far, trained):
        with pytest.raises(WeightsError, match="state no licence"):
            enhancekit.push(trained, "me/night")
        assert far.main == {}

    def test_functions(self, far):
        with pytest.raises(OptionError, match="no weights that can be saved"):
            enhancekit.push(enhancekit.load("gamma"), "me/night", license="MIT")

    @pytest.mark.parametrize("repo", ["night", "me/night@main", "a/b/c", "../night", ""])
    def test_names_to_push_to(self, far, trained, repo):
        with pytest.raises(OptionError, match="a repository is called 'user/name'"):
            enhancekit.push(trained, repo, **FACTS)

    @pytest.mark.parametrize("place", ["night", "me/night@", "a/b/c", ""])
    def test_names_to_load(self, far, place):
        with pytest.raises(OptionError, match=r"hub:user/name or hub:user/name@revision, not"):
            enhancekit.load(f"hub:{place}")

    def test_a_config_that_would_say_how_to_load(self, far, trained, monkeypatch):
        place = enhancekit.push(trained, "me/night", **FACTS)
        monkeypatch.setattr(
            "enhancekit.inference.saved.read_card",
            lambda path: replace(read_card(path), config={"device": "cuda"}),
        )
        with pytest.raises(WeightsError, match="device in its config are no options"):
            enhancekit.load(place)

    @pytest.mark.parametrize("place", ["me/none", "me/night@v9"])
    def test_what_does_not_exist(self, far, trained, place):
        enhancekit.push(trained, "me/night", **FACTS)
        with pytest.raises(WeightsError, match=rf"hub:{place} does not exist, or needs you to log"):
            enhancekit.load(f"hub:{place}")

    def test_pickles_only(self, far, trained):
        enhancekit.push(trained, "me/night", **FACTS)
        stored = far.folder / "me/night/snapshots" / far.main["me/night"]
        (stored / "model.safetensors").rename(stored / "pytorch_model.bin")
        with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
            enhancekit.load("hub:me/night")

    def test_of_a_plugin_that_is_not_there(self, far, trained):
        enhancekit.push(trained, "me/night", **FACTS)
        path = far.folder / "other.safetensors"
        save_weights(path, {}, Card(name="unet", backbone="acme:unet", config={}))
        link = far.folder / "me/night/snapshots" / far.main["me/night"] / "model.safetensors"
        link.unlink()
        link.symlink_to(path)
        with pytest.raises(
            UnknownNameError, match=r"weights of 'unet' .*install the plugin 'acme'"
        ):
            enhancekit.load("hub:me/night")

    def test_more_options(self, far):
        with pytest.raises(OptionError, match="no option width; it has sha256"):
            enhancekit.load("hub:me/night", width=4)


class TestOffline:
    def test_loading(self, tmp_path, monkeypatch):
        """The library's own code, told to stay offline, with an empty cache."""
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(WeightsError, match=r"hub:me/night is not in the cache .*weights=FILE"):
            enhancekit.load("hub:me/night")

    def test_pushing(self, trained, monkeypatch):
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(
            WeightsError, match=r"cannot be uploaded: .*hf auth login.*save\(path\)"
        ):
            enhancekit.push(trained, "me/night", **FACTS)

    def test_not_installed(self, trained, monkeypatch):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        for call in (
            lambda: enhancekit.push(trained, "me/night", **FACTS),
            lambda: enhancekit.load("hub:me/night"),
        ):
            with pytest.raises(OptionError, match=r"pip install 'enhancekit\[hub\]'"):
                call()


class TestModelCard:
    def test_of_shipped_weights(self, far):
        enhancekit.push(enhancekit.load("mfnn-lite", device="cpu"), "me/lite")
        text = far.readme("me/lite")
        card = read_card(
            far.folder / "me/lite/snapshots" / far.main["me/lite"] / "model.safetensors"
        )
        data = hub.ModelCard(text).data
        assert data.library_name == "enhancekit"
        assert data.pipeline_tag == "image-to-image"
        assert data.tags == ["image-enhancement", "low-light"]
        assert (data.license, data.license_name) == ("other", card.license)
        assert card.data in text
        assert 'enhancekit.load("hub:me/lite")' in text

    @pytest.mark.parametrize(
        ("licence", "wanted"),
        [("MIT", "mit"), ("cc-by-4.0", "cc-by-4.0"), ("My: own, 'odd'", "other")],
    )
    def test_licence(self, licence, wanted):
        card = Card(name="net", backbone="acme:net", config={"width": 4}, license=licence)
        text = model_card(card, "me/net")
        data = hub.ModelCard(text).data
        assert data.license == wanted
        assert data.to_dict().get("license_name") == (licence if wanted == "other" else None)
        assert "| width | 4 |" in text
        assert "## Data" not in text

    def test_a_bar_stays_in_its_cell(self):
        card = Card(name="net", backbone="acme:net", config={}, figures={"a|b": "--scene '(c|d)'"})
        assert r"| a\|b | --scene '(c\|d)' |" in model_card(card, "me/net")
