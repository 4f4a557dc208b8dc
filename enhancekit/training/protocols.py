"""Evaluation protocols: what exactly is compared, under a name that stands beside every figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enhancekit.errors import OptionError

__all__ = ["PROTOCOLS", "Protocol", "find_protocol", "with_reference_mean"]

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is compared of two 8-bit RGB pictures."""

    name: str
    """What it is asked for by."""
    text: str
    """In words."""
    metrics: tuple[str, ...]
    """Computed unless others are asked for; qualified, so that no plugin changes what it means."""
    border: int = 0
    """Pixels left out at each side."""
    luma: bool = False
    """Compare Y of YCbCr (BT.601, studio range) alone."""

    def prepare(self, picture: Bytes) -> Floats:
        """Return what the metrics are given: float64, shape (H, W, 3) or (H, W, 1), in [0, 1].

        Raises
        ------
        OptionError
            If nothing is left inside the border.

        Examples
        --------
        >>> PROTOCOLS["y-border2"].prepare(np.full((6, 6, 3), 255, np.uint8))[0, 0].round(4)
        array([0.9216])
        """
        height, width = picture.shape[:2]
        if min(height, width) <= 2 * self.border:
            raise OptionError(
                f"protocol {self.name!r} leaves out {self.border} pixels at each side, so nothing "
                f"is left of {width}x{height}"
            )
        inner = picture[self.border : height - self.border, self.border : width - self.border]
        scaled = inner / np.float64(255)
        if not self.luma:
            return scaled
        # the studio-range luma of ITU-R BT.601, as the field's super-resolution tables use it
        luma: Floats = (scaled @ np.array([65.481, 128.553, 24.966]) + 16) / 255
        return luma[..., None]


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(
            "rgb",
            "RGB, whole pictures, outputs rounded to 8 bits",
            ("builtin:psnr", "builtin:ssim"),
        ),
        Protocol(
            "lol",
            "RGB, whole pictures, outputs rounded to 8 bits, with MAE and CIEDE2000",
            ("builtin:psnr", "builtin:ssim", "builtin:mae", "builtin:delta_e"),
        ),
        # as many pixels as times the picture is enlarged, by the custom of super-resolution
        *(
            Protocol(
                f"y-border{border}",
                f"Y of YCbCr (BT.601, studio range), {border} pixels left out at each side, 8-bit "
                "outputs",
                ("builtin:psnr", "builtin:ssim"),
                border=border,
                luma=True,
            )
            for border in (2, 3, 4)
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of a name.

    Raises
    ------
    OptionError
        If there is none; lists those there are.
    """
    if name not in PROTOCOLS:
        raise OptionError(f"no protocol is called {name!r}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def with_reference_mean(output: Bytes, reference: Bytes) -> Bytes:
    """Scale an output to the mean grey of its reference, as some papers do ("GT-mean").

    The correction uses what no user has. Its figures are labelled and never mixed with others.

    Examples
    --------
    >>> dark, light = np.full((2, 2, 3), 50, np.uint8), np.full((2, 2, 3), 100, np.uint8)
    >>> int(with_reference_mean(dark, light).max())
    100
    """
    weights = np.array([0.299, 0.587, 0.114])
    own, wanted = ((p @ weights).mean() for p in (output, reference))
    scaled = output * (wanted / max(own, 1e-9))
    corrected: Bytes = scaled.round().clip(0, 255).astype(np.uint8)
    return corrected
