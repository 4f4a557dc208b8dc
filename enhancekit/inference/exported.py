"""ONNX files as ``enhancekit export`` writes them: the model card inside, and the way back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from enhancekit._version import __version__
from enhancekit.errors import EnhanceKitError, OptionError, WeightsError
from enhancekit.inference.apply import network_parts
from enhancekit.inference.compiled import CompiledFile
from enhancekit.inference.device import choose_precision
from enhancekit.inference.engines import choose_engine, need_cpu
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.parts import Part, Source
from enhancekit.plain import first_line
from enhancekit.registry import Entry, Provider
from enhancekit.specs import EnhancerSpec, SizeRequirements
from enhancekit.weights import Card

__all__ = ["Description", "load_exported", "open_exported", "with_description"]

_KEY = "enhancekit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a file says about the network inside it."""

    name: str
    """Name of the enhancer."""
    summary: str
    """One line."""
    task: str
    """What it is for."""
    backbone: str
    """Qualified name of the network."""
    requirements: Mapping[str, Any]
    """Fields of its `SizeRequirements`."""
    controls: Mapping[str, Any]
    """What `enhance` can be told, with the range of each."""
    has_context: bool
    """Whether the graph takes the whole picture and the controls besides the pictures."""
    card: Mapping[str, Any] | None
    """Model card of the weights; ``None`` if they are untrained."""
    context_grid: int | None = None
    """Rows and columns of the grid whose averages can stand for the whole picture, if any."""
    version: str = __version__
    """Version of enhancekit that wrote it."""


def with_description(model: bytes, description: Description) -> bytes:
    """Put a description into an ONNX model's metadata."""
    import onnx

    proto = onnx.load_model_from_string(model)
    proto.producer_name = _KEY
    onnx.helper.set_model_props(proto, {_KEY: json.dumps(asdict(description))})
    return bytes(proto.SerializeToString())


def load_exported(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    engine: str = "auto",
    precision: str = "auto",
    tile: str | int | None = "auto",
) -> Enhancer:
    """Load an ONNX file.

    Parameters
    ----------
    path : path-like
        Written by ``enhancekit export``.
    device : str
        ``"auto"`` or ``"cpu"``.
    engine : str
        ``"onnxruntime"``, ``"openvino"``, or ``"auto"`` for the first that is installed.
    precision : str
        ``"auto"`` is ``"fp32"``: with lower precision the exposure, which is inside the graph,
        would shift too.
    tile : "auto", None or int
        As in `enhancekit.load`.

    Raises
    ------
    OptionError
        If no engine is installed.
    WeightsError
        If the file is missing or damaged, or not one of ours.
    DeviceError
        If the engine does not compute on this device, or in this precision here.
    """
    need_cpu(engine, device)
    path = Path(path)
    try:
        model = path.read_bytes()
    except FileNotFoundError:
        raise WeightsError(f"ONNX file {path} does not exist") from None
    except OSError as error:
        raise WeightsError(f"ONNX file {path} cannot be read: {error.strerror or error}") from error
    return open_exported(model, path, engine=engine, precision=precision, tile=tile)


def open_exported(
    model: bytes, path: Path, *, engine: str, precision: str, tile: str | int | None
) -> Enhancer:
    """Make an enhancer of what an ONNX file holds; see `load_exported`."""
    chosen = choose_engine(engine)
    entry, card, needs, controls, grid = _describe(path, model)
    where, origin = torch.device("cpu"), f"{entry} in {chosen.name}"
    dtype, reason = choose_precision(precision, where, {}, chosen.precisions())

    @cache
    def network(dtype: torch.dtype) -> CompiledFile:
        try:
            made = CompiledFile(chosen.open(model, dtype), needs, controls, origin, grid)
        except EnhanceKitError:
            raise
        except Exception as error:  # the engines have no common error
            said = first_line(error)
            raise WeightsError(f"{path} cannot be read by {chosen.name}: {said}") from error
        return made

    network(dtype)

    def run(
        source: Source, dtype: torch.dtype, controls: Mapping[str, float], turned: bool
    ) -> Iterator[Part]:
        made = network(dtype)
        return network_parts(
            made,
            source,
            global_context=made.controls is not None,
            tile=tile,
            controls=controls,
            turned=turned,
        )

    return Enhancer(
        entry,
        run,
        card=card,
        device=where,
        precision=dtype,
        precision_reason=reason if precision != "auto" else "exported files have no stated parity",
        engine=chosen.name,
    )


def _describe(
    path: Path, model: bytes
) -> tuple[Entry[EnhancerSpec], Card | None, SizeRequirements, tuple[str, ...] | None, int | None]:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise OptionError(
            f"reading {path} needs {error.name}; install it with: "
            "pip install 'enhancekit[onnxruntime]'"
        ) from error

    try:
        proto = onnx.load_model_from_string(model)
    except Exception as error:  # protobuf has several parsers with errors of their own
        raise WeightsError(f"{path} is damaged or no ONNX file: {error}") from error
    text = {p.key: p.value for p in proto.metadata_props}.get(_KEY)
    if text is None:
        raise WeightsError(
            f"{path} carries no enhancekit description, so it is not known what its network needs; "
            "only files written by `enhancekit export` can be loaded"
        )
    try:
        found = Description(**json.loads(text))
        spec = EnhancerSpec(
            name=found.name,
            summary=found.summary,
            task=found.task,
            backbone=found.backbone,
            controls={k: (float(low), float(high)) for k, (low, high) in found.controls.items()},
            scale=found.requirements["scale"],
        )
        needs = SizeRequirements(**found.requirements)
        card = Card(**found.card) if found.card is not None else None
    except (EnhanceKitError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path}: its enhancekit description is damaged: {error}") from error
    grid = found.context_grid
    if grid is not None and (not isinstance(grid, int) or grid < 0):
        raise WeightsError(f"{path}: its enhancekit description is damaged: context_grid {grid!r}")
    # the manifest of a folder tells by it whether the file has changed
    version = f"{found.version}+{hashlib.sha256(model).hexdigest()[:12]}"
    entry = Entry(spec, Provider("onnx", path.name, version), "enhancer")
    controls = tuple(spec.controls) if found.has_context else None
    return entry, card, needs, controls, grid
