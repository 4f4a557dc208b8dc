"""Command-line options of the speed suite `enhancekit.testing.benchmarks`, as a pytest plugin."""

from __future__ import annotations

import re

import pytest

from enhancekit.errors import OptionError
from enhancekit.inference.loading import find_scheme
from enhancekit.plugins import host

__all__ = ["read_size"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what to measure, on what, and how often."""
    group = parser.getgroup("enhancekit", "speed of enhancers")
    group.addoption(
        "--enhancer", action="append", metavar="NAME", help="may be repeated; default: all"
    )
    group.addoption(
        "--size",
        action="append",
        metavar="SIZE",
        help="HEIGHTxWIDTH or megapixels as 12MP (3:4); may be repeated; default: 400x600",
    )
    group.addoption(
        "--precision", action="append", metavar="P", help="auto, fp32, ...; default: auto"
    )
    group.addoption("--rounds", type=int, default=5, help="timed rounds, after one untimed")


def read_size(text: str) -> tuple[int, int]:
    """Read height and width.

    Examples
    --------
    >>> read_size("400x600"), read_size("12MP")
    ((400, 600), (3000, 4000))
    """
    if match := re.fullmatch(r"(\d+)x(\d+)", text):
        return int(match[1]), int(match[2])
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)MP", text):
        unit = (float(match[1]) * 1e6 / 12) ** 0.5
        return round(3 * unit), round(4 * unit)
    raise OptionError(f"--size {text!r} is neither HEIGHTxWIDTH nor megapixels as 12MP")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one measurement for each combination that was asked for."""
    option = metafunc.config.getoption
    if metafunc.module.__name__ != "enhancekit.testing.benchmarks":
        return
    names = option("--enhancer") or list(host().enhancers)
    if "network" in metafunc.fixturenames:
        own = [n for n in names if not find_scheme(n)]  # those of a scheme are finished
        networks = [n for n in own if host().enhancers.get(n).spec.backbone]
        metafunc.parametrize("network", networks)
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", names)
    if "precision" in metafunc.fixturenames:
        metafunc.parametrize("precision", option("--precision") or ["auto"])
    if "size" in metafunc.fixturenames:
        metafunc.parametrize("size", option("--size") or ["400x600"])
