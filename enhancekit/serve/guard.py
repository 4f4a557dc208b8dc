"""What every request passes: who may ask, headers that keep browsers safe, and counting."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from enhancekit.serve.problems import ProblemError, response_of

__all__ = ["HEADERS", "Guard"]

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Refuse who may not ask, add headers to every response, and count it.

    Parameters
    ----------
    app : ASGI application
        What is guarded.
    token : str or None
        What requests must show.
    open_paths : collection of str
        Paths that need no token.
    answered : callable
        Told of each response: the path, and the status.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        open_paths: Collection[str],
        answered: Callable[[str, int], None],
    ) -> None:
        self._app = app
        self._expected = None if token is None else token.encode()
        self._open = frozenset(open_paths)
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                self._answered(scope["path"], message["status"])
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await response_of(refusal)(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> ProblemError | None:
        headers = Headers(scope=scope)
        if scope["method"] == "POST" and headers.get("sec-fetch-site") == "cross-site":
            # a page on the web may send to localhost from within the browser of whoever looks
            # at it; it could not read the answer, but keep the machine busy
            return ProblemError(403, "other sites' pages may not use this server")
        if self._expected is None or scope["path"] in self._open:
            return None
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(shown.strip().encode(), self._expected)
        if right and scheme.lower() == "bearer":
            return None
        return ProblemError(
            401,
            "this server needs a token: send it as 'Authorization: Bearer TOKEN'",
            headers={"WWW-Authenticate": "Bearer"},
        )
