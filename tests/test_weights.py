"""Weights on disk: safetensors with a card, and nothing else."""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
import struct
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from enhancekit.errors import WeightsError
from enhancekit.specs import WeightsSpec
from enhancekit.weights import Card, load_weights, normalised, read_card, save_weights, shipped

CONFIG = {"width": 4, "counts": [1, 1]}


class Tripwire:
    """Unpickling this would be noticed."""

    fired = False

    def __reduce__(self):
        return (setattr, (Tripwire, "fired", True))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def card(**changes):
    return Card(**{"name": "tiny", "backbone": "acme:net", "config": CONFIG, **changes})


def load(path, module=None, **changes):
    options = {"backbone": "acme:net", "config": CONFIG, **changes}
    return load_weights(path, module or network(), **options)


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "a.safetensors"
    save_weights(made, network().state_dict(), card())
    return made


def raw(header, payload=b""):
    """The bytes of a file with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


class TestRoundTrip:
    def test_tensors(self, path):
        module = network()
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
        load(path, module)
        for key, value in network().state_dict().items():
            assert torch.equal(module.state_dict()[key], value)

    def test_every_field_of_the_card(self, tmp_path):
        full = card(
            task="low-light",
            license="CC BY 4.0; the data are for research",
            data="400 pairs, 40 held out",
            figures={"psnr": {"lol": 19.25}, "note": "größer"},
            limits="smoke",
            training="100 steps",
            date="2024-05-06",
            parity_db={"bf16": 52.5},
        )
        save_weights(tmp_path / "a.safetensors", network().state_dict(), full)
        assert read_card(tmp_path / "a.safetensors") == full
        assert load(tmp_path / "a.safetensors") == full

    @pytest.mark.parametrize("kind", [str, Path])
    def test_kinds_of_path(self, path, kind):
        assert load(kind(path)) == read_card(kind(path)) == card()

    def test_anyone_may_read_the_tensors(self, path):
        tensors = safetensors.torch.load_file(path)
        assert tensors.keys() == network().state_dict().keys()

    def test_tuples_are_lists(self, path):
        assert load(path, config={"width": 4, "counts": (1, 1)}) == card()
        assert normalised({"b": (1, (2,)), "a": None}) == {"a": None, "b": [1, [2]]}

    def test_strided_tensors_and_graphs_are_saved_plainly(self, tmp_path):
        tensor = torch.rand(4, 6, requires_grad=True)[:, ::2]
        save_weights(tmp_path / "a.safetensors", {"t": tensor}, card())
        assert torch.equal(safetensors.torch.load_file(tmp_path / "a.safetensors")["t"], tensor)

    def test_tied_tensors_are_saved_each(self, tmp_path):
        tied = torch.rand(3)
        save_weights(tmp_path / "a.safetensors", {"a": tied, "b": tied}, card())
        loaded = safetensors.torch.load_file(tmp_path / "a.safetensors")
        assert torch.equal(loaded["a"], tied)
        assert torch.equal(loaded["b"], tied)


class TestSave:
    def test_no_temporary_file_stays(self, path):
        save_weights(path, network().state_dict(), card(name="second"))
        assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]
        assert read_card(path).name == "second"

    def test_folders_are_made(self, tmp_path):
        target = tmp_path / "b" / "c" / "a.safetensors"
        save_weights(target, network().state_dict(), card())
        assert load(target) == card()

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
    def test_a_failure_leaves_everything_as_it_was(self, path, monkeypatch, error):
        before = path.read_bytes()

        def replace(self, target):
            raise error

        monkeypatch.setattr(Path, "replace", replace)
        kind = WeightsError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(kind, match="cannot be written" if kind is WeightsError else None):
            save_weights(path, network().state_dict(), card(name="second"))
        assert path.read_bytes() == before
        assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]

    def test_a_file_where_a_folder_should_be(self, tmp_path):
        (tmp_path / "b").write_bytes(b"")
        with pytest.raises(WeightsError, match="cannot be written to"):
            save_weights(tmp_path / "b" / "a.safetensors", network().state_dict(), card())

    @pytest.mark.parametrize("name", ["a.pth", "a.pt", "a", "a.safetensors.bak"])
    def test_other_formats(self, tmp_path, name):
        with pytest.raises(WeightsError, match=r"as \.safetensors only"):
            save_weights(tmp_path / name, network().state_dict(), card())
        assert list(tmp_path.iterdir()) == []


class TestDamaged:
    @pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -200, -1])
    def test_truncated(self, path, length):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(WeightsError, match=r"a\.safetensors"):
            load(path)

    def test_something_behind_the_end(self, path):
        path.write_bytes(path.read_bytes() + b"\0" * 9)
        with pytest.raises(WeightsError, match="damaged"):
            load(path)

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickle_is_refused_and_never_run(self, path, zipped):
        content = {"state": network().state_dict(), "trip": Tripwire()}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match=r"another format.*can run code"):
            load(path)
        path.write_bytes(pickle.dumps(Tripwire()))
        with pytest.raises(WeightsError, match="can run code"):
            read_card(path)
        assert not Tripwire.fired

    @pytest.mark.parametrize("claim", [2**63, 2**40, 100_000_001, 10_000])
    def test_a_huge_header_is_not_believed(self, path, claim):
        path.write_bytes(struct.pack("<Q", claim) + b"{}")
        with pytest.raises(WeightsError, match="truncated"):
            load(path)

    @pytest.mark.parametrize(
        "content",
        [
            b"hello, this is text\n",
            raw(b"not JSON"),
            raw(b"\xff\xfe\xfa"),
            raw([]),
            raw("text"),
            raw(None),
            raw({}),
            raw({"__metadata__": {}}),
            raw({"__metadata__": {"enhancekit": "{"}}),
            raw({"__metadata__": {"enhancekit": "[1]"}}),
            raw({"__metadata__": {"enhancekit": 5}}),
            raw({"__metadata__": None}),
            raw({"__metadata__": [1, 2]}),
            raw({"__metadata__": "text"}),
            raw(b"[" * 100_000),
        ],
        ids=lambda b: repr(b[8:40]),
    )
    def test_anything_else_is_a_weights_error(self, path, content):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"a\.safetensors"):
            read_card(path)

    def test_missing(self, tmp_path):
        with pytest.raises(WeightsError, match="does not exist"):
            load(tmp_path / "a.safetensors")

    def test_a_folder(self, tmp_path):
        with pytest.raises(WeightsError, match=r"not a (readable )?safetensors file"):
            load(tmp_path)


class TestCards:
    @pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"enhancekit": "{}"}])
    def test_none(self, path, metadata):
        safetensors.torch.save_file(network().state_dict(), path, metadata=metadata)
        with pytest.raises(WeightsError, match="carries no enhancekit model card"):
            load(path)

    @pytest.mark.parametrize(
        "changes",
        [
            {"config": "text"},
            {"config": None},
            {"config": [1]},
            {"surprise": 1},
            {"backbone": 3},
            {"name": ["a"]},
            {"license": 3},
            {"parity_db": {"bf16": "x"}},
        ],
    )
    def test_of_another_make(self, path, changes):
        stated = {"name": "tiny", "backbone": "acme:net", "config": CONFIG, **changes}
        metadata = {"enhancekit": json.dumps(stated)}
        safetensors.torch.save_file(network().state_dict(), path, metadata=metadata)
        with pytest.raises(WeightsError, match=r"a\.safetensors"):
            load(path)

    def test_what_json_cannot_hold_is_refused_before_anything_is_written(self, tmp_path):
        stated = card(figures={"psnr": object()})
        with pytest.raises(WeightsError, match="its model card is no JSON"):
            save_weights(tmp_path / "b.safetensors", network().state_dict(), stated)
        assert list(tmp_path.iterdir()) == []


class TestMismatch:
    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({"width": 8, "counts": (1, 1)}, ["width: 4 there, 8 asked for"]),
            ({"counts": (1, 1)}, ["width: 4 there, 'unset' asked for"]),
            ({**CONFIG, "norm": True}, ["norm: 'unset' there, True asked for"]),
            ({"width": 2, "counts": [3]}, ["width: 4 there, 2", "counts: [1, 1] there, [3]"]),
        ],
    )
    def test_config(self, path, asked, said):
        with pytest.raises(WeightsError, match="belong to another network") as caught:
            load(path, config=asked, train_hint="acme train")
        assert all(line in str(caught.value) for line in said)
        assert "Train some: `acme train`" in str(caught.value)
        assert ("counts:" in str(caught.value)) == any("counts:" in line for line in said)

    def test_backbone(self, path):
        with pytest.raises(WeightsError, match="backbone: 'acme:net' there, 'acme:other' asked"):
            load(path, backbone="acme:other")

    @pytest.mark.parametrize("change", ["extra", "missing", "shape", "none"])
    def test_tensors(self, path, change):
        state = network().state_dict()
        if change == "extra":
            state["2.weight"] = torch.zeros(3)
        elif change == "missing":
            del state["0.bias"]
        elif change == "shape":
            state["0.weight"] = torch.zeros(4, 3, 5, 5)
        save_weights(path, state, card())
        if change == "none":
            assert load(path) == card()
            return
        with pytest.raises(WeightsError, match="is damaged or not these weights") as caught:
            load(path)
        assert "\n" not in str(caught.value)


class TestShipped:
    @pytest.fixture
    def spec(self, path, monkeypatch):
        package = path.parent / "acme_weights"
        (package / "inside").mkdir(parents=True)
        (package / "__init__.py").write_text("")
        path.rename(package / "inside" / "a.safetensors")
        monkeypatch.syspath_prepend(path.parent)
        monkeypatch.delitem(sys.modules, "acme_weights", raising=False)
        digest = hashlib.sha256((package / "inside" / "a.safetensors").read_bytes()).hexdigest()
        return WeightsSpec("acme_weights:inside/a.safetensors", digest)

    def test_found(self, spec, tmp_path):
        assert shipped(spec) == tmp_path / "acme_weights" / "inside" / "a.safetensors"
        assert load(shipped(spec)) == card()

    def test_changed_by_one_bit(self, spec):
        path = shipped(spec)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        found = hashlib.sha256(content).hexdigest()
        with pytest.raises(WeightsError, match=f"SHA-256 {found}, expected {spec.sha256}.*reinst"):
            shipped(spec)

    def test_removed(self, spec):
        shipped(spec).unlink()
        with pytest.raises(WeightsError, match=r"acme_weights:inside/a.* are not installed"):
            shipped(spec)

    def test_no_such_package(self):
        with pytest.raises(WeightsError, match=r"not installed.*reinstall the plugin"):
            shipped(WeightsSpec("acme_nowhere:a.safetensors", "0" * 64))
