"""Small questions about plain values: as strict JSON, as one line, a number or not."""

from __future__ import annotations

import json
import math
from numbers import Real
from typing import Any

__all__ = ["first_line", "is_number", "to_json"]


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


def first_line(error: BaseException) -> str:
    r"""Return the first line of what an exception says, or its kind if it says nothing.

    Examples
    --------
    >>> first_line(ValueError("no\nway")), first_line(MemoryError())
    ('no', 'MemoryError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def is_number(value: object) -> bool:
    """Tell whether a value is a real number, which true and false are not.

    Examples
    --------
    >>> is_number(2), is_number(True), is_number("2")
    (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)  # numpy's too
