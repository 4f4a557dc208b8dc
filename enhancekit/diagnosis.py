"""Look at this machine and installation: what works, what is missing, and how to get it."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from packaging.requirements import Requirement

from enhancekit._version import __version__
from enhancekit.errors import EnhanceKitError
from enhancekit.plugins import host

__all__ = ["Finding", "diagnose"]

GIB = 2**30
CODECS = {
    "AVIF": "avif",
    "BMP": "",
    "JPEG": "jpg",
    "PNG": "zlib",
    "TIFF": "libtiff",
    "WEBP": "webp",
}
"""What of Pillow a format needs, if it may be missing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    subject: str
    """What was looked at, e.g. ``"torch"``."""
    status: Literal["ok", "note", "problem"]
    """``"note"``: something optional is missing. ``"problem"``: something will not work."""
    found: str
    """What was found, in one line."""
    remedy: str = ""
    """What to do, where something is missing."""


def diagnose() -> list[Finding]:
    """Look at everything.

    Returns
    -------
    list of Finding
        In the order in which one thing needs another.

    Examples
    --------
    >>> findings = diagnose()
    >>> findings[0].subject, findings[0].status
    ('enhancekit', 'ok')
    """
    python = f"{platform.python_implementation()} {platform.python_version()}"
    first = Finding(
        "enhancekit", "ok", f"{__version__} on {python}, {platform.system()} {platform.machine()}"
    )
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _torch,
        _codecs,
        _extras,
        _plugins,
        _weights,
    )
    return [first, *(finding for look in looks for finding in look())]


def _torch() -> Iterator[Finding]:
    try:
        torch: Any = importlib.import_module("torch")
    except Exception as error:  # noqa: BLE001  a damaged install may raise anything
        remedy = "reinstall it: pip install --force-reinstall torch"
        yield Finding("torch", "problem", f"{type(error).__name__}: {error}", remedy)
        return
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    from enhancekit.inference.device import choose_device, native_precisions

    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            name = torch.cuda.get_device_name(i)
            found = f"cuda:{i} {name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
            yield Finding("device", "ok", found)
    elif torch.version.cuda:
        found = f"the CPU; torch is built for CUDA {torch.version.cuda}, but sees no device"
        remedy = "if there is one, look at its driver with nvidia-smi"
        yield Finding("device", "note", found, remedy)
    else:
        remedy = "for an NVIDIA GPU, install a CUDA build as on https://pytorch.org/get-started"
        yield Finding("device", "ok", "the CPU; torch is a build without CUDA", remedy)
    device = choose_device("auto")
    names = ("fp32", *native_precisions(device))
    yield Finding("precision", "ok", f"{', '.join(names)} native on {device.type}")
    yield _memory()


def _memory() -> Finding:
    import psutil
    import torch

    from enhancekit.inference.memory import free_memory

    free, total = free_memory(torch.device("cpu")), psutil.virtual_memory().total
    found = f"{free / GIB:.1f} of {total / GIB:.1f} GiB to be had, {os.cpu_count()} CPU cores"
    if free < GIB:
        return Finding("memory", "note", found, "use smaller tiles, e.g. tile=256")
    return Finding("memory", "ok", found)


def _codecs() -> Iterator[Finding]:
    try:
        import PIL
        from PIL import features
    except ImportError as error:
        remedy = "reinstall it: pip install --force-reinstall pillow"
        yield Finding("codecs", "problem", str(error), remedy)
        return
    missing = [f for f, needed in CODECS.items() if needed and not features.check(needed)]
    held = [f for f in CODECS if f not in missing]
    found = f"Pillow {PIL.__version__}: {', '.join(held)}"
    if missing:
        remedy = "pip install --force-reinstall --only-binary :all: pillow"
        yield Finding("codecs", "problem", f"{found}; without {', '.join(missing)}", remedy)
    else:
        yield Finding("codecs", "ok", found)


def _extras() -> Iterator[Finding]:
    try:
        ours = metadata.metadata("enhancekit")
        needed = [Requirement(r) for r in metadata.requires("enhancekit") or ()]
    except metadata.PackageNotFoundError:
        remedy = "install it: pip install enhancekit"
        yield Finding("metadata", "problem", "enhancekit itself is not installed", remedy)
        return
    for extra in ours.get_all("Provides-Extra", []):
        wanted = [
            r
            for r in needed
            if r.name != "enhancekit"
            and r.marker is not None
            and r.marker.evaluate({"extra": extra})
        ]
        missing = [str(r.name) for r in wanted if not _installed(r)]
        if missing:
            remedy = f"pip install 'enhancekit[{extra}]'"
            yield Finding(f"extra {extra}", "note", f"without {', '.join(missing)}", remedy)
        else:
            yield Finding(f"extra {extra}", "ok", "complete")


def _installed(needed: Requirement) -> bool:
    try:
        return needed.specifier.contains(metadata.version(needed.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def _plugins() -> Iterator[Finding]:
    for status in host().statuses():
        subject = f"plugin {status.provider.plugin}"
        if status.status == "failed":
            remedy = f"upgrade or uninstall {status.provider.distribution}, or report it there"
            yield Finding(subject, "problem", f"{status.provider}: {status.error}", remedy)
        elif status.status == "disabled":
            remedy = "ENHANCEKIT_PLUGINS and ENHANCEKIT_DISABLE_PLUGINS decide"
            yield Finding(subject, "note", f"{status.provider}: disabled", remedy)
        else:
            noted = [*status.clashes, *status.deprecations]
            found = "; ".join((f"{status.provider}: gives {len(status.entries)}", *noted))
            yield Finding(subject, "note" if noted else "ok", found)


def _weights() -> Iterator[Finding]:
    for entry in host().enhancers.list():
        subject = f"weights {entry.qualified_name}"
        spec = entry.spec
        if spec.weights is not None:
            try:
                from enhancekit.weights import read_card, shipped

                path = shipped(spec.weights)
                read_card(path)
            except (EnhanceKitError, ImportError) as error:
                remedy = f"reinstall {entry.provider.distribution}"
                yield Finding(subject, "problem", str(error), remedy)
                continue
            size = f"{path.stat().st_size / 1e6:.1f} MB"
            yield Finding(subject, "ok", f"{size}, undamaged; `enhancekit info` has the terms")
        elif spec.backbone:
            yield Finding(subject, "note", "none are shipped", spec.train_hint or "train some")
