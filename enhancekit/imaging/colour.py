"""Colour profiles: to sRGB, in which enhancers compute, and back, through LittleCMS."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from enhancekit.errors import ImageError, ImageWarning
from enhancekit.imaging.deep import codecs
from enhancekit.imaging.shaper import Shaper, shaper_of

__all__ = ["Profile", "from_cmyk", "name_of", "profile_of"]

_RELATIVE = 1
_EXACT, _BLACK_POINT = 0x0100, 0x2000
"""LittleCMS's flags: without the first it is up to 8% off in 16 bits."""
_SAME = 0.01
"""Profiles that differ less from sRGB than this, some two of 255 steps, are taken for it."""
_STRIP = 2**18
"""Values of a strip, about."""
_UNNAMED = "the picture"
_SPACES = {b"RGB ": "rgb", b"GRAY": "gray"}


class Profile:
    """An ICC profile of RGB or grey that is not sRGB.

    Attributes
    ----------
    space : str
        ``rgb`` or ``gray``.
    """

    def __init__(self, icc: bytes, space: str) -> None:
        self.icc = icc
        self.space = space
        self._shaper = shaper_of(icc) if space == "rgb" else None

    def to_srgb(self, pixels: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Convert (H, W, 3), or (H, W) for grey, in [0, 1] to sRGB (H, W, 3), limited to [0, 1]."""
        shaper = self._shaper
        if shaper is not None:
            return _by_strips(lambda rows: shaper.convert(rows, _srgb_shaper()), pixels)
        return _converted(pixels, (self.icc, self.space), (_srgb(), "rgb"))

    def from_srgb(self, pixels: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Convert sRGB (H, W, 3) back to (H, W, 3), or (H, W) for grey, limited to [0, 1]."""
        shaper = self._shaper
        if shaper is not None:
            return _by_strips(lambda rows: _srgb_shaper().convert(rows, shaper), pixels)
        return _converted(pixels, (_srgb(), "rgb"), (self.icc, self.space))


@lru_cache(maxsize=1)
def _srgb() -> bytes:
    return bytes(codecs("conversion of colours").cms_profile("srgb"))


@lru_cache(maxsize=1)
def _srgb_shaper() -> Shaper:
    found = shaper_of(_srgb())
    if found is None:
        raise ImageError("internal: LittleCMS's own sRGB profile is not of curves and a matrix")
    return found


def _converted(
    pixels: NDArray[np.floating[Any]], source: tuple[bytes, str], target: tuple[bytes, str]
) -> NDArray[np.float32]:
    """Convert in 16 bits by LittleCMS, which does what `Shaper` doesn't, six times slower."""
    transform = codecs("conversion of colours").cms_transform

    def convert(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        whole = np.round(np.clip(rows, 0, 1) * np.float32(65535)).astype(np.uint16)
        done = transform(
            np.ascontiguousarray(whole),
            source[0],
            target[0],
            colorspace=source[1],
            outcolorspace=target[1],
            intent=_RELATIVE,
            flags=_EXACT,
        )
        return np.asarray(done, np.float32) / np.float32(65535)

    return _by_strips(convert, pixels)


def _by_strips(
    convert: Callable[[NDArray[np.floating[Any]]], NDArray[np.float32]],
    pixels: NDArray[np.floating[Any]],
) -> NDArray[np.float32]:
    """Convert strips of rows side by side, each small enough for a processor's cache."""
    count = max(4 * (os.cpu_count() or 1), pixels.size // _STRIP)
    strips = np.array_split(pixels, min(len(pixels), count))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(convert, strips)))


def profile_of(icc: bytes | None, channels: int, where: str = _UNNAMED) -> Profile | None:
    """Return the profile to convert through, or ``None`` where pixels are sRGB as they are.

    Parameters
    ----------
    icc : bytes or None
        As found in a file.
    channels : int
        Colour channels of the picture: 1 or 3. Grey pixels under an RGB profile are taken as equal
        channels of it.
    where : str
        What the picture is called in the warning about a profile that cannot be used.

    Examples
    --------
    >>> profile_of(None, 3) is None, profile_of(_srgb(), 3) is None
    (True, True)
    """
    if not icc:
        return None
    profile, problem = _examined(icc, channels)
    if problem:
        warnings.warn(
            f"{where}: the colour profile {problem}: it stays with the picture, whose pixels are "
            "enhanced as if sRGB",
            ImageWarning,
            stacklevel=2,
        )
    return profile


def name_of(picture: Any) -> str:
    """Return what a picture is called: its file, where that is known.

    Examples
    --------
    >>> name_of(Image.new("L", (1, 1)))
    'the picture'
    """
    return str(getattr(picture, "filename", "") or _UNNAMED)


@lru_cache(maxsize=16)
def _examined(icc: bytes, channels: int) -> tuple[Profile | None, str]:
    """Return the profile, if it is to be converted through, and what is wrong with it."""
    if icc[36:40] != b"acsp":
        return None, "is damaged"
    space = _SPACES.get(icc[16:20])
    if space is None or (space == "gray" and channels == 3):
        named = icc[16:20].decode("latin-1").strip()
        return None, f"is for {named if named.isprintable() else ascii(named)} pixels"
    profile = Profile(icc, space)
    try:
        return (None if _like_srgb(profile) else profile), ""
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 LittleCMS tells its own errors by RuntimeError
        return None, f"cannot be used ({error})"


def _like_srgb(profile: Profile) -> bool:
    steps = np.linspace(0, 1, 6, dtype=np.float32)
    if profile.space == "gray":
        probe, wanted = steps[None], np.repeat(steps[None, :, None], 3, axis=2)
    else:
        probe = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        wanted = probe
    return float(np.abs(profile.to_srgb(probe) - wanted).max()) < _SAME


def from_cmyk(picture: Image.Image) -> Image.Image:
    """Convert CMYK to sRGB through the picture's own profile.

    Without a profile, or with one that cannot be used, Pillow's plain formula is taken, with a
    warning, since then nothing tells what the inks look like.
    """
    icc = picture.info.get("icc_profile")
    problem = "has no profile"
    converted = None
    if icc:
        try:
            rgb = codecs("CMYK").cms_transform(
                np.asarray(picture),
                icc,
                _srgb(),
                colorspace="cmyk",
                outcolorspace="rgb",
                intent=_RELATIVE,
                flags=_BLACK_POINT,
            )
            converted = Image.fromarray(rgb)
        except ImageError:
            raise
        except Exception as error:  # noqa: BLE001 LittleCMS tells its own errors by RuntimeError
            problem = f"has a profile that cannot be used ({error})"
    if converted is None:
        warnings.warn(
            f"{name_of(picture)}: the CMYK picture {problem}: it is converted by a plain formula, "
            "and its colours may differ from print",
            ImageWarning,
            stacklevel=2,
        )
        converted = picture.convert("RGB")
    converted.format = picture.format
    converted.info = {k: v for k, v in picture.info.items() if k != "icc_profile"}
    return converted
