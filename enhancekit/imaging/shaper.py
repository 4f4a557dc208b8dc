"""Colour profiles of three curves and a matrix, as cameras and screens have them, computed fast."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Shaper", "shaper_of"]

_STEPS = 2**16
_ROOTS = 2**18
"""Entries of the tables back to encoded values, even in the root of the light: an entry is then
less than a 16-bit step even where a gamma curve begins."""
_LOOKUPS = {b"A2B", b"B2A", b"D2B", b"B2D"}
"""Beginnings of the tags that take the place of curves and matrix where there are any."""
_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}

Curve = NDArray[np.float64]


class Shaper:
    """Encoded RGB to light, and back.

    Parameters
    ----------
    curves : numpy.ndarray
        float64, shape (3, 65536): the light, in [0, 1], of each 16-bit value, rising.
    matrix : numpy.ndarray
        float64, shape (3, 3): from light to CIE XYZ under D50.
    """

    def __init__(self, curves: Curve, matrix: NDArray[np.float64]) -> None:
        self._light = curves.astype(np.float32)
        self._matrix = matrix
        roots = np.linspace(0, 1, _ROOTS + 1) ** 2
        values = np.linspace(0, 1, _STEPS)
        one = (curves == curves[0]).all()  # as most have it
        rows = [np.interp(roots, curve, values) for curve in (curves[:1] if one else curves)]
        self._encoded = np.broadcast_to(np.array(rows, np.float32), (3, len(roots)))

    def convert(self, pixels: NDArray[np.floating[Any]], target: Shaper) -> NDArray[np.float32]:
        """Convert (H, W, 3) in [0, 1], rounded to 16 bits, into another space, limited to [0, 1].

        Examples
        --------
        >>> power = np.linspace(0, 1, 65536) ** 2
        >>> one = Shaper(np.stack([power] * 3), np.eye(3))
        >>> two = Shaper(np.stack([power**2] * 3), np.eye(3))
        >>> one.convert(np.full((1, 1, 3), 0.25), two).round(3)
        array([[[0.5, 0.5, 0.5]]], dtype=float32)
        """
        height, width, _ = pixels.shape
        index = np.rint(np.clip(pixels, 0, 1) * np.float32(_STEPS - 1)).astype(np.uint16)
        light = np.stack([self._light[c][index[..., c].reshape(-1)] for c in range(3)])
        mixed = (np.linalg.inv(target._matrix) @ self._matrix).astype(np.float32) @ light
        np.clip(mixed, 0, 1, out=mixed)
        np.sqrt(mixed, out=mixed)
        mixed *= np.float32(_ROOTS)
        mixed += np.float32(0.5)
        places = mixed.astype(np.int32)
        done = np.empty((height * width, 3), np.float32)
        for c in range(3):
            done[:, c] = target._encoded[c][places[c]]
        return done.reshape(height, width, 3)


def shaper_of(icc: bytes) -> Shaper | None:
    """Return the curves and the matrix of an RGB profile, or ``None`` if it is of another kind.

    Examples
    --------
    >>> shaper_of(b"") is None
    True
    """
    try:
        tags = _tags(icc)
        if icc[16:24] != b"RGB XYZ " or {name[:3] for name in tags} & _LOOKUPS:
            return None
        with np.errstate(all="ignore"):  # what isn't finite is refused below
            curves = np.stack([_curve(tags[name + b"TRC"]) for name in (b"r", b"g", b"b")])
        columns = [_xyz(tags[name + b"XYZ"]) for name in (b"r", b"g", b"b")]
    except (KeyError, ValueError, struct.error):
        return None
    matrix = np.array(columns).T
    rising = np.isfinite(curves).all() and (np.diff(curves, axis=1) >= 0).all()
    ends = (np.abs(curves[:, 0]) < 0.01).all() and (np.abs(curves[:, -1] - 1) < 0.01).all()
    if not (rising and ends) or abs(np.linalg.det(matrix)) < 1e-4:
        return None
    return Shaper(np.clip(curves, 0, 1), matrix)


def _tags(icc: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", icc, 128)
    if count > 200:
        raise ValueError(count)
    found = {}
    for number in range(count):
        name, start, length = struct.unpack_from(">4sII", icc, 132 + 12 * number)
        found[name] = icc[start : start + length]
    return found


def _xyz(tag: bytes) -> list[float]:
    if tag[:4] != b"XYZ ":
        raise ValueError(tag[:4])
    return [value / 65536 for value in struct.unpack_from(">3i", tag, 8)]


def _curve(tag: bytes) -> Curve:
    """Return the light of each 16-bit value, after ICC.1:2022, 10.6 and 10.18."""
    x = np.linspace(0, 1, _STEPS)
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return x
        points = np.array(struct.unpack_from(f">{min(count, len(tag))}H", tag, 12), np.float64)
        if count == 1:
            return np.asarray(x ** (points[0] / 256))
        return np.interp(x, np.linspace(0, 1, count), points / 65535)
    if tag[:4] != b"para":
        raise ValueError(tag[:4])
    (kind,) = struct.unpack_from(">H", tag, 8)
    if kind not in _PARAMETERS:
        raise ValueError(kind)
    given = [v / 65536 for v in struct.unpack_from(f">{_PARAMETERS[kind]}i", tag, 12)]
    g, a, b, c, d, e, f = given + [0.0] * (7 - len(given))
    if kind == 0:
        return np.asarray(x**g)
    if kind in (1, 2):  # the third parameter of the second is added to both of its parts
        shift = c if kind == 2 else 0.0
        return np.asarray(np.maximum(a * x + b, 0) ** g + shift)
    return np.asarray(np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f))
