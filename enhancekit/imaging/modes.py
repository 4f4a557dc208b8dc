"""PIL's many modes made a few: grey or RGB, with or without alpha."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from enhancekit.errors import ImageError
from enhancekit.imaging.colour import from_cmyk

__all__ = ["check_range", "plain", "plain_mode"]

_ADVICE = {
    "I": "its range is not known; give a numpy array of uint16",
    "I;16": "remove the transparent colour, or give a numpy array of uint16 with alpha",
    "La": "convert it first: image.convert('LA')",
    "RGBa": "convert it first: image.convert('RGBA')",
}
_KEPT = ("L", "LA", "RGB", "RGBA", "F")


def plain_mode(image: Image.Image) -> str:
    """Return the mode that `plain` gives a picture.

    Raises
    ------
    ImageError
        If there is none without loss.

    Examples
    --------
    >>> plain_mode(Image.new("P", (1, 1))), plain_mode(Image.new("CMYK", (1, 1)))
    ('RGB', 'RGB')
    """
    mode, keyed = image.mode, "transparency" in image.info
    if mode in ("P", "PA"):
        return "RGBA" if image.has_transparency_data else "RGB"
    if mode in ("1", "L", "RGB") and keyed:
        # the key is a pixel value, which enhancement changes, so it becomes alpha
        return "RGBA" if mode == "RGB" else "LA"
    if mode == "1":
        return "L"
    if mode == "CMYK":
        return "RGB"
    if mode.startswith("I;16") and not keyed:
        return "I;16"
    if mode in _KEPT:
        return mode
    raise ImageError(
        f"PIL mode {mode}{' with a transparent colour' if keyed else ''} is not supported; "
        + _ADVICE.get(mode, "convert it first: image.convert('RGB')")
    )


def plain(image: Image.Image) -> Image.Image:
    """Turn palettes, bilevel, CMYK and colour-key transparency into plain channels.

    Raises
    ------
    ImageError
        If the mode is any other than those and grey, RGB, alpha, 16-bit grey or float grey.

    Examples
    --------
    >>> plain(Image.new("1", (1, 1), 1)).getpixel((0, 0))
    255
    """
    mode = plain_mode(image)
    if mode == "I;16" and image.mode != mode:
        done = Image.fromarray(np.asarray(image).astype(np.uint16))
        done.info = dict(image.info)
    elif image.mode == "CMYK":
        done = from_cmyk(image)
    elif image.mode == "1" and mode == "LA":
        done = image.convert("L")
        done.info["transparency"] = 255 if image.info["transparency"] else 0
        done = done.convert("LA")
    else:
        done = image if image.mode == mode else image.convert(mode)
    done.format = image.format
    return done


def check_range(low: float, high: float) -> None:
    """Refuse float pixels that are not nominally in [0, 1], by their least and greatest.

    Raises
    ------
    ImageError
        If either is NaN, infinite or far outside.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("the picture holds NaN or infinity; replace those values first")
    if low < -1 or high > 2:
        raise ImageError(
            f"float pixels are nominally in [0, 1], but these range from {low:g} to {high:g}; "
            "it looks like 0..255 or 0..65535, so divide by that, or pass uint8 or uint16"
        )
