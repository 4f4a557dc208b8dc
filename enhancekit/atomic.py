"""Write files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["need_replaceable", "put_in_place", "replacing"]


def need_replaceable(path: Path) -> None:
    """Make sure that a file may take this place: nothing stands there, or a file.

    Raises
    ------
    OSError
        If it is a folder, a device or a pipe: renaming a file to its name would end it.

    Examples
    --------
    >>> need_replaceable(Path(os.devnull))
    Traceback (most recent call last):
    OSError: [Errno 22] it is no regular file, and a file would replace it: '/dev/null'
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file, and a file would replace it", str(path))


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
        If it cannot be written, or what stands there is no file; that is untouched.

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
    need_replaceable(path)
    temporary = path.with_name(f".enhancekit-{secrets.token_hex(8)}")
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
    # the system takes the umask off, which cannot be asked for without changing it for all threads
    number = os.open(temporary, flags, 0o600 if path.exists() else 0o666)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        put_in_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def put_in_place(made: Path, path: Path) -> None:
    """Move a finished file to where it belongs, at once; what it replaces passes on permissions.

    Parameters
    ----------
    made : Path
        The file; on the disk of `path`.
    path : Path
        The file to make or replace; its folder exists. A link is replaced itself.

    Raises
    ------
    OSError
        If it cannot be moved, or what stands there is no file; that is untouched.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "made").touch()
    >>> put_in_place(folder / "made", folder / "kept")
    >>> [p.name for p in folder.iterdir()]
    ['kept']
    """
    need_replaceable(path)
    if path.exists():
        shutil.copymode(path, made)
    made.replace(path)
