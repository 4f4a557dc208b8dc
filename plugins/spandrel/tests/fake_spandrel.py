"""What of spandrel the plugin uses, with two tiny architectures; the real one needs torchvision."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn


class ModelTiling(enum.Enum):
    SUPPORTED = 1
    DISCOURAGED = 2
    INTERNAL = 3


class UnsupportedModelError(Exception):
    pass


@dataclass
class SizeRequirements:
    minimum: int = 0
    multiple_of: int = 1
    square: bool = False


@dataclass
class ImageModelDescriptor:
    model: nn.Module
    scale: int = 1
    input_channels: int = 3
    output_channels: int = 3
    purpose: str = "Restoration"
    supports_half: bool = True
    supports_bfloat16: bool = True
    tiling: ModelTiling = ModelTiling.SUPPORTED
    size_requirements: SizeRequirements = field(default_factory=SizeRequirements)
    tags: list[str] = field(default_factory=lambda: ["tiny"])
    architecture: Any = field(default_factory=lambda: SimpleNamespace(id="Fake", name="Fake Net"))

    def __call__(self, image):
        assert image.shape[:2] == (1, self.input_channels)  # it takes single pictures
        needs = self.size_requirements
        for side in image.shape[2:]:
            assert side % needs.multiple_of == 0
            assert side >= needs.minimum
        seen.append(tuple(image.shape))
        return self.model(image).clamp(0, 1)


class MaskedImageModelDescriptor:
    purpose = "Inpainting"


class ConvUp(nn.Module):
    """A convolution, and each pixel repeated."""

    def __init__(self, weight, scale):
        super().__init__()
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
        self.conv.weight = nn.Parameter(weight)
        self.scale = scale

    def forward(self, x):
        x = self.conv(x)
        return x.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


seen: list[tuple[int, ...]] = []
changes: dict[str, Any] = {}


class ModelLoader:
    def load_state_dict_from_file(self, path):
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, weights_only=True)["params_ema"]

    def load_from_file(self, path):
        state = self.load_state_dict_from_file(path)
        if "mask" in state:
            return MaskedImageModelDescriptor()
        if "conv.weight" not in state:
            raise UnsupportedModelError
        weight = state["conv.weight"]
        scale = int(state["scale"])
        given = {
            "scale": scale,
            "purpose": "SR" if scale > 1 else "Restoration",
            "input_channels": weight.shape[1],
            "output_channels": weight.shape[0],
            **changes,
        }
        return ImageModelDescriptor(ConvUp(weight, scale), **given)
