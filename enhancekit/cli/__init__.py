"""The command line: one module a command, errors as one line, exit codes that mean something.

0: done. 1: an error, named in one line. 2: no such option. 3: some of several inputs failed.
129: hung up on. 130: interrupted. 143: terminated.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import warnings

import typer

from enhancekit._version import __version__
from enhancekit.cli import (
    bench,
    compare,
    data,
    doctor,
    enhance,
    evaluate,
    export,
    info,
    listing,
    new_plugin,
    plugins,
    serve,
    train,
    video,
)
from enhancekit.errors import EnhanceKitError

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="enhancekit",
    help="Make dark, noisy or small pictures good.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("enhance")(enhance.enhance)
app.command("list")(listing.list_names)
app.command("info")(info.info)
app.command("plugins")(plugins.plugins)
app.command("video")(video.video)
app.command("doctor")(doctor.doctor)
app.command("new-plugin")(new_plugin.new_plugin)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("bench")(bench.bench)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.add_typer(data.app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"enhancekit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    del version


def run() -> None:
    """Run the command line as all that this process does."""
    # as for Ctrl-C, what is half done is cleared away
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows hangs nothing up
        if number and signal.getsignal(number) != signal.SIG_IGN:  # as nohup asks
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        main()
    except SystemExit as end:
        crew = sys.modules.get("enhancekit.batch.crew")  # heavy, and not of every command
        if crew is None or all(t.name != crew.GIVEN_UP for t in threading.enumerate()):
            raise
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)


def main() -> None:
    """Run the command line in this process."""
    for stream in (sys.stdout, sys.stderr):  # names of files may be no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_: typer.echo(f"warning: {message}", err=True)
    try:
        app()
    except EnhanceKitError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # whatever touches files tells of it by itself
        typer.echo(f"error: what was to be said cannot be written: {error}", err=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C, without a word
            typer.echo("interrupted", err=True)
        raise
