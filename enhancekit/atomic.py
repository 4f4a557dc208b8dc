"""Write files that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place when the block ends well.

    What it replaces passes on its permissions; a link stays one.

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
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "note") as file:
    ...     _ = file.write(b"whole")
    >>> [p.name for p in folder.iterdir()], (folder / "note").read_bytes()
    (['note'], b'whole')
    """
    path = Path(os.path.realpath(path))
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
    temporary = path.with_name(f".enhancekit-{secrets.token_hex(8)}")
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
    # the system takes the umask off, which cannot be asked for without changing it for all threads
    number = os.open(temporary, flags, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
