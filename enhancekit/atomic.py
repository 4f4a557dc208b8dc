"""Write files that appear complete or not at all."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing"]

_ASKING = threading.Lock()


def _mask() -> int:
    """Return the process's umask, which can only be asked for by setting it."""
    with _ASKING:
        mask = os.umask(0)
        os.umask(mask)
    return mask


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place when the block ends well.

    Parameters
    ----------
    path : Path
        The file to make or replace; its folder exists.

    Raises
    ------
    OSError
        If it cannot be written; what stood there before is untouched.

    Examples
    --------
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "note") as file:
    ...     _ = file.write(b"whole")
    >>> [p.name for p in folder.iterdir()], (folder / "note").read_bytes()
    (['note'], b'whole')
    """
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".enhancekit-")
    temporary = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp gives a private file; this gives it what any new file would have had
        temporary.chmod(0o666 & ~_mask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
