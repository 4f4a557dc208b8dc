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
from enhancekit.imaging.colour import Profile, name_of, profile_of
from enhancekit.imaging.metadata import kept, upright
from enhancekit.imaging.modes import check_range, plain
from enhancekit.imaging.pictures import DeepPicture, Photograph
from enhancekit.imaging.reading import decode

__all__ = ["Opened", "open_image"]

_RANGES = {torch.uint8: 255.0, torch.uint16: 65535.0}
_NUMPY_DTYPES = {
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.uint16): torch.uint16,
    np.dtype(np.float16): torch.float16,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.float64): torch.float64,
}
_PIL_DTYPES = {"I;16": torch.uint16, "F": torch.float32}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_CPU = torch.device("cpu")
_SUPPORTED = (
    "supported are a path, bytes, an open file, a PIL image, a numpy array (HxW, HxWx1, HxWx3 or "
    "HxWx4; uint8, uint16 or float) and a torch tensor (CHW or NCHW with 1, 3 or 4 channels; "
    "uint8, uint16 or float)"
)

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A picture as the pipeline sees it, read in parts, and the way back."""

    size: tuple[int, int, int, int]
    """Number of pictures, channels, height and width, as the caller has them."""
    dtype: torch.dtype
    """Of the caller's channels."""
    device: torch.device
    """Where they lie."""
    part: Callable[[slice, slice], Tensor]
    """Gives rows and columns of the caller's channels: (N, C, h, w), not to be written to."""
    finish: Callable[[Tensor], Any]
    """Makes the caller's kind of channels last in memory, (N, C, height, width)."""
    copy: Callable[[], Any]
    """Gives the picture as it came, in an object of its own."""
    profile: Profile | None = None
    """What colours are converted through."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """What `read` gives: number of pictures, 3, height and width."""
        return (self.size[0], 3, *self.size[2:])

    @property
    def colours(self) -> int:
        """Channels that are no alpha: 1 or 3."""
        return 1 if self.size[1] < 3 else 3

    def read(self, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """Give a part as sRGB, shape (N, 3, h, w), float32, nominally in [0, 1]."""
        return self.srgb(self.floats(self.part(rows, columns)))

    def canvas(self, scale: int = 1) -> Canvas:
        """Start a picture of the caller's kind, each side `scale` times as long."""
        return Canvas(self, scale)

    def floats(self, channels: Tensor) -> Tensor:
        """Scale colours to [0, 1], without their profile."""
        pixels = channels[:, : self.colours].to(torch.float32, copy=True)
        full = _RANGES.get(self.dtype)
        return pixels if full is None else pixels.div_(full)

    def srgb(self, pixels: Tensor) -> Tensor:
        """Make sRGB, (N, 3, h, w), of colours in [0, 1]."""
        if self.profile is None or self.profile.space == "rgb":
            pixels = pixels if pixels.shape[1] == 3 else pixels.repeat(1, 3, 1, 1)
        return pixels if self.profile is None else _to_srgb(pixels, self.profile)


class Canvas:
    """The result of a picture, written in parts.

    Pixels of a profile are converted back by what changed in them, so that what isn't changed
    stays to the bit, and colours that sRGB lacks aren't lost. 64-bit floats, of which enhancers
    know 32, get their change as well.

    Parameters
    ----------
    opened : Opened
        What it is the result of.
    scale : int
        How many times its height and width.
    """

    def __init__(self, opened: Opened, scale: int) -> None:
        count, channels, height, width = opened.size
        self._opened, self._scale = opened, scale
        place = torch.empty(
            (count, height * scale, width * scale, channels),
            dtype=opened.dtype,
            device=opened.device,
        )
        self._planes = place.permute(0, 3, 1, 2)

    def write(self, rows: slice, columns: slice, enhanced: Tensor) -> None:
        """Put an enhanced part, sRGB of shape (N, 3, h, w), in its place."""
        opened = self._opened
        colours, profile, full = opened.colours, opened.profile, _RANGES.get(opened.dtype)
        target = self._planes[:, :, rows, columns]
        has_alpha = opened.size[1] > colours
        only_change = profile is not None or opened.dtype == torch.float64
        if self._scale > 1 or not (has_alpha or only_change):
            if profile is not None:
                enhanced = _from_srgb(enhanced, profile)
            target[:, :colours] = _quantised(_channels(enhanced, colours), full)
            if has_alpha:
                target[:, colours:] = self._enlarged_alpha(rows, columns)
            return
        before = opened.part(rows, columns)
        if profile is not None:
            floats = opened.floats(before)
            change = _from_srgb(enhanced, profile) - _from_srgb(opened.srgb(floats), profile)
            enhanced = floats + change
        done = _channels(enhanced, colours)
        if opened.dtype == torch.float64:
            known = _channels(opened.floats(before).expand(-1, 3, -1, -1), colours)
            target[:, :colours] = before[:, :colours] + (done.double() - known.double())
        else:
            target[:, :colours] = _quantised(done, full)
        target[:, colours:] = before[:, colours:]

    def _enlarged_alpha(self, rows: slice, columns: slice) -> Tensor:
        """Give the alpha of a part of the result."""
        needed, own = [], []
        for wanted, length in zip((rows, columns), self._opened.size[2:], strict=True):
            # interpolation looks at one pixel beyond
            first = max(0, wanted.start // self._scale - 1)
            needed.append(slice(first, min(length, -(-wanted.stop // self._scale) + 1)))
            own.append(slice(*(at - first * self._scale for at in (wanted.start, wanted.stop))))
        alpha = self._opened.part(*needed)[:, self._opened.colours :]
        return _enlarged(alpha, self._scale)[:, :, own[0], own[1]]

    def close(self) -> Any:
        """Give the picture in the caller's kind."""
        return self._opened.finish(self._planes)


def open_image(image: Any) -> Opened:
    """Take a picture of any supported kind apart.

    Parameters
    ----------
    image : path-like, bytes, file, PIL.Image.Image, DeepPicture, numpy.ndarray or torch.Tensor
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
    >>> opened.read().shape
    torch.Size([1, 3, 2, 3])
    >>> canvas = opened.canvas()
    >>> canvas.write(slice(0, 2), slice(0, 3), opened.read() + 0.2)
    >>> canvas.close()
    array([[102, 102, 102],
           [102, 102, 102]], dtype=uint8)
    """
    if callable(getattr(image, "read", None)) and not isinstance(image, os.PathLike):
        image = _contents(image)
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


def _contents(file: Any) -> bytes:
    """Read an open file, from where it stands."""
    found = file.read()
    if not isinstance(found, bytes):
        raise ImageError(f"{file!r} gives {type(found).__name__}; open the file with mode 'rb'")
    return found


def _upright(image: Image.Image) -> Image.Image:
    try:
        image.load()
        return upright(image, "the PIL image")
    except Exception as error:  # a lazily opened file is only decoded here
        raise ImageError(
            f"the PIL image cannot be decoded: {type(error).__name__}: {error}"
        ) from error


def _open_pil(image: Image.Image) -> Opened:
    where = name_of(image)
    image = plain(image)
    mode, kind, info = image.mode, image.format, kept(image.info)
    icc = None if mode == "F" else info.get("icc_profile")
    if 0 in image.size:
        raise ImageError(f"{where} of {image.width}x{image.height} has no pixels")
    if mode == "F":
        pixels = np.asarray(image)
        check_range(float(pixels.min()), float(pixels.max()))

    def part(rows: slice, columns: slice) -> Tensor:
        top, bottom, _ = rows.indices(image.height)
        left, right, _ = columns.indices(image.width)
        whole = (left, top, right, bottom) == (0, 0, *image.size)
        cut = image if whole else image.crop((left, top, right, bottom))
        return _planes(np.asarray(cut))

    def wrap(pixels: Pixels) -> Image.Image:
        result = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        if result.mode != mode:
            raise ImageError(f"internal: mode {result.mode} came out for {mode}")
        return marked(result)

    def marked(result: Image.Image) -> Image.Image:
        result.info.clear()
        result.info.update(info)
        result.format = kind
        return Photograph.of(result)

    return Opened(
        size=(1, len(image.getbands()), image.height, image.width),
        dtype=_PIL_DTYPES.get(mode, torch.uint8),
        device=_CPU,
        part=part,
        finish=lambda planes: wrap(_pixels(planes)),
        copy=lambda: marked(image.copy()),
        profile=profile_of(icc, 3 if mode.startswith("RGB") else 1, where),
    )


def _open_deep(picture: DeepPicture) -> Opened:
    channels = picture.pixels.shape[2]
    icc = picture.info.get("icc_profile")
    profile = profile_of(icc, 3 if channels > 2 else 1, name_of(picture))
    opened = _open_array(picture.pixels, with_alpha=channels == 2)

    def wrap(pixels: Pixels) -> DeepPicture:
        return replace(picture, pixels=pixels, info=dict(picture.info))

    return replace(
        opened,
        finish=lambda planes: wrap(opened.finish(planes)),
        copy=lambda: wrap(opened.copy()),
        profile=profile,
    )


def _open_array(array: Pixels, *, with_alpha: bool = False) -> Opened:
    """Open an array; ``with_alpha``: two channels are grey and alpha, as PIL has them."""
    shape = array.shape
    channels = (2,) if with_alpha else (1, 3, 4)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in channels):
        hint = "; channels come last in numpy" if len(shape) == 3 and shape[0] in (1, 3, 4) else ""
        raise ImageError(f"a numpy array of shape {shape} is no picture{hint}; {_SUPPORTED}")
    if 0 in shape:
        raise ImageError(f"a numpy array of shape {shape} has no pixels")
    if isinstance(array, np.ma.MaskedArray):
        raise ImageError("a masked array is no picture; fill it first: array.filled(0)")
    dtype = _NUMPY_DTYPES.get(array.dtype.newbyteorder("="))
    if dtype is None:
        raise ImageError(f"a numpy array of {array.dtype} is not supported; {_SUPPORTED}")
    if dtype.is_floating_point:
        check_range(float(array.min()), float(array.max()))

    def finish(planes: Tensor) -> Pixels:
        done = _pixels(planes)
        return done.reshape(*done.shape[:2], *shape[2:]).astype(array.dtype, copy=False)

    return Opened(
        size=(1, shape[2] if len(shape) == 3 else 1, *shape[:2]),
        dtype=dtype,
        device=_CPU,
        part=lambda rows, columns: _planes(array[rows, columns]),
        finish=finish,
        copy=array.copy,
    )


def _open_tensor(given: Tensor) -> Opened:
    shape = tuple(given.shape)
    if len(shape) not in (3, 4) or shape[-3] not in (1, 3, 4):
        hint = "; channels come first in torch" if shape[-1:] in ((1,), (3,), (4,)) else ""
        raise ImageError(f"a tensor of shape {shape} is no picture{hint}; {_SUPPORTED}")
    if 0 in shape:
        raise ImageError(f"a tensor of shape {shape} has no pixels")
    if given.dtype not in _RANGES and given.dtype not in _FLOATS:
        raise ImageError(f"a tensor of {given.dtype} is not supported; {_SUPPORTED}")
    if given.is_meta:
        raise ImageError("a tensor on the device meta has no pixels")
    if given.layout != torch.strided:
        raise ImageError(f"a tensor of layout {given.layout} is not supported; use to_dense()")
    planes = given.detach()
    planes = planes if planes.ndim == 4 else planes[None]
    if given.is_floating_point():
        check_range(*(float(end) for end in torch.aminmax(planes)))

    def finish(done: Tensor) -> Tensor:
        return done.reshape(*shape[:-2], *done.shape[2:]).contiguous()

    return Opened(
        size=(planes.shape[0], planes.shape[1], planes.shape[2], planes.shape[3]),
        dtype=given.dtype,
        device=given.device,
        part=lambda rows, columns: planes[:, :, rows, columns],
        finish=finish,
        copy=given.detach().clone,
    )


def _planes(pixels: Pixels) -> Tensor:
    """Make (h, w) or (h, w, C) of any memory layout a tensor of its own, (1, C, h, w)."""
    native = pixels.dtype.newbyteorder("=")
    known = torch.from_numpy(np.array(pixels, dtype=native, order="C"))
    return known.reshape(*pixels.shape[:2], -1).permute(2, 0, 1)[None]


def _pixels(planes: Tensor) -> Pixels:
    """Make (1, C, h, w), channels last in memory, an array (h, w, C) of the same memory."""
    found: Pixels = planes[0].permute(1, 2, 0).numpy()
    return found


def _to_srgb(pixels: Tensor, profile: Profile) -> Tensor:
    planes = pixels[0].permute(1, 2, 0).numpy()
    found = profile.to_srgb(planes[..., 0] if profile.space == "gray" else planes)
    return torch.from_numpy(found).permute(2, 0, 1)[None]


def _from_srgb(pixels: Tensor, profile: Profile) -> Tensor:
    found = torch.from_numpy(profile.from_srgb(pixels[0].permute(1, 2, 0).float().cpu().numpy()))
    planes = found[..., None].expand(-1, -1, 3) if profile.space == "gray" else found
    return planes.permute(2, 0, 1)[None]


def _channels(enhanced: Tensor, count: int) -> Tensor:
    if count == 3:
        return enhanced
    red, green, blue = enhanced.chunk(3, dim=1)
    # BT.601 luma, written so that equal channels give exactly their value
    return red + 0.587 * (green - red) + 0.114 * (blue - red)


def _enlarged(alpha: Tensor, scale: int) -> Tensor:
    """Enlarge alpha, in the caller's range, without leaving the range."""
    # in 64 bits, so that 32 are the same whichever part it is that is enlarged
    done = F.interpolate(alpha.double(), scale_factor=float(scale), mode="bilinear")
    return done if alpha.is_floating_point() else done.round_()


def _quantised(x: Tensor, full: float | None) -> Tensor:
    """Round to whole steps where the caller's pixels are whole numbers."""
    return x if full is None else (x.clamp(0, 1) * full).round_()
