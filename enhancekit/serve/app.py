"""`create_app`: the page and the HTTP API, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from enhancekit._version import __version__
from enhancekit.plain import to_json
from enhancekit.serve.asked import FORMATS, MEDIA_TYPES, Asked, read_query
from enhancekit.serve.guard import Guard
from enhancekit.serve.metrics import CONTENT_TYPE, Metrics
from enhancekit.serve.openapi import description
from enhancekit.serve.pool import GivenUpError
from enhancekit.serve.problems import ProblemError, problem_of, response_of
from enhancekit.serve.service import Done, Service
from enhancekit.serve.settings import Settings
from enhancekit.serve.uploads import Uploads
from enhancekit.serve.warned import heard

__all__ = ["create_app"]

logger = logging.getLogger(__name__)

PAGE = {
    "/": ("serve/page/index.html", "text/html; charset=utf-8"),
    "/style.css": ("serve/page/style.css", "text/css; charset=utf-8"),
    "/page.js": ("serve/page/page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("serve/page/icon.svg", "image/svg+xml"),
    "/viewer.css": ("pages/viewer.css", "text/css; charset=utf-8"),
    "/viewer.js": ("pages/viewer.js", "text/javascript; charset=utf-8"),
}
"""The files of the page: path, file and media type."""

_STUCK = 3
"""How many times the time-out one computation may take until the server counts as ill."""


def create_app(settings: Settings | None = None) -> Starlette:
    """Return the page and the API as an ASGI application.

    Parameters
    ----------
    settings : Settings, optional
        What is offered, and the limits.

    Returns
    -------
    Starlette
        For any ASGI server; `enhancekit.serve.run` runs it with uvicorn.

    Raises
    ------
    EnhanceKitError
        If an enhancer that shall be offered does not exist, or the default cannot be used.

    Examples
    --------
    >>> app = create_app(Settings(enhancers=("gamma",)))
    >>> sorted(route.path for route in app.routes)[:3]
    ['/', '/healthz', '/icon.svg']
    """
    server = _Server(settings or Settings())
    routes = [
        Route("/v1/enhance", server.enhance, methods=["POST"]),
        Route("/v1/enhancers", server.enhancers),
        Route("/healthz", server.healthz),
        Route("/metrics", server.metrics),
        Route("/openapi.json", server.openapi),
        *(Route(path, _file(*PAGE[path])) for path in PAGE),
    ]
    known = {route.path for route in routes}
    guard = Middleware(
        Guard,
        token=server.settings.token,
        open_paths={*PAGE, "/healthz"},
        answered=lambda path, status: server.counts.answered(
            path if path in known else "other", status
        ),
    )
    app = Starlette(
        routes=routes,
        middleware=[guard],
        exception_handlers={
            ProblemError: _problem,
            HTTPException: _http_problem,
            Exception: _problem,
        },
        lifespan=server.lifespan,
    )
    # a redirection would name the scheme this server knows, behind TLS the wrong one
    app.router.redirect_slashes = False
    return app


class _Server:
    """What the routes share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.service = Service(settings)
        self.service.warm_up()
        self.uploads = Uploads(settings.max_bytes, settings.upload_timeout)
        self.counts = Metrics(lambda: len(self.service.pool))

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        with heard():
            yield
            self.service.close()

    async def enhance(self, request: Request) -> Response:
        try:
            _refuse_form(request)
            asked = read_query(request.query_params.multi_items())
            self.service.find(asked.enhancer)
            self.service.pool.check_room()  # before the picture is uploaded for nothing
            with self.uploads.holding() as body:
                data = await self.uploads.read(request, body)
                done = await self._enhanced(request, data, asked)
                self.counts.enhanced(len(data), done)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it, but it is counted
        except Exception as error:
            problem = problem_of(error)
            if problem.status >= 500 and not isinstance(error, ProblemError):
                logger.exception("a request failed")
            return response_of(problem)
        headers = {
            "Enhancekit-Enhancer": done.enhancer,
            "Server-Timing": ", ".join(f"{k};dur={v * 1e3:.1f}" for k, v in done.seconds.items()),
            "Vary": "Accept",
        }
        if done.warnings:
            text = ascii(" ".join("; ".join(done.warnings).split()))  # a header holds no more
            headers["Enhancekit-Warning"] = text[1:-1]
        return Response(done.body, media_type=done.media_type, headers=headers)

    async def _enhanced(self, request: Request, data: bytes, asked: Asked) -> Done:
        """Wait for a picture, but not for ever, and not if nobody does."""
        accept = ", ".join(request.headers.getlist("accept"))
        job = self.service.submit(data, asked, accept)
        future = asyncio.wrap_future(job.future)
        gone = asyncio.ensure_future(request.receive())  # nothing more comes but a farewell
        try:
            await asyncio.wait(
                (future, gone),
                timeout=self.settings.timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if future.done():
                return future.result()
            if gone.done():
                raise ClientDisconnect
            begun = job.future.running()
        except GivenUpError:
            raise ClientDisconnect from None
        finally:
            gone.cancel()
            if not future.done():
                job.give_up()
                future.cancel()
        if begun:
            raise ProblemError(
                504,
                f"the picture was not done after {self.settings.timeout:g} s; try a smaller one",
            )
        raise ProblemError(
            503,
            f"the picture waited for {self.settings.timeout:g} s without its turn; try again later",
            headers={"Retry-After": "10"},
        )

    async def enhancers(self, _request: Request) -> Response:
        service = self.service
        return _json(
            {
                "enhancers": [
                    {
                        "name": e.qualified_name,
                        "summary": e.spec.summary,
                        "task": e.spec.task,
                        "scale": e.spec.scale,
                        "controls": {k: list(v) for k, v in e.spec.controls.items()},
                        "default": e == service.default,
                    }
                    for e in service.entries
                ],
                "formats": [
                    {
                        "name": name,
                        "media_type": media_type,
                        "suffixes": list(FORMATS[name].suffixes),
                        "lossy": FORMATS[name].lossy,
                    }
                    for name, media_type in MEDIA_TYPES.items()
                ],
                "limits": {
                    "bytes": self.settings.max_bytes,
                    "pixels": self.settings.max_pixels,
                    "seconds": self.settings.timeout,
                },
            }
        )

    async def healthz(self, _request: Request) -> Response:
        if self.service.computer.seconds() > _STUCK * self.settings.timeout:
            raise ProblemError(503, "one computation does not end; restart this server")
        return _json({"status": "ok", "version": __version__})

    async def metrics(self, _request: Request) -> Response:
        return Response(self.counts.text(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, _request: Request) -> Response:
        return _json(description(self.service.entries, self.settings))


def _refuse_form(request: Request) -> None:
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise ProblemError(
            415,
            "the body is the picture's bytes alone, not a form: curl --data-binary @photo.jpg, "
            "not -F",
        )


async def _problem(_request: Request, error: Exception) -> Response:
    return response_of(problem_of(error))


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  as registered above
    said = f"{request.method} {request.url.path}: {error.detail}"
    return response_of(ProblemError(error.status_code, said, headers=error.headers))


def _json(value: object) -> Response:
    return Response(to_json(value), media_type="application/json")


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    data = (resources.files("enhancekit") / name).read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    headers = {"Content-Type": media_type, "ETag": tag, "Cache-Control": "no-cache"}

    async def serve(request: Request) -> Response:
        known = request.headers.get("if-none-match", "").split(",")
        if tag in (each.strip().removeprefix("W/") for each in known):
            return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "no-cache"})
        return Response(data, headers=headers)

    return serve
