"""From a model file to an enhancer; the formats that can hide code only on request."""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from enhancekit.errors import DeviceError, EnhanceKitError, OptionError, PluginError, WeightsError
from enhancekit.inference.assembly import network_enhancer
from enhancekit.inference.enhancer import Enhancer
from enhancekit.registry import Entry, Provider
from enhancekit.specs import EnhancerSpec
from enhancekit_spandrel.network import DescribedNetwork

__all__ = ["TILE", "load_model", "spandrel"]

TILE = 512
"""Side of the tiles under ``tile="auto"``: these models are large, and what they need grows with
the output."""

_PICKLES = (".pth", ".ckpt")
_TASKS = {"SR": "super-resolution", "FaceSR": "face restoration", "Restoration": "restoration"}


def load_model(
    place: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    tile: str | int | None = "auto",
    engine: str = "auto",
    overlap: int = 32,
    allow_pickle: bool = False,
) -> Enhancer:
    """Load a model file: ``enhancekit.load("spandrel:FILE")``.

    Parameters
    ----------
    place : str
        A ``.safetensors`` file.
    device, precision, tile
        As for `enhancekit.load`; ``tile="auto"`` is 512 pixels where the model supports tiles.
    engine : str
        ``"auto"`` or ``"torch"``.
    overlap : int
        How far tiles overlap, in pixels.
    allow_pickle : bool
        Read ``.pth`` and ``.ckpt``, by spandrel's restricted unpickler.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, of another format, or of no architecture known.
    OptionError
        If an option cannot be used with this model.
    DeviceError
        If the device does not exist, or the model cannot be computed in the precision.
    PluginError
        If spandrel cannot be imported.
    """
    if engine not in ("auto", "torch"):
        raise OptionError(f"models of spandrel are computed by torch, not by engine={engine!r}")
    path = Path(place)
    _refuse_format(path, allow_pickle)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"model file {path} cannot be read: {error.strerror}") from error
    descriptor = _described(path)
    architecture = descriptor.architecture.name
    for name, supported in (
        ("fp16", descriptor.supports_half),
        ("bf16", descriptor.supports_bfloat16),
    ):
        if precision == name and not supported:
            raise DeviceError(
                f"{path.name} is of {architecture}, which cannot be computed in {name}; use "
                "precision='auto'"
            )
    network = DescribedNetwork(descriptor, overlap)
    spec = EnhancerSpec(
        name=_slug(path.stem),
        summary=" ".join((architecture, *descriptor.tags)),
        task=_TASKS.get(descriptor.purpose, descriptor.purpose),
        backbone=f"spandrel:{_slug(architecture)}",
        scale=descriptor.scale,
    )
    entry = Entry(spec, Provider("spandrel", path.name, digest[:12]), "enhancer")
    if tile == "auto":
        tile = TILE if network.size_requirements.halo is not None else None
    return network_enhancer(entry, network, device=device, precision=precision, tile=tile)


def spandrel() -> ModuleType:
    """Import spandrel.

    Raises
    ------
    PluginError
        If it, or torchvision, which it needs, is missing or does not fit torch.
    """
    try:
        found: ModuleType = importlib.import_module("spandrel")
    except Exception as error:  # a torchvision of another build raises RuntimeError
        import torch

        raise PluginError(
            f"spandrel cannot be imported: {type(error).__name__}: {error}. It needs a torchvision "
            f"that fits torch {torch.__version__}: pip install spandrel torchvision"
        ) from error
    return found


def _refuse_format(path: Path, allow_pickle: bool) -> None:
    suffix = path.suffix.lower()
    if not path.exists():
        raise WeightsError(f"model file {path} does not exist")
    if suffix == ".safetensors" or (suffix in _PICKLES and allow_pickle):
        return
    if suffix in _PICKLES:
        raise WeightsError(
            f"{path.name} is a pickle, which can run code when it is read. Convert it once with "
            f"`python -m enhancekit_spandrel {path}`, or pass allow_pickle=True if you trust it"
        )
    raise WeightsError(f"{path.name} is no .safetensors file, the one format read here")


def _described(path: Path) -> Any:
    library = spandrel()
    try:
        found = library.ModelLoader().load_from_file(path)
    except library.UnsupportedModelError as error:
        raise WeightsError(f"{path} is of no architecture that spandrel knows") from error
    except EnhanceKitError:
        raise
    except Exception as error:  # readers and architectures raise anything on a damaged file
        first = (str(error).strip().splitlines() or [""])[0]
        raise WeightsError(f"{path} is damaged: {type(error).__name__}: {first}") from error
    if not isinstance(found, library.ImageModelDescriptor):
        raise WeightsError(
            f"{path} needs more than a picture ({found.purpose}); only models that map a picture "
            "to a picture can be used"
        )
    return found


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "model"
