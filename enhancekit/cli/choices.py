"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from enhancekit.cli.output import settings
from enhancekit.errors import OptionError
from enhancekit.plugins import host
from enhancekit.specs import LOAD_ARGUMENTS

__all__ = [
    "Control",
    "Device",
    "Engine",
    "Enhancer",
    "Exposure",
    "HeldOut",
    "Json",
    "Lossless",
    "MaxPixels",
    "Metadata",
    "Mode",
    "Options",
    "Overwrite",
    "Precision",
    "Quality",
    "Strength",
    "Subsampling",
    "Tile",
    "Weights",
    "default_enhancer",
    "given_controls",
    "given_options",
    "refuse_existing",
    "tile_value",
]

Enhancer = Annotated[
    str, typer.Option("--enhancer", "-e", help="Name from `enhancekit list`, or file:PATH.")
]
Strength = Annotated[float, typer.Option(help="From 0 (as it came) to 1.")]
Control = Annotated[
    list[str] | None, typer.Option(help="key=value the enhancer declares, e.g. exposure=0.5.")
]
Exposure = Annotated[
    float | None, typer.Option(help="Mean brightness wanted, for enhancers with that control.")
]
Mode = Annotated[
    Literal["exact", "fast", "best"],
    typer.Option(
        help="fast: large pictures by way of a small copy; fine noise stays. best: the mean over "
        "eight orientations, in eight times the time."
    ),
]
Overwrite = Annotated[
    Literal["never", "always"], typer.Option(help="Whether to replace the file if it exists.")
]
HeldOut = Annotated[float, typer.Option(min=0, max=1, help="Share held out, as in the recipe.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Tile = Annotated[str, typer.Option(help="auto, none, or the side of the tiles in pixels.")]
Engine = Annotated[
    str, typer.Option(help="What computes a network: auto, torch, onnxruntime or openvino.")
]
Weights = Annotated[Path | None, typer.Option(help="Weights of your own instead of those shipped.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", help="key=value over the enhancer's config; may be repeated."),
]
Quality = Annotated[
    int | None, typer.Option(help="1 to 100; JPEG has 95, AVIF and HEIC 90; makes WebP lossy.")
]
Subsampling = Annotated[
    Literal["4:4:4", "4:2:2", "4:2:0"] | None,
    typer.Option(help="Of colour in JPEG, AVIF and HEIC; 4:4:4, none, if not given."),
]
Lossless = Annotated[bool, typer.Option("--lossless", help="Refuse formats that lose something.")]
Metadata = Annotated[
    Literal["keep", "strip"],
    typer.Option(help="strip leaves out EXIF, XMP, captions and texts; the profile stays."),
]
MaxPixels = Annotated[int, typer.Option(min=1, help="Larger pictures are refused, undecoded.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def default_enhancer() -> str:
    """Return the one enhancer that a plugin offers where the user names none."""
    offered = [e for e in host().enhancers.list() if e.spec.default]
    if len(offered) == 1:
        return offered[0].qualified_name
    names = ", ".join(e.qualified_name for e in offered) or ", ".join(host().enhancers)
    raise OptionError(
        f"{len(offered)} installed plugins offer a default enhancer; "
        f"name one with --enhancer: {names}"
    )


def given_controls(control: list[str] | None, exposure: float | None) -> dict[str, Any]:
    """Read the values of --control and --exposure.

    Examples
    --------
    >>> given_controls(["sigma=25"], 0.5)
    {'sigma': 25, 'exposure': 0.5}
    """
    controls = settings(control or (), "--control")
    if exposure is None:
        return controls
    if "exposure" in controls:
        raise OptionError("--exposure and --control exposure=... say the same; give one")
    return {**controls, "exposure": exposure}


def given_options(option: list[str] | None) -> dict[str, Any]:
    """Read the values of --option.

    Examples
    --------
    >>> given_options(["width=8", "block=acme:fast"])
    {'width': 8, 'block': 'acme:fast'}
    """
    options = settings(option or (), "--option")
    if taken := sorted(options.keys() & set(LOAD_ARGUMENTS)):
        raise OptionError(
            f"--option {taken[0]}: no option of an enhancer, but an argument of `load`; commands "
            f"that take it have --{taken[0]}"
        )
    return options


def tile_value(text: str) -> str | int | None:
    """Read the value of --tile.

    Examples
    --------
    >>> tile_value("512"), tile_value("none"), tile_value("auto")
    (512, None, 'auto')
    """
    if text == "none":
        return None
    if text == "auto":
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise OptionError(f"--tile is auto, none or a number of pixels, not {text!r}")


def refuse_existing(path: Path, overwrite: str) -> None:
    """Refuse to replace a file unless that was asked for.

    Raises
    ------
    OptionError
        If it exists.
    """
    if overwrite == "never" and path.exists():
        raise OptionError(f"{path} exists already; pass --overwrite always to replace it")
