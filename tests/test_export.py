"""ONNX files: they agree with torch at any size, run without it, and carry their card."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import enhancekit
from enhancekit.errors import OptionError, PluginError, WeightsError
from enhancekit.export import TOLERANCE, export
from enhancekit.weights import Card, save_weights

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

TINY = {"width": 4, "counts": [1, 1], "pack": 1}
SIZES = [(1, 1), (2, 7), (33, 31), (41, 97), (129, 55)]
ALONE = """if True:
    import sys
    sys.modules["torch"] = None  # importing it fails
    import numpy as np, onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[1])
    for case in np.load(sys.argv[2], allow_pickle=False)["cases"].reshape(-1, 2):
        x = np.random.default_rng(5).random((2, 3, *case), np.float32) / 2
        free = np.full(2, np.nan, np.float32)
        y = session.run(None, {"pictures": x, "whole": x, "exposure": free})[0]
        np.save(f"{sys.argv[3]}-{case[0]}.npy", y)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(3)
    module = enhancekit.load("mfnn-lite", pretrained=False, **TINY).module
    torch.nn.init.normal_(module.head.final.weight, std=0.1)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    config = {**TINY, "context": "mfnn:exposure"}
    card = Card(name="mfnn-lite", backbone="mfnn:mfnn", config=config, license="of the test")
    save_weights(path, module.state_dict(), card)
    return path


@pytest.fixture(scope="module")
def exact(weights):
    return enhancekit.load("mfnn-lite", weights=weights, device="cpu", precision="fp32", **TINY)


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    assert 0 < export("mfnn-lite", path, weights=weights, options=TINY) <= TOLERANCE
    assert [p.name for p in path.parent.iterdir()] == ["tiny.onnx"]
    return path


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def loaded(request, file):
    pytest.importorskip(request.param)
    return enhancekit.load(f"onnx:{file}", engine=request.param)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("exposure", [{}, {"exposure": 0.7}])
def test_agrees_with_torch(loaded, exact, size, exposure):
    x = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(4)) / 2
    given, wanted = loaded.enhance(x, **exposure), exact.enhance(x, **exposure)
    torch.testing.assert_close(given, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("sigma", [None, 0.0, 35.0])
def test_a_context_that_looks_at_nothing(tmp_path, sigma):
    path, options = tmp_path / "denoise.onnx", {**TINY, "pack": 2, "context": "mfnn:noise_level"}
    options["block_options"] = {}  # the variant has wider ones
    torch.manual_seed(4)
    module = enhancekit.load("mfnn-denoise", pretrained=False, **options).module
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    card = Card(name="mfnn-denoise", backbone="mfnn:mfnn", config=options)
    save_weights(tmp_path / "w.safetensors", module.state_dict(), card)
    export("mfnn-denoise", path, weights=tmp_path / "w.safetensors", options=options)
    given = {} if sigma is None else {"sigma": sigma}
    ours = enhancekit.load("mfnn-denoise", weights=tmp_path / "w.safetensors", **options)
    x = torch.rand(3, 3, 21, 34)
    done = enhancekit.load(f"onnx:{path}").enhance(x, **given)
    torch.testing.assert_close(done, ours.enhance(x, **given), rtol=0, atol=1e-4)
    assert (done - ours.enhance(x, sigma=10)).abs().max() > 1e-3


def test_tiles_give_the_whole(file, exact):
    tiled = enhancekit.load(f"onnx:{file}", tile=64)
    x = torch.rand(3, 150, 131, generator=torch.Generator().manual_seed(4)) / 2
    torch.testing.assert_close(tiled.enhance(x), exact.enhance(x), rtol=0, atol=TOLERANCE)


def test_says_what_it_is(file, exact):
    enhancer = enhancekit.load(f"onnx:{file}")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    made_by = f"{enhancekit.__version__}+{digest}"
    assert str(enhancer.entry) == f"enhancer onnx:mfnn-lite (tiny.onnx {made_by})"
    assert enhancer.card == exact.card
    assert enhancer.card.license == "of the test"
    assert enhancer.precision == torch.float32
    assert enhancer.module is None
    with pytest.raises(OptionError, match=r"exposure lies between 0\.05 and 0\.95"):
        enhancer.enhance(torch.rand(3, 4, 4), exposure=1)


def test_runs_without_torch(file, exact, tmp_path):
    np.savez(tmp_path / "cases.npz", cases=np.array(SIZES))
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(file), str(tmp_path / "cases.npz"), str(tmp_path / "y")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for size in SIZES:
        x = np.random.default_rng(5).random((2, 3, *size), np.float32) / 2
        given = np.load(tmp_path / f"y-{size[0]}.npy")
        wanted = exact.enhance(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(given, wanted, rtol=0, atol=TOLERANCE)


def test_the_graph_is_open_in_every_size(file):
    inputs = {i.name: i for i in onnx.load(file).graph.input}
    assert list(inputs) == ["pictures", "whole", "exposure"]
    for name, fixed in (("pictures", [1]), ("whole", [1]), ("exposure", [])):
        dims = inputs[name].type.tensor_type.shape.dim
        assert [i for i, dim in enumerate(dims) if dim.dim_value] == fixed


def test_on_the_command_line(file, cli, dark, tmp_path):
    target = tmp_path / "better.png"
    done = cli("enhance", dark, "-o", target, "-e", f"onnx:{file}")
    assert done.code == 0, done.err
    with Image.open(target) as better, Image.open(dark) as before:
        assert better.size == before.size
        assert np.mean(np.asarray(better)) > np.mean(np.asarray(before)) + 10


def test_its_card_is_shown(file, cli):
    shown = json.loads(cli("info", f"onnx:{file}", "--json").out)
    assert shown["name"] == "onnx:mfnn-lite"
    assert shown["card"]["file"] == f"onnx:{file}"
    assert shown["card"]["name"] == "mfnn-lite"
    assert "takes no weights" in cli("info", f"onnx:{file}", "--weights", file).err


def test_an_existing_file_is_kept(file, cli):
    before = file.read_bytes()
    done = cli("export", "mfnn-lite", file)
    assert done.code == 1
    assert "pass --overwrite" in done.err
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("gamma", "a.onnx", "builtin:gamma .*only networks can be exported"),
        ("mfnn-lite", "a.pt", "an ONNX file is called .onnx, not 'a.pt'"),
    ],
)
def test_what_cannot_be_exported(name, target, said, tmp_path):
    with pytest.raises(OptionError, match=said):
        export(name, tmp_path / target)


def test_untrained_only_on_request(tmp_path):
    with pytest.raises(WeightsError, match="ships no trained weights"):
        export("mfnn-report", tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        ("x * (0.5 if x.shape[2] > 96 else 0.6)", "decides by the size of the pictures"),
        ("x / len(x)", "decides by the number of the pictures"),
    ],
)
def test_a_network_that_decides_by_its_input_is_refused(make_plugin, tmp_path, forward, said):
    make_plugin(
        backbones=[{"name": "branching", "target": "{code}:Branching"}],
        enhancers=[{"name": "branching", "task": "tone", "backbone": "orbit:branching"}],
        code=f"""
        import torch
        from enhancekit.specs import SizeRequirements

        class Branching(torch.nn.Module):
            size_requirements = SizeRequirements()

            def forward(self, x):
                return {forward}
        """,
    )
    with pytest.raises(PluginError, match=rf"orbit:branching .*{said}"):
        export("branching", tmp_path / "a.onnx", pretrained=False)
    with pytest.raises(PluginError, match=rf"orbit:branching .*{said}"):
        enhancekit.load("branching", pretrained=False, engine="onnxruntime")


def test_under_other_defaults_of_torch(weights, tmp_path):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            off = export("mfnn-lite", tmp_path / "a.onnx", weights=weights, options=TINY)
        loaded = enhancekit.load(f"onnx:{tmp_path / 'a.onnx'}", engine="onnxruntime")
        loaded.enhance(np.zeros((9, 8, 3), np.uint8))
    finally:
        torch.set_default_dtype(before)
    assert off <= TOLERANCE


def test_a_network_that_becomes_another_is_refused(make_plugin, tmp_path):
    make_plugin(
        backbones=[{"name": "fickle", "target": "{code}:Fickle"}],
        enhancers=[{"name": "fickle", "task": "tone", "backbone": "orbit:fickle"}],
        code="""
        import torch
        from enhancekit.specs import SizeRequirements

        class Fickle(torch.nn.Module):
            size_requirements = SizeRequirements()

            def forward(self, x):
                return x * (0.5 if torch.onnx.is_in_onnx_export() else 0.6)
        """,
    )
    with pytest.raises(PluginError, match=r"orbit:fickle .*off by 0\.0.* nothing was written"):
        export("fickle", tmp_path / "a.onnx", pretrained=False)
    assert list(tmp_path.glob("*.onnx")) == []


def test_missing(tmp_path):
    with pytest.raises(WeightsError, match=r"a\.onnx does not exist"):
        enhancekit.load(f"onnx:{tmp_path / 'a.onnx'}")


@pytest.mark.parametrize("size", [0, 7, 1000])
def test_damaged(file, tmp_path, size):
    path = tmp_path / "cut.onnx"
    path.write_bytes(file.read_bytes()[:size])
    with pytest.raises(WeightsError, match=r"cut\.onnx"):
        enhancekit.load(f"onnx:{path}")


def test_of_somebody_else(file, tmp_path):
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(WeightsError, match="only files written by `enhancekit export`"):
        enhancekit.load(f"onnx:{tmp_path / 'other.onnx'}")


@pytest.mark.parametrize(
    "change",
    [{"requirements": {"multiple_of": 0}}, {"controls": 3}, {"card": {"x": 1}}, {"more": 1}],
)
def test_a_damaged_description(file, tmp_path, change):
    model = onnx.load(file)
    (prop,) = model.metadata_props
    prop.value = json.dumps({**json.loads(prop.value), **change})
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(WeightsError, match=r"odd\.onnx: its enhancekit description is damaged"):
        enhancekit.load(f"onnx:{tmp_path / 'odd.onnx'}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pretrained": False}, "takes no weights"),
        ({"weights": "a"}, "takes no weights"),
        ({"width": 4}, r"scheme builtin:onnx .*no option width; it has none"),
    ],
)
def test_it_is_finished(file, options, said):
    with pytest.raises(OptionError, match=said):
        enhancekit.load(f"onnx:{file}", **options)
