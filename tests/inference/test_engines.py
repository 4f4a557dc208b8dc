"""Other engines than torch: the same pictures, in the precision that was asked for."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import enhancekit
from enhancekit.errors import DeviceError, OptionError, WeightsError
from enhancekit.inference import assembly, engines
from enhancekit.inference.engines import ENGINES, choose_engine
from enhancekit.inference.graph import tile_graph
from enhancekit.weights import Card, save_weights

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

TINY = {"width": 4, "counts": (1, 1), "pack": 1}
SIZES = [(1, 1), (3, 2), (37, 61), (70, 83), (65, 131)]


@pytest.fixture(scope="module", autouse=True)
def graphs():
    """All tests have the same network, and translating it is what takes long."""
    graphs = {}

    def remembered(module, *, global_context, least):
        if least not in graphs:
            graphs[least] = tile_graph(module, global_context=global_context, least=least)
        return graphs[least]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "tile_graph", remembered)
        yield graphs


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights that make a visible difference."""
    torch.manual_seed(3)
    module = enhancekit.load("mfnn-lite", pretrained=False, **TINY).module
    torch.nn.init.normal_(module.head.final.weight, std=0.1)
    path = tmp_path_factory.mktemp("engines") / "tiny.safetensors"
    config = {"width": 4, "counts": [1, 1], "context": "mfnn:exposure"}
    card = Card(
        name="mfnn-lite", backbone="mfnn:mfnn", config=config, parity_db={"bf16": 60.0, "fp16": 60}
    )
    save_weights(path, module.state_dict(), card)
    return path


def load(weights, **options):
    return enhancekit.load("mfnn-lite", weights=weights, **TINY, **options)


@pytest.fixture(scope="module")
def exact(weights):
    return load(weights, device="cpu", precision="fp32")


@pytest.fixture(scope="module", params=list(ENGINES))
def pair(request, weights):
    """An engine's enhancer in 32 bits."""
    pytest.importorskip(request.param)
    return load(weights, engine=request.param, precision="fp32", tile=96)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("exposure", [{}, {"exposure": 0.6}])
def test_same_pictures(pair, exact, size, exposure):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)) * 0.4
    given, wanted = pair.enhance(x, **exposure), exact.enhance(x, **exposure)
    # OpenVINO would be 1e-3 off if it took the bf16 it likes
    torch.testing.assert_close(given, wanted, rtol=0, atol=2e-5)
    assert float((wanted - x).abs().max()) > 0.01


def test_layers_are_folded_where_that_pays(pair, graphs):
    model = onnx.load_model_from_string(graphs[ENGINES[pair.engine].least])
    folded = "ConvTranspose" in {node.op_type for node in model.graph.node}
    assert folded == (pair.engine == "openvino")


def test_says_what_computes(pair, exact):
    assert pair.engine in ENGINES
    assert repr(pair).endswith(f" by {pair.engine}>")
    assert exact.engine == "torch"
    assert pair.device.type == "cpu"


def test_several_threads_at_once(pair):
    pictures = [torch.rand(3, 66, 70 + 4 * i) * 0.4 for i in range(4)]
    alone = [pair.enhance(x) for x in pictures]
    with ThreadPoolExecutor(4) as pool:
        for given, wanted in zip(pool.map(pair.enhance, pictures), alone, strict=True):
            assert torch.equal(given, wanted)


def test_openvino_takes_bf16_when_the_card_allows_and_then_says_so(weights, exact):
    pytest.importorskip("openvino")
    if "bf16" not in ENGINES["openvino"].precisions():
        pytest.skip("this processor computes no bf16")
    enhancer = load(weights, engine="openvino")
    assert enhancer.precision == torch.bfloat16
    assert "60 dB" in enhancer.precision_reason
    x = torch.rand(3, 80, 90, generator=torch.Generator().manual_seed(2)) * 0.4
    off = float((enhancer.enhance(x) - exact.enhance(x)).square().mean())
    assert 1e-12 < off < 1e-5  # another precision, and at least 50 dB


def test_onnxruntime_takes_32_bits_by_itself_and_refuses_less(weights, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("enhancekit.inference.assembly.tile_graph", lambda *_, **__: b"")
    with pytest.raises(DeviceError, match=r"onnxruntime does not compute bf16 .*only fp32"):
        load(weights, engine="onnxruntime", precision="bf16")


def test_unknown():
    with pytest.raises(OptionError, match="'tvm' is none of 'torch', 'onnxruntime', 'openvino'"):
        enhancekit.load("mfnn-lite", engine="tvm")


@pytest.mark.parametrize("name", list(ENGINES))
def test_not_installed(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(OptionError, match=rf"pip install 'enhancekit\[{name}\]'"):
        enhancekit.load("mfnn-lite", engine=name)
    with pytest.raises(OptionError, match="no engine for ONNX files is installed"):
        choose_engine("auto")


def test_the_first_one_installed_reads_files(monkeypatch):
    there = engines.importlib.util.find_spec("json")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: there if name == "openvino" else None
    )
    assert choose_engine("auto").name == "openvino"


def test_torch_reads_no_files():
    with pytest.raises(OptionError, match="torch reads no ONNX files"):
        choose_engine("torch")


def test_functions_need_none():
    pytest.importorskip("onnxruntime")
    with pytest.raises(OptionError, match=r"builtin:gamma .*is a function"):
        enhancekit.load("gamma", engine="onnxruntime")


def test_the_cpu_only():
    pytest.importorskip("onnxruntime")
    with pytest.raises(DeviceError, match="on the CPU only"):
        enhancekit.load("mfnn-lite", engine="onnxruntime", device="cuda")


def test_weights_are_still_needed():
    pytest.importorskip("onnxruntime")
    with pytest.raises(WeightsError):
        enhancekit.load("mfnn-report", engine="onnxruntime")
