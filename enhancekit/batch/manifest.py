"""The manifest of a folder: one JSON line for every file done or failed, read again to go on."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from enhancekit.errors import FolderError
from enhancekit.plain import to_json

__all__ = ["Manifest", "Record", "read_manifests"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of one file after it was done or failed; a line of the manifest."""

    input: str
    """Path relative to the input folder, with ``/``."""
    input_sha256: str | None
    """Hash of the input; ``None`` if it could not be read."""
    input_bytes: int | None
    """Size of the input."""
    input_mtime_ns: int | None
    """When the input was last changed; size and time alike, it is taken to be the same."""
    output: str
    """Path relative to the output folder, with ``/``."""
    output_sha256: str | None
    """Hash of the output; ``None`` if it failed."""
    output_bytes: int | None
    """Size of the output."""
    enhancer: str
    """Qualified name."""
    version: str
    """The distribution it came with and its version; of a scheme, what tells its file's content."""
    weights_sha256: str | None
    """Hash of the weights file; ``None`` if there is none, or `version` tells its content."""
    options: Mapping[str, Any]
    """Everything else that shapes the output, as JSON gives it back."""
    seconds: float
    """How long it took, waiting for its turn included."""
    status: Literal["done", "failed"]
    """How it ended."""
    error: str | None
    """Why it failed."""
    finished: str
    """When, as ISO date and time in UTC."""


_FIELDS = {field.name for field in fields(Record)}


def read_manifests(folder: str | os.PathLike[str]) -> dict[str, Record]:
    """Read every manifest of an output folder, those of shards included.

    Parameters
    ----------
    folder : path-like
        The output folder.

    Returns
    -------
    dict of str to Record
        The last record of every output, by its relative path. A line that cannot be read is left
        out with a warning, but the last of a file without a newline in silence: there a run was
        cut off.

    Raises
    ------
    FolderError
        If a manifest cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> read_manifests(tempfile.mkdtemp())
    {}
    """
    found: dict[str, Record] = {}
    for path in sorted(Path(folder).glob("manifest*.jsonl")):
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except OSError as error:
            raise FolderError(f"{path} cannot be read: {error.strerror or error}") from error
        own: dict[str, Record] = {}
        for number, line in enumerate(lines, 1):
            record = _record(line)
            if record is None:
                warnings.warn(
                    f"{path}, line {number} is damaged; what it said is taken as not done",
                    stacklevel=2,
                )
            else:  # the later line, whatever the clock said
                own[record.output] = record
        for output, record in own.items():
            if output not in found or found[output].finished <= record.finished:
                found[output] = record
    return found


def _record(line: bytes) -> Record | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or set(values) != _FIELDS:
        return None
    texts = (values["input"], values["output"], values["finished"])
    return Record(**values) if all(isinstance(text, str) for text in texts) else None


class Manifest:
    """A manifest that is appended to, a whole line at a time.

    Parameters
    ----------
    path : Path
        Made if missing; what a killed run left of an unfinished last line is cut off.

    Raises
    ------
    FolderError
        If it is a link, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_symlink():
            raise FolderError(f"{path} is a link, which a manifest may not be; remove it")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            data = path.read_bytes()
            os.truncate(self._file, data.rfind(b"\n") + 1)
        except OSError as error:
            raise FolderError(f"{path} cannot be written: {error.strerror or error}") from error

    def append(self, record: Record) -> None:
        """Write a record.

        Raises
        ------
        FolderError
            If it cannot be written, e.g. because the disk is full.
        """
        line = to_json(asdict(record), indent=None).encode() + b"\n"
        try:
            # one write of a whole line: nothing is kept in a buffer that a kill would lose
            written = os.write(self._file, line)
        except OSError as error:
            raise FolderError(f"{self.path} cannot be written: {error.strerror}") from error
        if written < len(line):
            raise FolderError(f"{self.path} cannot be written: no space left")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
