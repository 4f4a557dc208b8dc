"""Perceptual loss: L1 distance of the features of a VGG19 trained on ImageNet."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import safetensors.torch
import torch
from torch import Tensor, nn

from enhancekit.builtin.losses import PictureLoss, Reduction
from enhancekit.errors import OptionError, WeightsError
from enhancekit.plain import first_line

__all__ = ["VGG19_URL", "VGGLoss", "vgg19_trunk"]

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
"""torchvision's weights; the digits are the start of the file's SHA-256, which is checked."""

_PLAN = (64, 64, 0, 128, 128, 0, *(256,) * 4, 0, *(512,) * 4, 0, *(512,) * 4, 0)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def vgg19_trunk() -> nn.Sequential:
    """Build the convolutions of VGG19 (Simonyan & Zisserman, ICLR 2015), the last pooling included.

    Examples
    --------
    >>> len(vgg19_trunk())
    37
    """
    layers: list[nn.Module] = []
    channels = 3
    for width in _PLAN:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers)


class VGGLoss(PictureLoss):
    """L1 distance of VGG19 features, averaged over the last ReLU before each pooling.

    Parameters
    ----------
    weights : path-like, optional
        torchvision's ``vgg19-dcbb9e9d.pth`` or the same tensors as safetensors; downloaded from
        `VGG19_URL` into torch's cache when not given.
    reduction : {"mean", "none"}
        Average over the batch, or one value a picture.

    Raises
    ------
    WeightsError
        If the weights cannot be read, downloaded, or are not VGG19's.

    References
    ----------
    Johnson et al., "Perceptual losses for real-time style transfer and super-resolution",
    ECCV 2016.
    """

    def __init__(
        self, weights: str | os.PathLike[str] | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        trunk = vgg19_trunk()
        state = _download() if weights is None else _read(Path(weights))
        prefix = "features."
        features = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        try:
            trunk.load_state_dict(features)
        except RuntimeError as error:
            raise WeightsError(
                f"{weights or VGG19_URL} does not hold VGG19's 'features.*' tensors: "
                + first_line(error)
            ) from None
        pools = [i for i, layer in enumerate(trunk) if isinstance(layer, nn.MaxPool2d)]
        starts = [0, *pools[:-1]]
        self.stages = nn.ModuleList(trunk[a:b] for a, b in zip(starts, pools, strict=True))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def per_picture(self, output: Tensor, reference: Tensor) -> Tensor:
        """Give one value a picture, shape (N,)."""
        if min(output.shape[2:]) < 16:
            raise OptionError(
                f"vgg needs pictures of at least 16x16, not {tuple(output.shape[2:])}"
            )
        x, y = ((t - self.mean) / self.std for t in (output, reference))
        total = x.new_zeros(len(x))
        for stage in self.stages:
            x, y = stage(x), stage(y)
            total = total + (x - y).abs().flatten(1).mean(1)
        return total / len(self.stages)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"VGG19 weights {path} do not exist") from None
    except Exception as error:  # unpickling raises whatever the bytes lead it to
        raise WeightsError(f"VGG19 weights {path} cannot be read: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
        raise WeightsError(f"VGG19 weights {path} hold no tensors by name")
    return state


def _download() -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            VGG19_URL, map_location="cpu", check_hash=True, progress=False, weights_only=True
        )
    except (OSError, URLError, RuntimeError) as error:
        raise WeightsError(
            f"VGG19 weights cannot be downloaded from {VGG19_URL} ({error}); fetch the file "
            "elsewhere and give its path, e.g. losses.create('vgg', weights='vgg19.pth')"
        ) from error
    return state
