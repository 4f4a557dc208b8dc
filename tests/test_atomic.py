"""Files that appear whole or not at all, from several threads, under any name that is allowed."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from enhancekit import atomic
from enhancekit.errors import ImageError
from enhancekit.imaging.pictures import write


def test_threads_leave_the_umask_as_it_was():
    interval, before = sys.getswitchinterval(), os.umask(0o027)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            seen = set(threads.map(lambda _: atomic._mask(), range(4000)))
        assert seen == {0o027}
    finally:
        sys.setswitchinterval(interval)
        after = os.umask(before)
    assert after == 0o027


def test_the_longest_name(tmp_path):
    path = tmp_path / f"{'y' * 251}.png"
    write(Image.new("L", (2, 2)), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_too_long_a_name(tmp_path):
    with pytest.raises(ImageError, match=r"cannot be written: File name too long"):
        write(Image.new("L", (2, 2)), tmp_path / f"{'x' * 300}.png")
