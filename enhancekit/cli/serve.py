"""``enhancekit serve``: a page to try enhancers on, and an HTTP API."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from enhancekit.cli.choices import Device, Precision, Tile, tile_value
from enhancekit.errors import OptionError

__all__ = ["serve"]

TOKEN = "ENHANCEKIT_SERVE_TOKEN"  # noqa: S105  the name of a variable; arguments show in `ps`


def serve(  # noqa: PLR0917
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    enhancer: Annotated[
        list[str] | None,
        typer.Option(
            "--enhancer",
            "-e",
            help="Offer only this one (file:PATH for weights of yours), the default first; may be "
            "repeated. All if not given.",
        ),
    ] = None,
    max_bytes: Annotated[int, typer.Option(help="Larger uploads are refused.", min=1)] = 64_000_000,
    max_pixels: Annotated[
        int, typer.Option(help="Larger pictures are refused, undecoded.", min=1)
    ] = 50_000_000,
    queue: Annotated[
        int, typer.Option(help="Pictures in hand or waiting; beyond, 429.", min=1)
    ] = 32,
    timeout: Annotated[float, typer.Option(help="Seconds a picture may wait and take.")] = 120.0,
    upload_timeout: Annotated[float, typer.Option(help="Seconds an upload may take.")] = 60.0,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Tile = "auto",
) -> None:
    """Serve a page to try enhancers on, and an HTTP API.

    With ENHANCEKIT_SERVE_TOKEN in the environment, requests must show that token.
    """
    try:
        from enhancekit.serve import Settings, run
    except ModuleNotFoundError as error:
        raise OptionError(
            f"serve needs {error.name}; install it with: pip install 'enhancekit[serve]'"
        ) from error
    token = os.environ.get(TOKEN)
    settings = Settings(
        enhancers=tuple(enhancer or ()),
        device=device,
        precision=precision,
        tile=tile_value(tile),
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        queue=queue,
        timeout=timeout,
        upload_timeout=upload_timeout,
        token=token,
    )
    if token is None and host not in ("127.0.0.1", "::1", "localhost"):
        typer.echo(
            f"warning: everybody who reaches {host} may use this server; set {TOKEN} to ask for a "
            "token",
            err=True,
        )
    run(
        settings,
        host=host,
        port=port,
        ready=lambda address: typer.echo(f"enhancekit serves on {address}"),
    )
