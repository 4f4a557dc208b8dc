"""Files that appear whole or not at all, from several threads, under any name that is allowed."""

from __future__ import annotations

import os
import stat

import pytest
from PIL import Image

from enhancekit.atomic import replacing
from enhancekit.errors import ImageError
from enhancekit.imaging.pictures import write


def test_a_new_file_has_the_permissions_of_any_other(tmp_path, monkeypatch):
    before = os.umask(0o027)
    # what asks for the umask changes it, for the files of other threads too
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask is the process's"))
    try:
        write(Image.new("L", (2, 2)), tmp_path / "a.png")
        assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640
    finally:
        monkeypatch.undo()
        os.umask(before)


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_what_is_replaced_passes_on_its_permissions(tmp_path, mode):
    path = tmp_path / "a.png"
    path.touch()
    path.chmod(mode)
    write(Image.new("L", (2, 2)), path)
    assert path.stat().st_size > 0
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_link_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "b.png"
    target.touch()
    (tmp_path / "a.png").symlink_to(target)
    write(Image.new("L", (2, 2)), tmp_path / "a.png")
    assert (tmp_path / "a.png").is_symlink()
    assert target.stat().st_size > 0
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.png", "b.png", "elsewhere"]


def test_the_longest_name(tmp_path):
    path = tmp_path / f"{'y' * 251}.png"
    write(Image.new("L", (2, 2)), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_too_long_a_name(tmp_path):
    with pytest.raises(ImageError, match=r"cannot be written: File name too long"):
        write(Image.new("L", (2, 2)), tmp_path / f"{'x' * 300}.png")


def test_what_replaces_a_private_file_is_private_from_the_beginning(tmp_path):
    path = tmp_path / "a.png"
    path.touch(0o600)
    with replacing(path):
        (temporary,) = tmp_path.glob(".enhancekit-*")
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
