"""Write a trained enhancer as one ONNX file that runs without torch and without enhancekit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from enhancekit.atomic import replacing
from enhancekit.errors import OptionError, PluginError, WeightsError
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.exported import Description, open_exported, with_description
from enhancekit.inference.graph import whole_graph
from enhancekit.inference.loading import load
from enhancekit.plugins import host

__all__ = ["TOLERANCE", "export"]

TOLERANCE = 1e-4
"""How far, at most, a written file may be from the network in torch; checked on every export."""


def export(
    name: str,
    path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    pretrained: bool = True,
    options: Mapping[str, Any] | None = None,
) -> float:
    """Write an enhancer as an ONNX file, and check it against torch.

    The graph takes ``pictures``, (N, 3, H, W) of any number and size, float32 in [0, 1], and gives
    ``enhanced``. If the network has a context, it also takes ``whole``, the same pictures (or what
    they are tiles of), and each control, shape (N,), in which NaN leaves the choice to the network.
    The metadata hold the model card.

    Parameters
    ----------
    name : str
        A registered enhancer with a network.
    path : path-like
        Ends in ``.onnx``; replaced if it exists.
    weights, pretrained, options
        As in `enhancekit.load`.

    Returns
    -------
    float
        The largest difference from torch that the check found, at most `TOLERANCE`.

    Raises
    ------
    OptionError
        If the enhancer is a function, or onnxruntime or what writes ONNX is not installed.
    PluginError
        If the network cannot be translated, or the translation computes something else.
    WeightsError
        If there are no weights, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise OptionError(f"an ONNX file is called .onnx, not {path.name!r}")
    enhancer = load(
        name,
        device="cpu",
        precision="fp32",
        tile=None,
        weights=weights,
        pretrained=pretrained,
        **(options or {}),
    )
    entry = enhancer.entry
    module: Any = enhancer.module
    if module is None or not entry.spec.backbone:
        raise OptionError(
            f"{entry} is no network of a registered backbone; only networks can be exported"
        )
    backbone = host().backbones.get(entry.spec.backbone)
    model, has_context = whole_graph(
        module,
        global_context=backbone.spec.global_context,
        controls=tuple(entry.spec.controls),
    )
    description = Description(
        name=entry.spec.name,
        summary=entry.spec.summary,
        task=entry.spec.task,
        backbone=backbone.qualified_name,
        requirements=asdict(module.size_requirements),
        controls={k: list(v) for k, v in entry.spec.controls.items()},
        has_context=has_context,
        context_grid=getattr(module, "context_grid", None),
        card=asdict(enhancer.card) if enhancer.card else None,
    )
    finished = with_description(model, description)
    off = _difference(finished, path, enhancer)
    if off > TOLERANCE:
        raise PluginError(
            f"{entry}: its ONNX graph is off by {off:.2g} from torch, so nothing was written; a "
            "layer probably decides by the values or the size of what it is given"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(finished)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error.strerror or error}") from error
    return off


def _difference(model: bytes, path: Path, enhancer: Enhancer) -> float:
    exported = open_exported(model, path, engine="onnxruntime", precision="fp32", tile=None)
    generator = torch.Generator().manual_seed(0)
    off = 0.0
    for shape in ((1, 3, 1, 1), (3, 3, 45, 38)):
        pictures = torch.rand(shape, generator=generator) / 2
        off = max(off, float((exported.run(pictures) - enhancer.run(pictures)).abs().max()))
    return off
