"""Values as strict JSON: what the standard has no number for becomes text."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["to_json"]


def to_json(value: Any, indent: int | None = 2) -> str:
    r"""Write a value as JSON that every parser reads; without `indent`, on one line.

    Examples
    --------
    >>> to_json({"psnr": float("inf")})
    '{\n  "psnr": "inf"\n}'
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
