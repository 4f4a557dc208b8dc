"""``enhancekit doctor``: what works, what is missing, and how to get it."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from enhancekit import diagnosis
from enhancekit.diagnosis import diagnose

BROKEN_WEIGHTS = """
from enhancekit import BackboneSpec, EnhancerSpec, WeightsSpec, hookimpl
@hookimpl
def enhancekit_backbones():
    yield BackboneSpec(name="net", summary="x", target="math:sqrt")
@hookimpl
def enhancekit_enhancers():
    weights = WeightsSpec(resource="enhancekit:gone.safetensors", sha256="0" * 64)
    yield EnhancerSpec(name="dim", summary="x", task="t", backbone="orbit:net", weights=weights)
    yield EnhancerSpec(name="raw", summary="x", task="t", backbone="orbit:net", train_hint="do it")
"""


@pytest.fixture
def found(fresh_host):
    """Look, and return the findings by subject."""

    def look():
        return {finding.subject: finding for finding in diagnose()}

    return look


def test_a_sound_machine(found):
    findings = found()
    assert [f for f in findings.values() if f.status == "problem"] == []
    for subject in ("enhancekit", "torch", "device", "precision", "memory", "codecs"):
        assert findings[subject].found
    assert torch.__version__ in findings["torch"].found
    assert "PNG" in findings["codecs"].found
    assert findings["plugin builtin"].status == "ok"
    assert all(f.remedy for f in findings.values() if f.status == "problem")


def test_torch_missing(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    torch_found = found()["torch"]
    assert torch_found.status == "problem"
    assert "pip install" in torch_found.remedy


def test_a_codec_missing(found, monkeypatch):
    from PIL import features

    check = features.check
    monkeypatch.setattr(features, "check", lambda name: name != "webp" and check(name))
    codecs = found()["codecs"]
    assert codecs.status == "problem"
    assert codecs.found.endswith("without WEBP")
    assert "WEBP" not in codecs.found.split(";")[0]
    assert "pillow" in codecs.remedy


def test_little_memory(found, monkeypatch):
    monkeypatch.setattr("enhancekit.inference.memory.free_memory", lambda device: 10 << 20)
    memory = found()["memory"]
    assert memory.status == "note"
    assert "tile=256" in memory.remedy


def test_an_extra_missing(found, monkeypatch):
    from packaging.requirements import Requirement

    needed = ['absent-thing>=2; extra == "train"', "numpy>=1", 'numpy>=1; extra == "test"']
    monkeypatch.setattr(diagnosis.metadata, "requires", lambda _: needed)
    stated = {"Provides-Extra": ["train", "test"]}

    class Metadata:
        def get_all(self, key, default):
            return stated.get(key, default)

    monkeypatch.setattr(diagnosis.metadata, "metadata", lambda _: Metadata())
    findings = found()
    assert findings["extra train"].status == "note"
    assert findings["extra train"].found == f"without {Requirement(needed[0]).name}"
    assert findings["extra train"].remedy == "pip install 'enhancekit[train]'"
    assert findings["extra test"].status == "ok"


@pytest.mark.filterwarnings("ignore::enhancekit.plugins.PluginWarning")
def test_a_failed_plugin(found, make_plugin):
    make_plugin("raise OSError('no licence server')")
    orbit = found()["plugin orbit"]
    assert orbit.status == "problem"
    assert orbit.found == "orbit-plugin 1.0: OSError: no licence server"
    assert "orbit-plugin" in orbit.remedy


def test_a_disabled_plugin(found, make_plugin, monkeypatch):
    make_plugin("raise OSError('no licence server')")
    monkeypatch.setenv("ENHANCEKIT_DISABLE_PLUGINS", "orbit")
    assert found()["plugin orbit"].status == "note"
    assert "ENHANCEKIT_DISABLE_PLUGINS" in found()["plugin orbit"].remedy


def test_weights(found, make_plugin):
    make_plugin(BROKEN_WEIGHTS)
    findings = found()
    assert findings["weights orbit:dim"].status == "problem"
    assert findings["weights orbit:dim"].remedy == "reinstall orbit-plugin"
    assert findings["weights orbit:raw"].status == "note"
    assert findings["weights orbit:raw"].remedy == "do it"


class TestCommand:
    def test_sound(self, cli, fresh_host):
        done = cli("doctor")
        assert (done.code, done.err) == (0, "")
        assert "codecs" in done.out

    def test_json_and_exit_code(self, cli, make_plugin):
        make_plugin("raise OSError('no licence server')")
        done = cli("doctor", "--json")
        assert done.code == 1
        (problem,) = [f for f in json.loads(done.out) if f["status"] == "problem"]
        assert problem["subject"] == "plugin orbit"
        assert problem["remedy"]
