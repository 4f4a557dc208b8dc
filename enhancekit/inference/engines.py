"""Engines beside torch that run a network's ONNX graph: optional packages behind one interface."""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from enhancekit.errors import DeviceError, OptionError
from enhancekit.inference.device import PRECISIONS, precision_name

__all__ = ["ENGINES", "Compiled", "Engine", "choose_engine", "find_engine", "need_cpu"]

Compiled = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]
"""Runs a graph: from the inputs by name to its one output. May be called by several threads."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine: what it is called, what it can do here, and how to hand it a graph."""

    name: str
    """Package to import, and extra of enhancekit that installs it."""
    precisions: Callable[[], frozenset[str]]
    """Asks the installed package which precisions it computes on this machine."""
    compile: Callable[[bytes, str], Compiled]
    """Makes an ONNX model ready to run in one of these."""
    least: int
    """Least side of the pictures its graphs are made for. Where it is large, networks may fold
    layers whose borders need room; that made OpenVINO a fifth faster and onnxruntime a tenth
    slower."""

    @property
    def installed(self) -> bool:
        """Whether the package is there."""
        return importlib.util.find_spec(self.name) is not None

    def check(self, dtype: torch.dtype) -> str:
        """Give a precision's name after making sure that the engine computes it here.

        Raises
        ------
        DeviceError
            If it does not.
        """
        name = precision_name(dtype)
        if name not in self.precisions():
            raise DeviceError(
                f"{self.name} does not compute {name} on this machine, only "
                f"{', '.join(sorted(self.precisions()))}; use precision='auto'"
            )
        return name

    def open(self, model: bytes, dtype: torch.dtype) -> Compiled:
        """Make an ONNX model ready to run.

        Raises
        ------
        DeviceError
            If the engine does not compute in this precision here.
        """
        return self.compile(model, self.check(dtype))


def find_engine(name: str) -> Engine:
    """Find an engine other than torch by name, and make sure that it is installed.

    Raises
    ------
    OptionError
        If there is no such engine, or its package is missing.

    Examples
    --------
    >>> find_engine("tensorflow")
    Traceback (most recent call last):
    ...
    enhancekit.errors.OptionError: engine 'tensorflow' is none of 'torch', 'onnxruntime', 'openvino'
    """
    if name not in ENGINES:
        raise OptionError(f"engine {name!r} is none of 'torch', {', '.join(map(repr, ENGINES))}")
    engine = ENGINES[name]
    if not engine.installed:
        raise OptionError(
            f"engine {name!r} is not installed; install it with: pip install 'enhancekit[{name}]'"
        )
    return engine


def choose_engine(name: str) -> Engine:
    """Find an engine for an ONNX file: the one named, or the first installed for ``"auto"``.

    Raises
    ------
    OptionError
        If it is torch, which reads no ONNX, or none is installed.
    """
    if name == "torch":
        raise OptionError(
            "torch reads no ONNX files; use engine='auto', "
            + " or ".join(f"{known!r}" for known in ENGINES)
        )
    if name != "auto":
        return find_engine(name)
    found = next((engine for engine in ENGINES.values() if engine.installed), None)
    if found is None:
        raise OptionError(
            "no engine for ONNX files is installed; "
            "install one with: pip install 'enhancekit[onnxruntime]'"
        )
    return found


def need_cpu(engine: str, device: str) -> None:
    """Refuse a device that no engine beside torch computes on.

    Raises
    ------
    DeviceError
        If it is not the CPU.
    """
    if device not in ("auto", "cpu"):
        raise DeviceError(
            f"engine {engine!r} computes on the CPU only, not on {device!r}; use engine='torch' "
            "with a registered name there"
        )


def _open_in_onnxruntime(model: bytes, _precision: str) -> Compiled:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, dict(inputs))[0]
        return found

    return run


def _openvino_precisions() -> frozenset[str]:
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return frozenset(n for n in PRECISIONS if n.upper() in able)


def _open_in_openvino(model: bytes, precision: str) -> Compiled:
    import openvino

    core = openvino.Core()
    # it takes bf16 of its own accord where the processor has it, so it is always told
    wanted = {"fp32": "f32", "fp16": "f16"}.get(precision, precision)
    settings = {
        "INFERENCE_PRECISION_HINT": wanted,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if taken != wanted:
        raise DeviceError(f"openvino was told to compute in {wanted} but took {taken}")
    idle: deque[Any] = deque()  # a request serves one thread at a time, and keeps its buffers

    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        found: NDArray[np.float32] = request.infer(dict(inputs))[0].copy()
        idle.append(request)
        return found

    return run


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("onnxruntime", lambda: frozenset({"fp32"}), _open_in_onnxruntime, least=1),
        Engine("openvino", _openvino_precisions, _open_in_openvino, least=64),
    )
}
"""Those that can be asked for besides torch, by name; the first installed one reads ONNX files."""
