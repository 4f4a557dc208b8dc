"""`run`: the application under uvicorn, on this machine alone unless asked otherwise."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from enhancekit.errors import OptionError
from enhancekit.serve.app import create_app
from enhancekit.serve.settings import Settings

__all__ = ["run"]

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the others of this process waiting; Python's 5 ms would be longer than
all the work on a small picture."""
GRACE = 30
"""Seconds that requests in hand have to end after the server is told to."""
CONNECTIONS = 512
"""Connections at once; beyond, a request is told 503."""
HEAD_SECONDS = 10
"""Seconds a client may take to ask for something, once it has begun to."""


class _Punctual(H11Protocol):
    """HTTP/1.1 that hangs up on clients who dawdle over the head of a request.

    uvicorn limits how long a connection may be idle between requests only. Bodies are timed where
    they are read.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._keep_time()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._keep_time()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _keep_time(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._hang_up)

    def on_response_complete(self) -> None:
        self._stop()
        super().on_response_complete()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hang_up(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def run(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    ready: Callable[[str], None] = lambda _address: None,
) -> None:
    """Serve until the process is told to end (SIGINT, SIGTERM); what is in hand is finished.

    Parameters
    ----------
    settings : Settings
        What is offered, and the limits.
    host : str
        Address to listen on; by default only this machine can reach it.
    port : int
        0 takes a free one.
    ready : callable
        Told the server's address as soon as it answers.

    Raises
    ------
    OptionError
        If the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise OptionError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}); choose another "
            "--host or --port"
        ) from error
    sys.setswitchinterval(SWITCH_SECONDS)
    # inherited by every connection; asyncio sets it only on sockets made with IPPROTO_TCP, and
    # without it each answer, written in two parts, waits 40 ms for the client's acknowledgement
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listening:
        config = uvicorn.Config(
            create_app(settings),
            http=_Punctual,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=GRACE,
        )
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        address = f"http://{shown}:{listening.getsockname()[1]}"

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if self.started:
                    ready(address)

        Server(config).run(sockets=[listening])
