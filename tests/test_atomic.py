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


@pytest.mark.parametrize("way", ["write", "cli", "folder"])
def test_what_is_no_file_is_not_replaced(tmp_path, cli, way):
    source, target = tmp_path / "in" / "a.png", tmp_path / "out" / "a.png"
    for path in (source, target):
        path.parent.mkdir()
    Image.new("RGB", (4, 4)).save(source)
    os.mkfifo(target)
    if way == "write":
        with pytest.raises(ImageError, match=r"out/a.png cannot be written: .*no regular file"):
            write(Image.new("L", (2, 2)), target)
    else:
        given = (source, "-o", target) if way == "cli" else (source.parent, "-o", target.parent)
        done = cli("enhance", *given, "-e", "identity", "--overwrite", "always")
        assert done.code == 1
        assert "is no regular file" in done.err
    assert stat.S_ISFIFO(target.stat().st_mode)
    assert [p.name for p in target.parent.glob(".enhancekit-*")] == []
