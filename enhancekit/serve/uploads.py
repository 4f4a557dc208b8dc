"""Bodies of requests, read within limits of size, of time, and of memory for all together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from enhancekit.serve.pool import BusyError
from enhancekit.serve.problems import ProblemError

__all__ = ["Uploads"]

TOGETHER = 8
"""Largest uploads that are held in memory at once."""


class Uploads:
    """Reads bodies, and knows how many bytes of them are held.

    Parameters
    ----------
    max_bytes : int
        Largest body.
    timeout : float
        Seconds one may take.
    """

    def __init__(self, max_bytes: int, timeout: float) -> None:
        self._max_bytes = max_bytes
        self._timeout = timeout
        self.held = 0
        """Bytes in memory."""

    @contextmanager
    def holding(self) -> Iterator[_Body]:
        """Give a place for one body, whose bytes count as held until this ends."""
        body = _Body(self)
        try:
            yield body
        finally:
            self.held -= body.size

    async def read(self, request: Request, body: _Body) -> bytes:
        """Read the body of a request.

        Raises
        ------
        ProblemError
            If it is too large (413) or takes too long (408).
        BusyError
            If the others leave no memory for it.
        starlette.requests.ClientDisconnect
            If the client goes away.
        """
        stated = request.headers.get("content-length", "0")
        if stated.isdigit() and int(stated) > self._max_bytes:
            raise self._too_large(f"{int(stated):,} bytes are")
        try:
            async with asyncio.timeout(self._timeout):
                async for chunk in request.stream():
                    body.add(chunk)
        except TimeoutError:
            raise ProblemError(
                408, f"the picture was not complete after {self._timeout:g} s"
            ) from None
        return body.whole()

    def count(self, size: int, total: int) -> None:
        """Count so many bytes more, of a body that has that many now."""
        self.held += size
        if total > self._max_bytes:
            raise self._too_large("the upload is")
        if self.held > TOGETHER * self._max_bytes:
            raise BusyError

    def _too_large(self, what: str) -> ProblemError:
        return ProblemError(413, f"{what} more than the {self._max_bytes:,} bytes a picture may be")


class _Body:
    """The bytes of one body, as they come."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._chunks: list[bytes] = []
        self.size = 0

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._chunks.append(chunk)
        self._uploads.count(len(chunk), self.size)

    def whole(self) -> bytes:
        data = b"".join(self._chunks)
        self._chunks.clear()
        return data
