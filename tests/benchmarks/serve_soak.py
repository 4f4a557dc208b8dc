"""Many small requests to `enhancekit serve`, among nuisances: failures, memory, and throughput.

    python tests/benchmarks/serve_soak.py --requests 10000
    python tests/benchmarks/serve_soak.py --enhancer nl-means --side 96 --requests 2000

A server is started, and clients of this process send it pictures over 127.0.0.1, each over a
connection that stays open, while others send what is no picture, pictures whose header claims
10 gigapixels, uploads that are too large, stop in the middle, or trickle in. Every answer must be
the bytes that the bare pipeline (decode, enhance, encode; no HTTP) gives. The nuisances end after
two thirds, and throughput is measured on the rest. Afterwards a process of its own runs the bare
pipeline with as many threads. Clients and server share the machine's cores, so beside pictures per
second it counts the CPU time of the server and of the bare process.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

MAX_BYTES = 1_000_000


def picture(side, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 90, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def huge():
    """Return a PNG of some bytes that claims to have 10 gigapixels."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def pipeline(enhancer):
    """Return the bare pipeline: bytes in, bytes out."""
    import enhancekit
    from enhancekit.imaging.pictures import check_fits, encode
    from enhancekit.imaging.reading import decode

    loaded = enhancekit.load(enhancer)

    def run(data):
        opened = decode(data)
        check_fits(opened, Path("a.png"), scale=loaded.entry.spec.scale)
        return encode(loaded.enhance(opened), Path("a.png"))

    return run


def bare(enhancer, requests, concurrency, side):
    """Run the bare pipeline as often, in this process; print pictures and CPU ms a picture."""
    run = pipeline(enhancer)
    pictures = [picture(side, seed) for seed in range(8)]
    for data in pictures:
        run(data)
    with ThreadPoolExecutor(concurrency) as threads:
        before, begun = time.process_time(), time.perf_counter()
        for _ in threads.map(lambda i: run(pictures[i % 8]), range(requests)):
            pass
        spent, used = time.perf_counter() - begun, time.process_time() - before
    print(json.dumps({"per_second": requests / spent, "cpu_ms": used / requests * 1e3}))


@contextlib.contextmanager
def server(enhancer):
    command = (
        "from enhancekit.cli import main; main()",
        *("serve", "--port", "0", "-e", enhancer, "--queue", "64"),
        *("--max-bytes", str(MAX_BYTES), "--upload-timeout", "2"),
    )
    process = subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.PIPE, text=True)
    try:
        yield process, int(process.stdout.readline().rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def memory(process):
    """Return the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def cpu(process):
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Nuisances:
    """Clients that behave badly, each in its own thread, until told to stop."""

    def __init__(self, port, side):
        self.counts = {}
        self.wrong = []
        self._port = port
        self._whole = picture(side)
        self._stop = threading.Event()
        kinds = (self.text, self.truncated, self.claimed, self.large, self.aborted, self.trickled)
        self._threads = [threading.Thread(target=self._go_on, args=(k,)) for k in kinds]
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, kind):
        while True:
            try:
                kind()
            except OSError as error:
                self.wrong.append(f"{kind.__name__}: {error!r}")
            self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
            if self._stop.wait(0.1):
                return

    def _refused(self, data, status):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        connection.request("POST", "/v1/enhance", data)
        response = connection.getresponse()
        response.read()
        connection.close()
        if response.status != status:
            self.wrong.append(f"{response.status} instead of {status}")

    def text(self):
        self._refused(b"no picture", 422)

    def truncated(self):
        self._refused(self._whole[: len(self._whole) // 2], 422)

    def claimed(self):
        self._refused(huge(), 422)

    def large(self):
        head = f"POST /v1/enhance HTTP/1.1\r\nHost: a\r\nContent-Length: {MAX_BYTES + 1}\r\n\r\n"
        self._raw(head.encode() + bytes(2000), b"HTTP/1.1 413")

    def aborted(self):
        self._raw(self._head() + self._whole[: len(self._whole) // 2], None)

    def trickled(self):
        self._raw(self._head(), b"HTTP/1.1 408", trickle=True)

    def _head(self):
        size = len(self._whole)
        return f"POST /v1/enhance HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()

    def _raw(self, data, answer, *, trickle=False):
        with socket.create_connection(("127.0.0.1", self._port), timeout=30) as connection:
            connection.sendall(data)
            for byte in self._whole[:10] if trickle else b"":
                connection.sendall(bytes([byte]))
                time.sleep(0.1)
            if answer is not None and not connection.recv(4096).startswith(answer):
                self.wrong.append(f"not {answer}")


def soak(enhancer="gamma", requests=10_000, concurrency=4, side=32, settled=500):
    """Send the requests; return the figures."""
    run = pipeline(enhancer)
    pictures = [picture(side, seed) for seed in range(8)]
    wanted = [run(data) for data in pictures]
    quiet = requests * 2 // 3
    failures = []
    marks = {}
    with server(enhancer) as (process, port):
        nuisances = Nuisances(port, side)
        numbers = iter(range(requests))
        turn = threading.Lock()

        def client():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            while True:
                with turn:
                    number = next(numbers, None)
                    if number == settled:
                        marks["rss"] = memory(process)
                    if number == quiet:
                        nuisances.stop()
                        marks.update(cpu=cpu(process), at=time.perf_counter())
                if number is None:
                    break
                try:
                    connection.request("POST", "/v1/enhance", pictures[number % 8])
                    response = connection.getresponse()
                    body = response.read()
                except OSError as error:
                    failures.append(repr(error))
                    connection.close()
                    continue
                if response.status != 200 or body != wanted[number % 8]:
                    failures.append(f"{response.status} {body[:200]!r}")
            connection.close()

        clients = [threading.Thread(target=client) for _ in range(concurrency)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        counted = requests - quiet
        spent, used = time.perf_counter() - marks["at"], cpu(process) - marks["cpu"]
        grown = memory(process)
    return {
        "enhancer": enhancer,
        "side": side,
        "requests": requests,
        "concurrency": concurrency,
        "failures": len(failures),
        "first_failures": failures[:3],
        "nuisances": nuisances.counts,
        "nuisances_answered_wrongly": nuisances.wrong[:3],
        "rss_mib": round(marks["rss"] / 2**20, 1),
        "rss_growth": round(grown / marks["rss"] - 1, 4),
        "per_second": round(counted / spent, 1),
        "cpu_ms": round(used / counted * 1e3, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--enhancer", default="gamma")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--bare", action="store_true", help="only the bare pipeline")
    asked = parser.parse_args()
    settings = (asked.enhancer, asked.requests, asked.concurrency, asked.side)
    if asked.bare:
        bare(*settings)
        return
    found = soak(*settings)
    command = [sys.executable, __file__, "--bare", *sys.argv[1:]]
    found["bare"] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    found["share_of_bare"] = round(found["per_second"] / found["bare"]["per_second"], 3)
    found["share_of_bare_by_cpu"] = round(found["bare"]["cpu_ms"] / found["cpu_ms"], 3)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
