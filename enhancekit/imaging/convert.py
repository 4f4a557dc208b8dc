"""Any kind of picture to a float tensor, and an enhanced tensor back to that kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from enhancekit.errors import ImageError
from enhancekit.imaging.colour import Profile, profile_of
from enhancekit.imaging.files import DeepPicture, decode
from enhancekit.imaging.metadata import kept, upright
from enhancekit.imaging.modes import check_range, plain

__all__ = ["Opened", "open_image"]

_RANGES = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}
_TORCH_RANGES = {torch.uint8: 255.0, torch.uint16: 65535.0}
_SUPPORTED = (
    "supported are a path, bytes, a PIL image, a numpy array (HxW, HxWx1, HxWx3 or HxWx4; uint8, "
    "uint16 or float) and a torch tensor (CHW or NCHW with 1, 3 or 4 channels; uint8, uint16 or "
    "float)"
)

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture as the pipeline sees it, and the way back."""

    tensor: Tensor
    """RGB, shape (N, 3, H, W), float32, nominally in [0, 1]."""
    close: Callable[[Tensor], Any]
    """Turns an enhanced tensor (N, 3, height, width) into the caller's kind, dtype and layout;
    alpha is enlarged if it is larger than what was opened."""
    copy: Callable[[], Any]
    """Gives the picture as it came, in an object of its own."""


def open_image(image: Any) -> Opened:
    """Take a picture of any supported kind apart.

    Parameters
    ----------
    image : path-like, bytes, PIL.Image.Image, DeepPicture, numpy.ndarray or torch.Tensor
        Floats are nominally in [0, 1].

    Returns
    -------
    Opened
        The pixels, and how to give back the same kind: alpha unchanged, grey as grey.

    Raises
    ------
    ImageError
        If the kind, shape, dtype or range is not supported, or a file cannot be read.

    Examples
    --------
    >>> opened = open_image(np.full((2, 3), 51, np.uint8))
    >>> opened.tensor.shape
    torch.Size([1, 3, 2, 3])
    >>> opened.close(opened.tensor + 0.2)
    array([[102, 102, 102],
           [102, 102, 102]], dtype=uint8)
    """
    if isinstance(image, (str, os.PathLike, bytes)):
        image = decode(image)
    elif isinstance(image, Image.Image):
        image = _upright(image)
    if isinstance(image, Image.Image):
        return _open_pil(image)
    if isinstance(image, DeepPicture):
        return _open_deep(image)
    if isinstance(image, np.ndarray):
        return _open_array(image)
    if isinstance(image, Tensor):
        return _open_tensor(image)
    raise ImageError(f"a {type(image).__name__} is no picture; {_SUPPORTED}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        image.load()
        return upright(image, "the PIL image")
    except Exception as error:  # a lazily opened file is only decoded here
        raise ImageError(
            f"the PIL image cannot be decoded: {type(error).__name__}: {error}"
        ) from error


def _open_pil(image: Image.Image) -> Opened:
    image = plain(image)
    mode, kind, info = image.mode, image.format, kept(image.info)
    icc = None if mode == "F" else info.get("icc_profile")
    profile = profile_of(icc, 3 if mode.startswith("RGB") else 1)
    opened = _open_array(np.array(image), with_alpha=mode == "LA", profile=profile)

    def wrap(pixels: Pixels) -> Image.Image:
        result = Image.fromarray(pixels)
        if result.mode != mode:
            raise ImageError(f"internal: mode {result.mode} came out for {mode}")
        result.info.update(info)
        result.format = kind
        return result

    return Opened(opened.tensor, lambda t: wrap(opened.close(t)), lambda: wrap(opened.copy()))


def _open_deep(picture: DeepPicture) -> Opened:
    channels = picture.pixels.shape[2]
    profile = profile_of(picture.info.get("icc_profile"), 3 if channels > 2 else 1)
    opened = _open_array(picture.pixels, with_alpha=channels == 2, profile=profile)

    def wrap(pixels: Pixels) -> DeepPicture:
        return replace(picture, pixels=pixels, info=dict(picture.info))

    return Opened(opened.tensor, lambda t: wrap(opened.close(t)), lambda: wrap(opened.copy()))


def _open_array(
    array: Pixels, *, with_alpha: bool = False, profile: Profile | None = None
) -> Opened:
    """Open an array; ``with_alpha``: two channels are grey and alpha, as PIL has them.

    The pixels of a `profile` are converted to sRGB, and what enhancing changes in them back, so
    that what isn't changed stays to the bit, and colours that sRGB lacks aren't lost.
    """
    dtype, shape = array.dtype, array.shape
    channels = (2,) if with_alpha else (1, 3, 4)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in channels):
        hint = "; channels come last in numpy" if len(shape) == 3 and shape[0] in (1, 3, 4) else ""
        raise ImageError(f"a numpy array of shape {shape} is no picture{hint}; {_SUPPORTED}")
    if 0 in shape:
        raise ImageError(f"a numpy array of shape {shape} has no pixels")
    native = dtype.newbyteorder("=")
    if native not in _RANGES and dtype.kind != "f":
        raise ImageError(f"a numpy array of {dtype} is not supported; {_SUPPORTED}")
    kept = array.copy()
    planes = kept.reshape(*shape[:2], -1)
    alpha = planes[..., -1:] if planes.shape[2] in (2, 4) else None
    colour = planes if alpha is None else planes[..., :-1]
    full = _RANGES.get(native)
    with np.errstate(over="ignore"):  # what does not fit 32 bits is refused as infinite below
        pixels = torch.from_numpy(colour.astype(np.float32)).permute(2, 0, 1)[None]
    plain_tensor = _rgb(pixels, full)
    tensor = plain_tensor if profile is None else _to_srgb(plain_tensor, profile)

    def close(enhanced: Tensor) -> Pixels:
        same_size = enhanced.shape[2:] == tensor.shape[2:]
        if profile is not None:
            enhanced = _from_srgb(enhanced, profile)
            if same_size:
                enhanced = plain_tensor + (enhanced - _from_srgb(tensor, profile))
        done = _quantised(_channels(enhanced, colour.shape[2]), full)
        if dtype.kind == "f" and dtype.itemsize > 4 and same_size:  # 32 bits know only the change
            done = done - _channels(tensor, colour.shape[2]).to(done)
            back: Pixels = colour + done[0].permute(1, 2, 0).cpu().numpy()
        else:
            back = done[0].permute(1, 2, 0).contiguous().cpu().numpy()
        if alpha is not None:
            plane: Pixels = alpha
            if not same_size:
                small = torch.from_numpy(alpha.astype(np.float32)).permute(2, 0, 1)[None]
                plane = _alpha(small, back.shape[:2], full)[0].permute(1, 2, 0).numpy()
            back = np.concatenate((back, plane), axis=2)
        return back.astype(dtype).reshape(*back.shape[:2], *shape[2:])

    return Opened(tensor, close, kept.copy)


def _open_tensor(given: Tensor) -> Opened:
    shape = tuple(given.shape)
    if len(shape) not in (3, 4) or shape[-3] not in (1, 3, 4):
        hint = "; channels come first in torch" if shape[-1:] in ((1,), (3,), (4,)) else ""
        raise ImageError(f"a tensor of shape {shape} is no picture{hint}; {_SUPPORTED}")
    if 0 in shape:
        raise ImageError(f"a tensor of shape {shape} has no pixels")
    if given.dtype not in _TORCH_RANGES and not given.is_floating_point():
        raise ImageError(f"a tensor of {given.dtype} is not supported; {_SUPPORTED}")
    kept = given.detach().clone()
    planes = kept if kept.ndim == 4 else kept[None]
    colour, alpha = (planes[:, :3], planes[:, 3:]) if planes.shape[1] == 4 else (planes, None)
    full = _TORCH_RANGES.get(given.dtype)
    tensor = _rgb(colour.to(torch.float32), full)

    def close(enhanced: Tensor) -> Tensor:
        done = _quantised(_channels(enhanced, colour.shape[1]), full)
        same_size = done.shape[2:] == tensor.shape[2:]
        if given.dtype == torch.float64 and same_size:
            before = _channels(tensor, colour.shape[1]).to(done)
            back = colour + (done - before).to(device=given.device, dtype=given.dtype)
        else:
            back = done.to(device=given.device, dtype=given.dtype)
        if alpha is not None:
            plane = alpha if same_size else _alpha(alpha.float(), tuple(back.shape[2:]), full)
            back = torch.cat((back, plane.to(back)), dim=1)
        return back.reshape(*shape[:-2], *back.shape[2:]).contiguous()

    return Opened(tensor, close, kept.clone)


def _to_srgb(pixels: Tensor, profile: Profile) -> Tensor:
    planes = pixels[0].permute(1, 2, 0).numpy()
    found = profile.to_srgb(planes[..., 0] if profile.space == "gray" else planes)
    return torch.from_numpy(found).permute(2, 0, 1)[None].contiguous()


def _from_srgb(pixels: Tensor, profile: Profile) -> Tensor:
    found = torch.from_numpy(profile.from_srgb(pixels[0].permute(1, 2, 0).float().cpu().numpy()))
    planes = found[..., None].expand(-1, -1, 3) if profile.space == "gray" else found
    return planes.permute(2, 0, 1)[None]


def _rgb(pixels: Tensor, full: float | None) -> Tensor:
    """Scale to [0, 1], check floats, and repeat grey to three channels."""
    if full is None:
        check_range(float(pixels.amin()), float(pixels.amax()))
    else:
        pixels = pixels / full
    return pixels.expand(-1, 3, -1, -1).contiguous()


def _channels(enhanced: Tensor, count: int) -> Tensor:
    if count == 3:
        return enhanced
    red, green, blue = enhanced.chunk(3, dim=1)
    # BT.601 luma, written so that equal channels give exactly their value
    return red + 0.587 * (green - red) + 0.114 * (blue - red)


def _alpha(plane: Tensor, size: tuple[int, ...], full: float | None) -> Tensor:
    """Enlarge alpha, in the caller's range, without leaving the range."""
    enlarged = F.interpolate(plane, size=size, mode="bilinear")
    return enlarged if full is None else enlarged.round()


def _quantised(x: Tensor, full: float | None) -> Tensor:
    """Round to whole steps where the caller's pixels are whole numbers."""
    return x if full is None else (x.clamp(0, 1) * full).round()
