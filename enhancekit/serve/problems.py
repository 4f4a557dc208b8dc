"""Errors as JSON, after RFC 9457, in the words of the error itself."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from enhancekit.errors import (
    AmbiguousNameError,
    EnhanceKitError,
    ImageError,
    OptionError,
    OutOfMemoryError,
    UnknownNameError,
)
from enhancekit.plain import to_json
from enhancekit.serve.pool import BusyError

__all__ = ["MEDIA_TYPE", "ProblemError", "problem_of", "response_of"]

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
_LONGEST = 1000

_STATUS: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (ImageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (OptionError, HTTPStatus.BAD_REQUEST),
    (UnknownNameError, HTTPStatus.BAD_REQUEST),
    (AmbiguousNameError, HTTPStatus.BAD_REQUEST),
    (OutOfMemoryError, HTTPStatus.SERVICE_UNAVAILABLE),
    (EnhanceKitError, HTTPStatus.INTERNAL_SERVER_ERROR),
)


class ProblemError(Exception):
    """A request that is refused for a reason of HTTP, not of a picture.

    Examples
    --------
    >>> response_of(ProblemError(408, "too slow")).body
    b'{"type": "about:blank", "title": "Request Timeout", "status": 408, "detail": "too slow"}'
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        error: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = HTTPStatus(status)
        self.detail = detail
        self.headers = dict(headers or {})
        self.error = error


def problem_of(error: BaseException) -> ProblemError:
    """Return what the client is told of an error.

    What was not raised on purpose is not told: its text was not written for strangers.

    Examples
    --------
    >>> problem_of(OptionError("strength lies between 0 and 1")).status
    <HTTPStatus.BAD_REQUEST: 400>
    """
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, BusyError):
        return ProblemError(
            429,
            "as many pictures as may wait are waiting; try again in a few seconds",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return ProblemError(status, str(error), error=type(error).__name__)
    return ProblemError(500, "the server failed at this; its log says why")


def response_of(problem: ProblemError) -> Response:
    """Write a problem as a response."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": int(problem.status),
        "detail": problem.detail[:_LONGEST],
    }
    if problem.error:
        body["error"] = problem.error
    return Response(
        to_json(body, indent=None),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )
