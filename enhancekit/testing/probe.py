"""Run by `enhancekit.testing.plugin` in a fresh interpreter: what a plugin changes on its way in.

Reads from standard input: JSON with ``path`` (for ``sys.path``) and ``plugin``. Writes JSON to the
file named by its first argument: who imported torch while it was listed, and what was changed by
listing it and then by importing the modules of its targets. NumPy is imported before the one, torch
before the other, so that what they change themselves is not taken for the plugin's.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

TOUCHED = {
    "os.remove": "removes a file",
    "os.rename": "renames a file",
    "os.mkdir": "makes a folder",
    "os.system": "runs a command",
    "subprocess.Popen": "runs a command",
    "socket.connect": "opens a connection",
}


class Watch:
    """What the interpreter did since the last look."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.torch_by = ""
        self.on = False

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note files written, commands run and connections made."""
        if not self.on:
            return
        if event in TOUCHED:
            self.events.append(f"{TOUCHED[event]} ({arguments[0]})")
        elif event in ("os.putenv", "os.unsetenv"):
            # noted even where the value stays, because our caller may have handed the new one down
            name = os.fsdecode(arguments[0])
            change = f"sets the environment variable {name}"
            if event == "os.unsetenv" and change in self.events:
                self.events.remove(change)
            elif change not in self.events:
                self.events.append(change)
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & writes:
            self.events.append(f"writes a file ({arguments[0]})")

    def find_spec(self, name: str, *_: Any) -> None:
        """Stand in ``sys.meta_path``, to see who imports torch; finds nothing."""
        if name == "torch" and not self.torch_by:
            frames = [
                f
                for f in traceback.extract_stack()[:-1]
                if not f.filename.startswith("<frozen") and f.filename != __file__
            ]
            self.torch_by = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"


def state() -> dict[str, Any]:
    """Everything of the process that an import must leave as it was."""
    return {
        "the working folder": str(Path.cwd()),
        "sys.path": list(sys.path),
        # libraries add filters of their own warnings and modules, whoever imports them
        "warnings.filters": [
            f"{action} {kind}"
            for action, message, kind, module, _ in warnings.filters
            if message is module is None and getattr(kind, "__module__", "") == "builtins"
        ],
        "the root logger": ([str(h) for h in logging.root.handlers], logging.root.level),
        "logging.disable": logging.root.manager.disable,
        "the state of `random`": random.getstate(),
        "threads": sorted(t.name for t in threading.enumerate()),
        "signal handlers": {s: str(signal.getsignal(s)) for s in signal.valid_signals()},
        "sys.excepthook": str(sys.excepthook),
        "sys.stdout": str(sys.stdout),
        "the default socket timeout": socket.getdefaulttimeout(),
        **_numpy_state(),
        **_torch_state(),
    }


def _numpy_state() -> dict[str, Any]:
    numpy: Any = sys.modules["numpy"]
    return {
        "the state of `numpy.random`": str(numpy.random.get_state()),
        "numpy.seterr": numpy.geterr(),
    }


def _torch_state() -> dict[str, Any]:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return {}
    return {
        "default dtype": str(torch.get_default_dtype()),
        "gradients enabled": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "torch's number of threads": torch.get_num_threads(),
        "the state of torch's random numbers": torch.get_rng_state().tolist(),
        "torch.set_float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name what differs."""
    return [f"changes {key}" for key in before if before[key] != after[key]]


def _list(plugin: str) -> list[str]:
    from enhancekit.plugins import host

    return [
        e.spec.target for s in host().statuses() if s.provider.plugin == plugin for e in s.entries
    ]


def _import(targets: Sequence[str]) -> None:
    from importlib import import_module

    for module in dict.fromkeys(t.partition(":")[0] for t in targets if t):
        with contextlib.suppress(Exception):  # targets_resolve says so
            import_module(module)


def _said(printed: str) -> list[str]:
    return [f"prints {printed.strip()[:80]!r}"] if printed else []


def _printed(run: Callable[[], Any], output: IO[str]) -> tuple[Any, str]:
    stdout, errors = sys.stdout, io.StringIO()
    with contextlib.redirect_stderr(errors):
        done = run()
    stdout.flush()
    output.seek(0)
    printed = output.read()
    output.seek(0)
    output.truncate()
    return done, printed + errors.getvalue()


def _changed(watch: Watch, run: Callable[[], Any], output: IO[str]) -> tuple[Any, list[str]]:
    before = state()
    watch.events.clear()
    watch.on = True
    done, printed = _printed(run, output)
    watch.on = False
    return done, [*changes(before, state()), *_said(printed), *watch.events]


def main() -> None:
    """Do it."""
    given = json.load(sys.stdin)
    sys.path[:] = given["path"]
    # warnings and logs are for whoever runs the program to show
    logging.captureWarnings(True)
    logging.lastResort = logging.NullHandler()
    watch = Watch()
    import numpy.random  # noqa: F401

    import enhancekit.plugins  # noqa: F401  the core's own imports are not the plugin's

    sys.meta_path.insert(0, watch)
    sys.addaudithook(watch.audit)
    # in place of the descriptor itself, which others write to past sys.stdout
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        os.dup2(output.fileno(), 1)
        targets, listing = _changed(watch, lambda: _list(given["plugin"]), output)
        torch_by = watch.torch_by
        import torch  # noqa: F401

        _, importing = _changed(watch, lambda: _import(targets), output)
    found = {"torch_by": torch_by, "listing": listing, "importing": importing}
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
