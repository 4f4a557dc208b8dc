"""A server in a process of its own: slow, broken and vanishing clients, and how it ends."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
import threading
import time

import httpx
import numpy as np
import pytest
from running import encoded, opened, photo, serving


def post(server, data):
    response = httpx.post(f"{server.address}/v1/enhance", content=data, timeout=20)
    assert response.status_code == 200, response.text
    return response.content


def wait_for(server, line):
    """Wait until the metrics have a line."""
    until = time.monotonic() + 20
    while line not in httpx.get(f"{server.address}/metrics").text.splitlines():
        assert time.monotonic() < until


def raw(server, data):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(data)
    return connection


def answer(connection):
    """Read one response, or what comes until the server hangs up."""
    found = b""
    with contextlib.suppress(ConnectionResetError), connection:
        while chunk := connection.recv(65536):
            found += chunk
            if found.endswith(b"}"):
                break
    return found


HEAD = b"POST /v1/enhance HTTP/1.1\r\nHost: localhost\r\n"


def test_it_works_over_the_wire(server):
    done = opened(post(server, encoded(photo())))
    assert done.size == (32, 32)
    assert np.asarray(done).mean() > photo().mean() + 30


def test_a_slow_upload_is_cut_and_harms_nobody(server):
    connection = raw(server, HEAD + b"Content-Length: 1000\r\n\r\n" + bytes(10))
    begun = time.monotonic()
    assert opened(post(server, encoded(photo())))
    head, _, body = answer(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["detail"] == "the picture was not complete after 1.5 s"
    assert time.monotonic() - begun < 8


def test_who_dawdles_over_the_head_is_hung_up_on(server):
    begun = time.monotonic()
    for connection in [raw(server, head) for head in (b"", b"POST /v1/enhance HT", HEAD)]:
        assert answer(connection) == b""
    assert 0.5 < time.monotonic() - begun < 8


def test_a_large_upload_is_refused_by_its_length(server):
    connection = raw(server, HEAD + b"Content-Length: 99999999\r\n\r\n" + bytes(1000))
    assert answer(connection).startswith(b"HTTP/1.1 413 ")


def test_what_is_no_http_is_refused(server):
    assert answer(raw(server, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


def test_clients_that_go_away_leave_nothing_behind(server):
    data = encoded(photo(400, 600), "JPEG")
    for part in (len(data) // 2, len(data)):
        for _ in range(5):
            head = HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode()
            raw(server, head + data[:part]).close()
    wait_for(server, "enhancekit_pictures_in_hand 0.0")
    assert opened(post(server, encoded(photo())))


def test_it_ends_after_what_is_in_hand():
    with serving("-e", "nl-means") as running:
        done = []

        def ask():
            done.append(post(running, encoded(photo(350, 350))))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_for(running, "enhancekit_pictures_in_hand 1.0")
        running.process.send_signal(signal.SIGTERM)
        thread.join(30)
        assert running.process.wait(30) in {0, -signal.SIGTERM}
        assert opened(done[0]).size == (350, 350)
        assert "Traceback" not in running.process.stderr.read()
        with pytest.raises(httpx.ConnectError):
            post(running, b"")


def test_what_cannot_start_says_so_in_a_line(cli, server, monkeypatch):
    taken = cli("serve", "--port", server.port, "-e", "gamma")
    assert taken.code == 1
    assert taken.err.startswith(f"error: 127.0.0.1:{server.port} cannot be listened on")
    unknown = cli("serve", "--port", 0, "-e", "nix")
    assert (unknown.code, unknown.err.count("\n")) == (1, 1)
    assert "nix" in unknown.err
    untrained = cli("serve", "--port", 0, "-e", "mfnn-report")
    assert (untrained.code, untrained.err.count("\n")) == (1, 1)
    assert "mfnn:mfnn-report" in untrained.err
    assert "has no weights" in untrained.err
    monkeypatch.setenv("ENHANCEKIT_SERVE_TOKEN", "short")
    short = cli("serve", "--port", 0, "-e", "gamma")
    assert short.code == 1
    assert "16" in short.err


def test_what_is_missing_is_named(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in [n for n in sys.modules if n.startswith("enhancekit.serve")]:
        monkeypatch.delitem(sys.modules, name)
    done = cli("serve")
    assert done.code == 1
    assert "pip install 'enhancekit[serve]'" in done.err
