"""Limits before decoding, and nothing but our own errors from broken files."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from enhancekit.errors import ImageError, ImageWarning
from enhancekit.imaging.files import FORMATS, DeepPicture, decode


def pixels(shape=(9, 11, 3), dtype=np.uint8):
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, shape, dtype, endpoint=True)


def encoded(kind, **options):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8769)[0x829A] = 0.02
    if kind == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.from_pillow(Image.fromarray(pixels())).save(buffer, quality=90)
        return buffer.getvalue()
    if kind not in ("BMP", "TIFF"):
        options["exif"] = exif.tobytes()
    Image.fromarray(pixels()).save(buffer, kind, **options)
    return buffer.getvalue()


def deep_tiff(*, planes=False, **options):
    buffer = io.BytesIO()
    array = pixels(dtype=np.uint16)
    if planes:
        array, options["planarconfig"] = np.ascontiguousarray(np.moveaxis(array, 2, 0)), "separate"
    tifffile.imwrite(buffer, array, photometric="rgb", **options)
    return buffer.getvalue()


def deep_png(folder):
    DeepPicture(pixels((9, 11, 4), np.uint16)).save(folder / "a.png")
    return (folder / "a.png").read_bytes()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a small file of every format and of the ways in which deep ones are stored."""
    folder = tmp_path_factory.mktemp("files")
    found = {kind: encoded(kind) for kind in FORMATS}
    found["WEBP lossless"] = encoded("WEBP", lossless=True)
    found["PNG 16"] = deep_png(folder)
    for compression in (None, "lzw", "deflate", "zstd"):
        found[f"TIFF 16 {compression}"] = deep_tiff(
            compression=compression, predictor=compression is not None
        )
    found["TIFF 16 tiled"] = deep_tiff(tile=(16, 16))
    found["TIFF 16 planar"] = deep_tiff(planes=True)
    return found


NAMES = (
    *FORMATS,
    "WEBP lossless",
    "PNG 16",
    *(f"TIFF 16 {c}" for c in (None, "lzw", "deflate", "zstd", "tiled", "planar")),
)


def decode_or_refuse(data):
    """Decode; anything but a picture or our own error fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        try:
            shown = np.asarray(decode(data, max_pixels=100_000)).size
        except ImageError as error:
            shown = len(str(error).splitlines())
        assert shown > 0


@pytest.mark.parametrize("name", NAMES)
class TestBrokenFiles:
    @settings(deadline=None, max_examples=8)
    @given(data=st.data())
    def test_truncated(self, files, name, data):
        whole = files[name]
        decode_or_refuse(whole[: data.draw(st.integers(0, len(whole) - 1))])

    @settings(deadline=None, max_examples=16)
    @given(data=st.data())
    def test_flipped_bits(self, files, name, data):
        broken = bytearray(files[name])
        # headers are where damage does most, so half of it goes there
        places = st.integers(0, 8 * min(200, len(broken)) - 1) | st.integers(0, 8 * len(broken) - 1)
        for place in data.draw(st.lists(places, min_size=1, max_size=4)):
            broken[place // 8] ^= 1 << place % 8
        decode_or_refuse(bytes(broken))

    def test_the_whole_file_is_read(self, files, name):
        channels = 4 if name == "PNG 16" else 3
        assert np.asarray(decode(files[name])).size == 9 * 11 * channels


SIDE = 50_000
MEASURE = """if True:
    import json, resource, sys, time, warnings
    from pathlib import Path
    from enhancekit.errors import ImageError
    from enhancekit.imaging.files import decode

    warnings.simplefilter("ignore")
    folder, found = Path(sys.argv[1]), {}
    for path in sorted(folder.glob("small-*")):
        decode(path)
    for path in sorted(folder.glob("huge-*")):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.process_time()
        try:
            decode(path)
        except ImageError as error:
            said = str(error)
        seconds = time.process_time() - begun
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found[path.name] = (said, seconds, (after - before) / 1024)
    print(json.dumps(found))
"""


def set_tag(data, tag):
    """Set an entry of a little-endian TIFF's first directory to the huge side."""
    (entry,) = struct.unpack_from("<I", data, 4)
    entry += 2
    while struct.unpack_from("<H", data, entry)[0] != tag:
        entry += 12
    struct.pack_into("<HII", data, entry + 2, 4, 1, SIDE)


def claiming(kind, data):
    """Change what the header says of the size, and nothing else."""
    data = bytearray(data)
    if kind == "PNG":
        data[16:24] = struct.pack(">II", SIDE, SIDE)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", SIDE, SIDE)
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", SIDE, SIDE)
    elif kind == "WEBP":
        data[24:30] = (SIDE - 1).to_bytes(3, "little") * 2
    elif kind in ("AVIF", "HEIF"):
        at = data.index(b"ispe")
        data[at + 8 : at + 16] = struct.pack(">II", SIDE, SIDE)
    else:
        set_tag(data, 256)
        set_tag(data, 257)
    return bytes(data)


class TestLimits:
    def test_a_huge_claim_costs_neither_time_nor_memory(self, files, tmp_path):
        pytest.importorskip("resource")
        kinds = [*FORMATS, "TIFF 16 lzw", "PNG 16"]
        for kind in kinds:
            (tmp_path / f"small-{kind}").write_bytes(files[kind])
            (tmp_path / f"huge-{kind}").write_bytes(claiming(kind.split()[0], files[kind]))
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        found = json.loads(done.stdout)
        assert len(found) == len(kinds)
        for name, (said, seconds, megabytes) in found.items():
            assert "too many pixels" in said or name in ("huge-AVIF", "huge-HEIF"), said
            assert seconds < 0.1, name
            assert megabytes < 50, name

    @pytest.mark.parametrize("kind", FORMATS)
    def test_exactly_as_many_as_are_allowed(self, files, kind):
        assert decode(files[kind], max_pixels=99).width in (9, 11)
        with pytest.raises(ImageError, match=r"too many pixels; at most 98 .*--max-pixels"):
            decode(files[kind], max_pixels=98)

    def test_beyond_the_limit_of_pillow(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # as it would warn of 100 megapixels
        for kind in FORMATS:
            assert decode(encoded(kind)).width in (9, 11)
        assert Image.MAX_IMAGE_PIXELS == 10

    def test_a_tile_larger_than_all(self):
        data = bytearray(deep_tiff(tile=(16, 16)))
        set_tag(data, 322)
        set_tag(data, 323)
        with pytest.raises(ImageError, match="50,000 x 50,000 are too many pixels"):
            decode(bytes(data))

    def test_more_bytes_than_the_pixels_can_need(self, tmp_path):
        path = tmp_path / "a.bmp"
        with path.open("wb") as file:
            file.truncate(2**26 + 801)  # a hole, which takes no room
        with pytest.raises(
            ImageError, match=r"a\.bmp: a file of 67,109,665 bytes is more than 100"
        ):
            decode(path, max_pixels=100)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes in folders")
    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a.png")
        with pytest.raises(ImageError, match="a device or pipe"):
            decode(tmp_path / "a.png")


class TestAllowed:
    @pytest.mark.parametrize("kind", ["EPS", "GIF", "ICO", "JPEG2000", "PDF", "PPM", "TGA"])
    def test_other_formats_of_pillow_are_refused(self, kind):
        buffer = io.BytesIO()
        Image.fromarray(pixels()).save(buffer, kind)
        with pytest.raises(ImageError, match=r"not a picture that can be read; read are AVIF"):
            decode(buffer.getvalue())
