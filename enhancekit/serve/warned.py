"""What enhancekit warns of while it works on a request, for whoever sent it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from enhancekit.errors import ImageWarning

__all__ = ["collected", "heard"]

_own = threading.local()


@contextmanager
def heard() -> Iterator[None]:
    """While this lasts, warnings of pictures go to the request whose thread gives them.

    The module ``warnings`` keeps its state for the whole process, so this is entered once.
    """
    with warnings.catch_warnings():
        # each time, and without a note of every text ever given, which would grow for ever
        warnings.simplefilter("always", ImageWarning)
        elsewhere = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            found = getattr(_own, "found", None)
            if found is None or not issubclass(category, ImageWarning):
                elsewhere(message, category, *where)
            else:
                found.append(str(message))

        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect what this thread warns of.

    Examples
    --------
    >>> with heard(), collected() as found:
    ...     warnings.warn("only the first frame is read", ImageWarning, stacklevel=1)
    >>> found
    ['only the first frame is read']
    """
    found: list[str] = []
    _own.found = found
    try:
        yield found
    finally:
        del _own.found
