"""Limits before decoding, and nothing but our own errors from broken files."""

from __future__ import annotations

import io
import json
import lzma
import os
import random
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from enhancekit.errors import ImageError, ImageWarning
from enhancekit.imaging.formats import FORMATS, MAX_PIXELS
from enhancekit.imaging.pictures import DeepPicture
from enhancekit.imaging.reading import decode, decode_frames


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
    frames = [Image.fromarray(pixels() // (i + 1)) for i in range(3)]
    for kind in ("PNG", "WEBP", "AVIF", "TIFF"):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
        found[f"{kind} frames"] = buffer.getvalue()
    found["TIFF 16 tiled"] = deep_tiff(tile=(16, 16))
    found["TIFF 16 planar"] = deep_tiff(planes=True)
    return found


NAMES = (
    *FORMATS,
    "WEBP lossless",
    "PNG 16",
    *(f"{kind} frames" for kind in ("PNG", "WEBP", "AVIF", "TIFF")),
    *(f"TIFF 16 {c}" for c in (None, "lzw", "deflate", "zstd", "tiled", "planar")),
)


def decode_or_refuse(data):
    """Decode; anything but a picture or our own error fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageWarning)
        for read in (decode, lambda *a, **k: decode_frames(*a, **k).pictures[-1]):
            try:
                shown = np.asarray(read(data, max_pixels=100_000)).size
            except ImageError as error:
                shown = len(str(error).splitlines())
            assert shown > 0


def test_a_tiff_one_of_whose_strips_is_empty(tmp_path):
    path = tmp_path / "a.tif"
    given = pixels((8, 9, 3)).astype(np.uint16)
    tifffile.imwrite(path, given, photometric="rgb", rowsperstrip=4)
    np.testing.assert_array_equal(decode(path), given)
    with tifffile.TiffFile(path, mode="r+b") as opened:
        tag = opened.pages[0].tags["StripByteCounts"]
        tag.overwrite((tag.value[0], 0))
    with pytest.raises(ImageError, match="strips or tiles are missing"):
        decode(path)


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
        found = decode_frames(files[name]).pictures
        assert len(found) == (3 if "frames" in name else 1)
        assert {np.asarray(picture).size for picture in found} == {9 * 11 * channels}


SIDE = 50_000


def set_tag(data, tag, side=SIDE):
    """Set an entry of a little-endian TIFF's first directory, by default to the huge side."""
    (entry,) = struct.unpack_from("<I", data, 4)
    entry += 2
    while struct.unpack_from("<H", data, entry)[0] != tag:
        entry += 12
    struct.pack_into("<HII", data, entry + 2, 4, 1, side)


def claiming(kind, data, side=SIDE):
    """Change what the header says of the size, and nothing else."""
    data = bytearray(data)
    if kind == "PNG":
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", side, side)
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    elif kind == "WEBP":
        data[24:30] = (side - 1).to_bytes(3, "little") * 2
    elif kind in ("AVIF", "HEIF"):
        at = data.index(b"ispe")
        data[at + 8 : at + 16] = struct.pack(">II", side, side)
    else:
        set_tag(data, 256, side)
        set_tag(data, 257, side)
    return bytes(data)


on_linux = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="memory is measured on Linux only"
)


def costs(folder, max_pixels):
    """Return what was said of each file, and its megabytes at their height."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("memory.py"), folder, str(max_pixels)],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return json.loads(done.stdout)


def chunk(name, payload):
    checksum = struct.pack(">I", zlib.crc32(name + payload))
    return struct.pack(">I", len(payload)) + name + payload + checksum


def tiff(data, *, bits, compression, counted=None, **tags):
    """Return a TIFF of one strip or tile of 11 x 9 RGB pixels, as its directory says."""
    wanted = {
        256: 11, 257: 9, 258: (bits,) * 3, 259: compression, 262: 2, 277: 3, 339: (1,) * 3,
        278: 9, 273: 8, 279: counted or len(data),
    } | {int(tag[1:]): value for tag, value in tags.items()}  # fmt: skip
    data += b"\0" * (len(data) % 2)
    end = 8 + len(data) + 2 + 12 * len(wanted) + 4
    entries = after = b""
    for tag, value in sorted(wanted.items()):
        values = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, after = struct.pack("<I", end + len(after)), after + packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    directory = struct.pack("<H", len(wanted)) + entries + bytes(4) + after
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def bombs(files):
    """Return small files that hold, or ask for, far more than their pixels need."""
    much = bytes(32 * 2**20)
    packed = zlib.compress(much, 1)
    made = {}
    for name in ("PNG", "PNG 16"):
        start, rest = files[name][:33], files[name][33:]
        for kind, payload in {
            "iCCP": b"x\0\0",
            "zTXt": b"Raw profile type exif\0\0",
            "iTXt": b"XML:com.adobe.xmp\0\1\0\0\0",
        }.items():
            made[f"{name} {kind}"] = start + chunk(kind.encode(), payload + packed) + rest
        made[f"{name} IDAT"] = start + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    for bits in (8, 16):
        one = bytes(11 * 9 * 3 * bits // 8)
        options = {
            "deflate": {"data": packed, "compression": 8},
            "lzma": {"data": lzma.compress(much, preset=0), "compression": 34925},
            "zstd": {"data": imagecodecs.zstd_encode(much, 1), "compression": 50000},
            "lzw": {"data": imagecodecs.lzw_encode(much), "compression": 5},
            "packbits": {"data": b"\x81\0" * (len(much) // 128), "compression": 32773},
            "long strip": {"data": one, "compression": 1, "counted": 2**32 - 1},
            "long packed strip": {"data": zlib.compress(one), "compression": 8, "counted": 2**31},
            "rows": {"data": packed, "compression": 8, "t278": 2**31},
            "samples": {"data": packed, "compression": 8, "t277": 2**16 - 1},
            "tile": {"data": packed, "compression": 8, "t322": 9984, "t323": 9984},
        }
        made |= {f"TIFF {bits} {name}": tiff(bits=bits, **given) for name, given in options.items()}
    made["BMP palette"] = files["BMP"][:46] + struct.pack("<I", 2**31 - 1) + files["BMP"][50:]
    made["JPEG segment"] = files["JPEG"][:2] + b"\xff\xe2\xff\xff" + files["JPEG"][2:]
    made["WEBP chunk"] = (
        files["WEBP"][:30] + b"ICCP" + struct.pack("<I", 2**31) + files["WEBP"][30:]
    )
    made["AVIF box"] = files["AVIF"] + struct.pack(">I4sQ", 1, b"meta", 2**40)
    return made


class TestMemory:
    @on_linux
    def test_bombs(self, files, tmp_path):
        for kind in FORMATS:
            (tmp_path / f"small-{kind}").write_bytes(files[kind])
        made = bombs(files)
        for name, data in made.items():
            (tmp_path / name).write_bytes(data)
        found = costs(tmp_path, 100_000)
        assert found.keys() == made.keys()
        heavy = {name: cost for name, cost in found.items() if cost[1] > 16}
        assert heavy == {}

    @on_linux
    def test_flipped_bits(self, files, tmp_path):
        chance = random.Random(0)  # noqa: S311
        for kind, whole in files.items():
            (tmp_path / f"small-{kind}").write_bytes(whole)
            for number in range(25):
                broken = bytearray(whole)
                for _ in range(chance.randint(1, 4)):
                    last = min(200, len(broken)) if chance.random() < 0.5 else len(broken)
                    place = chance.randrange(8 * last)
                    broken[place // 8] ^= 1 << place % 8
                (tmp_path / f"{kind} {number}").write_bytes(broken)
        found = costs(tmp_path, 100_000)
        assert len(found) == 25 * len(files)
        assert {name: cost for name, cost in found.items() if cost[1] > 16} == {}

    @on_linux
    def test_what_is_measured(self, tmp_path):
        Image.new("RGB", (4000, 2000)).save(tmp_path / "large.png")
        ((_, megabytes),) = costs(tmp_path, 8_000_000).values()
        assert 24 <= megabytes < 200


class TestLimits:
    @on_linux
    @pytest.mark.parametrize(("side", "limit"), [(SIDE, MAX_PIXELS), (12_000, 100_000_000)])
    def test_a_huge_claim_costs_no_memory(self, files, tmp_path, side, limit):
        kinds = [*FORMATS, "TIFF 16 lzw", "PNG 16"]
        for kind in kinds:
            (tmp_path / f"small-{kind}").write_bytes(files[kind])
            changed = claiming(kind.split()[0], files[kind], side)
            (tmp_path / f"huge-{kind}").write_bytes(changed)
        found = costs(tmp_path, limit)
        assert len(found) == len(kinds)
        for name, (said, megabytes) in found.items():
            assert "too many pixels" in said or name in ("huge-AVIF", "huge-HEIF"), said
            assert said
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


def places(data, name):
    """Return where the payloads of a PNG's chunks of one name begin, and their lengths."""
    found, at = [], 8
    while at < len(data):
        length, its = struct.unpack_from(">I4s", data, at)
        if its == name and length:
            found.append((at + 8, length))
        at += 12 + length
    return found


class TestChecksumsOfPng:
    @pytest.fixture(scope="class")
    @classmethod
    def saved(cls):
        """A PNG with several IDAT, one of a palette with alpha, and an animation."""
        noise = Image.fromarray(pixels((300, 300, 3)))
        palette = noise.convert("P", palette=Image.Palette.ADAPTIVE)
        made = {}
        for name, options in {
            "IDAT": {},
            "PLTE": {"transparency": bytes(range(250))},
            "fdAT": {"save_all": True, "append_images": [noise.rotate(90)]},
        }.items():
            buffer = io.BytesIO()
            (palette if name == "PLTE" else noise).save(buffer, "PNG", **options)
            made[name] = buffer.getvalue()
        return made | {"tRNS": made["PLTE"], "fcTL": made["fdAT"]}

    @pytest.mark.parametrize("name", ["IDAT", "PLTE", "tRNS", "fcTL", "fdAT"])
    def test_one_wrong_byte_is_refused(self, saved, name):
        found = places(saved[name], name.encode())
        assert len(found) > 1 or name in ("PLTE", "tRNS")
        for at, length in found:
            for place in (at, at + length // 2, at + length + 3):
                broken = bytearray(saved[name])
                broken[place] ^= 0x10
                with pytest.raises(
                    ImageError, match=rf"damaged: the checksum of its chunk '{name}'"
                ):
                    decode_frames(bytes(broken))

    def test_a_chunk_larger_than_is_read_at_once(self):
        data = encoded("PNG", compress_level=0)
        (at, length), *_ = places(data, b"IDAT")
        long = zlib.decompress(data[at : at + length]) + bytes(3 * 2**20)
        whole = data[: at - 8] + chunk(b"IDAT", zlib.compress(long, 0)) + chunk(b"IEND", b"")
        assert len(whole) > 3 * 2**20
        np.testing.assert_array_equal(decode(whole), decode(data))
        with pytest.raises(ImageError, match="checksum of its chunk 'IDAT' at byte"):
            decode(whole[:-13] + b"?" + whole[-12:])

    @pytest.mark.parametrize("missing", [12, 14])
    def test_a_file_that_ends_early_but_has_all_pixels_is_read(self, saved, missing):
        assert decode(saved["IDAT"][:-missing]).size == (300, 300)

    def test_a_wrong_byte_in_a_text_after_the_pixels_costs_nothing(self, saved):
        text = bytearray(chunk(b"tEXt", b"Title\0harbour"))
        text[-1] ^= 1
        data = saved["IDAT"]
        np.testing.assert_array_equal(decode(data[:-12] + text + data[-12:]), decode(data))


class TestUnsupportedIsNotCalledDamaged:
    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize(
        ("number", "name"),
        [
            (34712, "JPEG 2000"),
            (34887, "LERC"),
            (34933, "PNG"),
            (50001, "WebP"),
            (50002, "JPEG XL"),
            (52546, "JPEG XL"),
            (40000, "number 40000"),
        ],
    )
    def test_compressions(self, bits, number, name):
        data = tiff(b"12345678", bits=bits, compression=number)
        with pytest.raises(
            ImageError, match=rf"given: samples of .* in compression {name} are not"
        ):
            decode(data)

    def test_of_deep_grey(self):
        data = tiff(b"12345678", bits=16, compression=34712, t258=16, t262=1, t277=1, t339=1)
        with pytest.raises(ImageError, match="samples of 16 bits in compression JPEG 2000 are not"):
            decode(data)

    @pytest.mark.parametrize(
        ("photometric", "extra", "said"),
        [
            ("separated", ["unassalpha"], "CMYK with extra channels, are not read"),
            ("rgb", ["unspecified", "unassalpha"], "RGB with extra channels, are not read"),
        ],
    )
    def test_channels(self, photometric, extra, said):
        buffer = io.BytesIO()
        options = {"photometric": photometric, "extrasamples": extra, "planarconfig": "contig"}
        tifffile.imwrite(buffer, pixels((4, 6, 5)), **options)
        with pytest.raises(ImageError, match=f"given: samples of 8, 8, 8, 8, 8 bits, {said}"):
            decode(buffer.getvalue())
