"""Run by `plugin_checks` in a fresh interpreter: what listing a plugin and importing it changes.

Reads from standard input: JSON with ``path`` (for ``sys.path``) and ``plugin``. Writes JSON to the
file named by its first argument: who imported torch while it was listed, and what was changed by
listing it and then by importing the modules of its targets.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TOUCHED = {
    "os.remove": "removes a file",
    "os.rename": "renames a file",
    "os.mkdir": "makes a folder",
    "os.system": "runs a command",
    "subprocess.Popen": "runs a command",
    "socket.connect": "opens a connection",
}
FRESH: dict[str, Any] = {
    "default dtype": "torch.float32",
    "gradients enabled": True,
    "deterministic algorithms": False,
    "cudnn.benchmark": False,
}


class Watch:
    """What the interpreter did since the last look."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.torch_by = ""
        self.on = True

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
        "warnings.filters": [str(f) for f in warnings.filters],
        "the root logger": ([str(h) for h in logging.root.handlers], logging.root.level),
        "the state of `random`": random.getstate(),
        "threads": sorted(t.name for t in threading.enumerate()),
        "signal handlers": {s: str(signal.getsignal(s)) for s in signal.valid_signals()},
        "sys.excepthook": str(sys.excepthook),
        "sys.stdout": str(sys.stdout),
        "the default socket timeout": socket.getdefaulttimeout(),
    }


def torch_state() -> dict[str, Any]:
    """Give torch's settings for the whole process, if it was imported."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return FRESH
    return {
        "default dtype": str(torch.get_default_dtype()),
        "gradients enabled": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name what differs."""
    found = [f"changes {key}" for key in before if before[key] != after[key]]
    if "numpy" in sys.modules:  # it adds filters of its own, and torch does
        found = [c for c in found if c != "changes warnings.filters"]
    return found


def _said(printed: str) -> list[str]:
    return [f"prints {printed.strip()[:80]!r}"] if printed else []


def _list(plugin: str) -> list[str]:
    from enhancekit.plugins import host

    return [
        e.spec.target for s in host().statuses() if s.provider.plugin == plugin for e in s.entries
    ]


def _import(targets: Sequence[str]) -> None:
    from importlib import import_module

    for module in dict.fromkeys(t.partition(":")[0] for t in targets if t):
        try:
            import_module(module)
        except Exception as error:  # noqa: BLE001  targets_resolve says so
            print(error, file=sys.stderr)  # noqa: T201


def _printed(run: Callable[[], Any]) -> tuple[Any, str]:
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        done = run()
    return done, text.getvalue()


def main() -> None:
    """Do it."""
    given = json.load(sys.stdin)
    sys.path[:] = given["path"]
    watch = Watch()
    import enhancekit.plugins  # noqa: F401  the core's own imports are not the plugin's

    sys.meta_path.insert(0, watch)
    sys.addaudithook(watch.audit)
    before = state()
    targets, printed = _printed(lambda: _list(given["plugin"]))
    listing = [*changes(before, state()), *_said(printed), *watch.events]
    torch_by = watch.torch_by
    watch.events.clear()
    before = state()
    _, printed = _printed(lambda: _import(targets))
    importing = [
        *changes(before, state()),
        *changes(FRESH, torch_state()),
        *_said(printed),
        *watch.events,
    ]
    watch.on = False
    found = {"torch_by": torch_by, "listing": listing, "importing": importing}
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
