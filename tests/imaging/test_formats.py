"""Round trips through files: depth, alpha, colour and metadata, and how files are encoded."""

from __future__ import annotations

import io
import re
import shutil
import struct
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

import enhancekit
from enhancekit.errors import ImageError, ImageWarning, OptionError
from enhancekit.imaging.colour import Profile
from enhancekit.imaging.convert import open_image
from enhancekit.imaging.formats import FORMATS, Encoding
from enhancekit.imaging.pictures import DeepPicture, check_fits, check_output, encode, write
from enhancekit.imaging.reading import decode, decode_frames
from enhancekit.imaging.shaper import shaper_of

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ADOBE = bytes(imagecodecs.cms_profile("adobergb"))
GREY = bytes(imagecodecs.cms_profile("gray", gamma=1.8))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6" r="\xc3\xa9"/></x:xmpmeta>'
ORIENTATION, MAKER, EXPOSURE, MAKER_NOTE = 0x0112, 0x010F, 0x829A, 0x927C
EXIF_IFD, GPS_IFD = 0x8769, 0x8825


def pixels(channels, dtype, size=(13, 17)):
    shape = size if channels == 1 else (*size, channels)
    top = np.iinfo(dtype).max
    return np.random.default_rng(channels).integers(0, top, shape, dtype, endpoint=True)


def exif(orientation=1):
    made = Image.Exif()
    made[MAKER], made[ORIENTATION] = "Maker", orientation
    made.get_ifd(EXIF_IFD).update({EXPOSURE: 0.02, MAKER_NOTE: b"note at offset 1234"})
    made.get_ifd(GPS_IFD)[1] = "N"
    return made.tobytes()


def picture_of(array, **info):
    deep = array.dtype == np.uint16 and array.ndim == 3
    made = DeepPicture(array) if deep else Image.fromarray(array)
    made.info.update(info)
    return made


def grey_inks():
    """Return an ICC profile of a printer all of whose inks are greys: a table of 2^4 colours."""
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    lightness = 255 * (1 - inks[:, 3]) * (1 - inks[:, :3].sum(axis=1) / 6)
    colours = np.stack((lightness, *[np.full(16, 128)] * 2), axis=1).astype(np.uint8)
    straight = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * i for i in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + 4 * straight + colours.tobytes()
    table += 3 * straight
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    head = bytes(8) + b"\2\x40\0\0prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    tags, body, at = b"", b"", 128 + 4 + 2 * 12
    for name, data in ((b"A2B0", table), (b"wtpt", white)):
        padded = data + bytes(-len(data) % 4)
        tags += name + struct.pack(">II", at + len(body), len(data))
        body += padded
    head = head.ljust(128, b"\0")
    whole = head + struct.pack(">I", 2) + tags + body
    return struct.pack(">I", len(whole)) + whole[4:]


@pytest.fixture(scope="module")
def identity():
    return enhancekit.load("identity")


@pytest.fixture(scope="module")
def brighten():
    return enhancekit.load("gamma", gamma=0.5)


def described(info):
    """What EXIF says, whatever the order of its bytes."""
    found = Image.Exif()
    found.load(info["exif"])
    parts = found.get_ifd(EXIF_IFD), found.get_ifd(GPS_IFD)
    return found[MAKER], float(parts[0][EXPOSURE]), parts[0][MAKER_NOTE], parts[1][1]


class TestIdentityRoundTrip:
    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("profile", [None, SRGB, ADOBE, GREY], ids=["-", "srgb", "adobe", "g"])
    def test_to_the_bit_with_icc_exif_and_xmp(
        self, identity, tmp_path, suffix, channels, dtype, profile
    ):
        if profile is GREY and channels > 2:
            profile = ADOBE
        array = pixels(channels, dtype)
        info = {"exif": exif(), "xmp": XMP.replace(b'"6"', b'"1"')}
        info |= {"icc_profile": profile} if profile else {}
        source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
        write(picture_of(array, **info), source)
        write(identity.enhance(source), target)
        result = decode(target)
        np.testing.assert_array_equal(np.asarray(result), array)
        assert np.asarray(result).dtype == dtype
        assert result.info.get("icc_profile") == profile
        assert result.info["xmp"] == info["xmp"]
        assert described(result.info) == ("Maker", 0.02, b"note at offset 1234", "N")
        if suffix == ".png":
            wanted = info["exif"].removeprefix(b"Exif\0\0")
            assert result.info["exif"].removeprefix(b"Exif\0\0") == wanted

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    @pytest.mark.parametrize("channels", [2, 3, 4])
    def test_others_read_what_is_written(self, tmp_path, suffix, channels):
        array = pixels(channels, np.uint16)
        path = tmp_path / f"a{suffix}"
        picture_of(array, exif=exif(), icc_profile=SRGB, xmp=XMP, dpi=(300.0, 300.0)).save(path)
        if suffix == ".png":
            shown = imagecodecs.png_decode(path.read_bytes())
        else:
            shown = tifffile.imread(path)
        np.testing.assert_array_equal(shown, array)
        if channels > 2:  # Pillow opens no 16-bit grey with alpha, and shows colour in 8 bits
            with Image.open(path) as seen:
                assert seen.info["icc_profile"] == SRGB
                assert seen.info["dpi"] == pytest.approx((300, 300), abs=0.01)
                assert seen.getexif()[MAKER] == "Maker"

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("compression", [None, "lzw", "deflate", "packbits", "zstd", "lzma"])
    @pytest.mark.parametrize("stored", ["strips", "tiles", "planes"])
    def test_deep_tiff_however_it_is_stored(self, identity, order, compression, stored):
        array = pixels(3, np.uint16, (40, 33))
        given = np.moveaxis(array, 2, 0) if stored == "planes" else array
        options = {
            "strips": {"rowsperstrip": 7},
            "tiles": {"tile": (16, 32)},
            "planes": {"planarconfig": "separate"},
        }[stored]
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer,
            np.ascontiguousarray(given),
            byteorder=order,
            photometric="rgb",
            compression=compression,
            predictor=compression not in (None, "packbits"),
            **options,
        )
        np.testing.assert_array_equal(np.asarray(identity.enhance(buffer.getvalue())), array)

    def test_interlaced_colour_and_a_transparent_colour(self, identity):
        row = struct.pack(">6H", 1000, 2000, 3000, 7, 8, 9)
        header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
        chunks = (b"IHDR", header), (b"tRNS", row[6:]), (b"IDAT", zlib.compress(b"\0" + row))
        data = b"\x89PNG\r\n\x1a\n"
        for name, body in (*chunks, (b"IEND", b"")):
            checksum = struct.pack(">I", zlib.crc32(name + body))
            data += struct.pack(">I", len(body)) + name + body + checksum
        result = identity.enhance(data)
        assert np.asarray(result).tolist() == [[[1000, 2000, 3000, 65535], [7, 8, 9, 0]]]

    def test_a_deep_picture_is_enhanced_in_all_its_depth(self, brighten, tmp_path):
        array = pixels(4, np.uint16)
        DeepPicture(array).save(tmp_path / "a.png")
        result = brighten.enhance(tmp_path / "a.png")
        assert isinstance(result, DeepPicture)
        assert (result.size, result.mode, result.format) == ((17, 13), "RGBA;16", "PNG")
        np.testing.assert_array_equal(result.pixels[..., 3], array[..., 3])
        wanted = np.sqrt(array[..., :3] / 65535) * 65535
        np.testing.assert_allclose(result.pixels[..., :3], wanted, atol=0.6)

    @pytest.mark.parametrize("strength", [0.0, 1.0])
    def test_a_deep_picture_is_taken_as_it_is(self, identity, strength):
        deep = DeepPicture(pixels(3, np.uint16), {"xmp": XMP})
        result = identity.enhance(deep, strength=strength)
        assert result.info == deep.info
        np.testing.assert_array_equal(result.pixels, deep.pixels)
        assert result.pixels is not deep.pixels

    @pytest.mark.parametrize("tag", range(1, 9))
    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_deep_pictures_are_turned_as_pillow_turns(self, tmp_path, tag, suffix):
        array = pixels(3, np.uint16)
        small = Image.fromarray((array[..., 0] // 256).astype(np.uint8))
        small.info["exif"] = exif(tag)
        write(small, tmp_path / "small.png")
        if suffix == ".png":
            write(picture_of(array, exif=exif(tag), xmp=XMP), tmp_path / "a.png")
        else:
            extra = [(ORIENTATION, "H", 1, tag), (700, "B", len(XMP), XMP)]
            tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extratags=extra)
        result = decode(tmp_path / f"a{suffix}")
        wanted = np.asarray(decode(tmp_path / "small.png"))
        np.testing.assert_array_equal(np.asarray(result)[..., 0] // 256, wanted)
        assert b'tiff:Orientation="1"' in result.info["xmp"]

    def test_of_several_frames_the_first(self, identity):
        frames = [Image.new("RGB", (8, 8), (i * 60, 0, 0)) for i in range(3)]
        for kind in ("AVIF", "PNG", "TIFF", "WEBP"):
            buffer = io.BytesIO()
            options = {"lossless": True} if kind == "WEBP" else {}
            frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
            with pytest.warns(
                ImageWarning, match=r"has several frames or pages, of which only the first"
            ):
                result = identity.enhance(buffer.getvalue())
            assert np.asarray(result).max() < 10

    def test_of_several_pictures_in_heic_the_main_one(self):
        pillow_heif = pytest.importorskip("pillow_heif")
        buffer = io.BytesIO()
        both = pillow_heif.from_pillow(Image.new("RGB", (32, 32)))
        both.add_from_pillow(Image.new("RGB", (64, 64)))
        both.save(buffer, quality=90)
        with pytest.warns(ImageWarning, match="has several frames or pages"):
            assert decode(buffer.getvalue()).size == (32, 32)

    def test_of_several_deep_pages_the_first(self):
        buffer = io.BytesIO()
        pages = np.stack([pixels(3, np.uint16)] * 2)
        tifffile.imwrite(buffer, pages, photometric="rgb", metadata=None)
        with pytest.warns(ImageWarning, match="only the first"):
            np.testing.assert_array_equal(np.asarray(decode(buffer.getvalue())), pages[0])


class TestRefusedDepths:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"photometric": "rgb", "extrasamples": ["assocalpha"]}, "premultiplied"),
            ({"photometric": "rgb", "extrasamples": ["unspecified"]}, "no stated meaning"),
            ({"photometric": "separated"}, "CMYK"),
        ],
    )
    def test_tiff_of_16_bits(self, options, said):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels(4, np.uint16), **options)
        with pytest.raises(ImageError, match=said):
            decode(buffer.getvalue())

    @pytest.mark.parametrize("dtype", ["int16", "uint32", "float16", "float64"])
    def test_tiff_of_other_samples(self, dtype):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.zeros((4, 5), dtype), photometric="minisblack")
        with pytest.raises(ImageError, match=r"samples of \d+ bits .* are not read from TIFF"):
            decode(buffer.getvalue())

    def test_grey_whose_white_is_zero(self):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels(1, np.uint16), photometric="miniswhite")
        with pytest.raises(ImageError, match="white is zero"):
            decode(buffer.getvalue())

    def test_avif_of_10_bits(self):
        data = imagecodecs.avif_encode(pixels(3, np.uint16) // 64, bitspersample=10)
        with pytest.raises(ImageError, match="10 bits a channel are not read from AVIF"):
            decode(bytes(data))

    def test_heic_of_10_bits(self):
        pillow_heif = pytest.importorskip("pillow_heif")
        buffer = io.BytesIO()
        deep = pixels(3, np.uint16, (64, 64))
        pillow_heif.from_bytes("RGB;16", (64, 64), deep.tobytes()).save(buffer, quality=90)
        with pytest.raises(ImageError, match=r"1\d bits a channel are not read from HEIC"):
            decode(buffer.getvalue())

    def test_codecs_that_are_not_installed(self, monkeypatch, tmp_path):
        DeepPicture(pixels(3, np.uint16)).save(tmp_path / "a.png")
        monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
        with pytest.raises(ImageError, match=r"a\.png: 16-bit colour needs imagecodecs; pip"):
            decode(tmp_path / "a.png")


def wide(space, gamma):
    whitepoint, primaries = {
        "adobe": ((0.3127, 0.329), (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)),
        "p3": ((0.3127, 0.329), (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
        "prophoto": ((0.3457, 0.3585), (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)),
    }[space]
    corners = [*primaries[:2], 1, *primaries[2:4], 1, *primaries[4:], 1]
    return bytes(
        imagecodecs.cms_profile("rgb", whitepoint=[*whitepoint, 1], primaries=corners, gamma=gamma)
    )


def with_curves(icc, curve):
    """Put one curve in the place of all three, at the end of the profile."""
    data = bytearray(icc)
    for number in range(struct.unpack_from(">I", data, 128)[0]):
        place = 132 + 12 * number
        if data[place : place + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            struct.pack_into(">II", data, place + 4, len(icc), len(curve))
    data += curve
    struct.pack_into(">I", data, 0, len(data))
    return bytes(data)


class TestRarerTiffs:
    @pytest.mark.parametrize("mark", ["preview", "DNG"])
    def test_raw_data_are_no_preview(self, mark):
        buffer = io.BytesIO()
        tags = [(50706, 1, 4, b"\1\4\0\0", True)] if mark == "DNG" else []
        below = {"subfiletype": 1, "subifds": 1} if mark == "preview" else {}
        with tifffile.TiffWriter(buffer) as file:
            small = np.full((12, 16, 3), 90, np.uint8)
            file.write(small, photometric="rgb", metadata=None, extratags=tags, **below)
            if below:
                file.write(np.zeros((120, 160), np.uint16), photometric=32803, metadata=None)
        with pytest.raises(ImageError, match="camera's raw data, of which only the preview"):
            decode(buffer.getvalue())

    @pytest.mark.parametrize("deep_first", [True, False])
    def test_a_page_has_nothing_of_the_page_before(self, deep_first):
        told = {"iccprofile": ADOBE, "resolution": (300, 300), "resolutionunit": 2}
        first = np.full((4, 4, 3), 60, np.uint16 if deep_first else np.uint8)
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as file:
            for pixels, more in ((first, told), (np.full((4, 4), 60, np.uint8), {})):
                kind = "rgb" if pixels.ndim == 3 else "minisblack"
                file.write(pixels, photometric=kind, metadata=None, **more)
            file.write(np.full((4, 4), 60, np.uint8), metadata=None, **told)
        pages = decode_frames(buffer.getvalue()).pictures
        assert ["icc_profile" in page.info for page in pages] == [True, False, True]
        assert [page.info.get("dpi") == (300, 300) for page in pages] == [True, False, True]

    @pytest.mark.parametrize("compression", [None, "lzw"])
    def test_grey_and_alpha_in_planes_are_refused(self, compression):
        buffer = io.BytesIO()
        planes = np.stack([np.full((8, 8), 64, np.uint8), np.full((8, 8), 200, np.uint8)])
        tifffile.imwrite(
            buffer, planes, photometric="minisblack", planarconfig="separate",
            extrasamples=["unassalpha"], compression=compression, metadata=None,
        )  # fmt: skip
        with pytest.raises(ImageError, match="grey and alpha one after the other"):
            decode(buffer.getvalue())

    @pytest.mark.parametrize("times", [1, 257])
    def test_palettes_of_8_bits(self, times):
        buffer = io.BytesIO()
        colours = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 7)])
        shown = np.tile(np.arange(256, dtype=np.uint8), (2, 1))
        colormap = (colours * times).astype(np.uint16)
        tifffile.imwrite(buffer, shown, photometric="palette", colormap=colormap, metadata=None)
        found = np.asarray(decode(buffer.getvalue()).convert("RGB"))
        np.testing.assert_array_equal(found[0], colours.T)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_an_orientation_in_xmp_alone(self, dtype):
        xmp = b'<x tiff:Orientation="6"/>'
        buffer = io.BytesIO()
        tags = [(700, 1, len(xmp), xmp, True)]
        pixels = np.zeros((4, 8, 3), dtype)
        tifffile.imwrite(buffer, pixels, photometric="rgb", metadata=None, extratags=tags)
        found = decode(buffer.getvalue())
        assert found.size == (4, 8)
        assert b'"6"' not in found.info["xmp"]

    def test_floats_whose_white_is_zero_are_refused(self):
        buffer = io.BytesIO()
        grey = np.full((8, 8), 0.25, np.float32)
        tifffile.imwrite(buffer, grey, photometric="miniswhite", metadata=None)
        with pytest.raises(ImageError, match="32 bits, white is zero, are not read"):
            decode(buffer.getvalue())


class TestColour:
    @pytest.mark.parametrize(
        ("kind", "told"),
        [("PNG", "index"), ("JPEG", "index"), ("JPEG", "space"), ("TIFF", "space")],
    )
    def test_adobe_rgb_by_exif_alone(self, brighten, kind, told):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA001] = 0xFFFF if told == "index" else 2
        if told == "index":
            exif.get_ifd(0x8769)[0xA005] = {1: "R03", 2: b"0100"}
        green = Image.new("RGB", (16, 16), (60, 160, 60))
        with_exif, with_profile = io.BytesIO(), io.BytesIO()
        green.info["exif"] = exif.tobytes()
        with_exif.write(encode(green, Path(f"a.{kind.lower()}")))
        del green.info["exif"]
        green.save(with_profile, "PNG", icc_profile=ADOBE)
        found = brighten.enhance(with_exif.getvalue())
        wanted = brighten.enhance(with_profile.getvalue())
        assert np.abs(np.asarray(found).astype(int) - np.asarray(wanted)).max() <= 2
        assert found.info["icc_profile"][36:] == ADOBE[36:]  # but for its date

    @pytest.mark.parametrize("index", [None, "R98"])
    def test_other_colour_spaces_are_srgb(self, index):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA001] = 0xFFFF
        if index:
            exif.get_ifd(0x8769)[0xA005] = {1: index}
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=exif)
        assert "icc_profile" not in decode(buffer.getvalue()).info

    def smooth(self):
        y, x = np.mgrid[0:24, 0:32].astype(np.float32)
        return np.stack((x / 40 + 0.1, y / 40 + 0.2, (x + y) / 90 + 0.1), axis=2)

    def test_the_enhancer_sees_srgb(self):
        whole = np.round(self.smooth() * 255).astype(np.uint8)
        profile = ImageCms.ImageCmsProfile(io.BytesIO(ADOBE))
        wanted = ImageCms.profileToProfile(
            Image.fromarray(whole), profile, ImageCms.createProfile("sRGB"), renderingIntent=1
        )
        opened = open_image(picture_of(whole, icc_profile=ADOBE))
        seen = opened.read()[0].permute(1, 2, 0).numpy() * 255
        assert np.abs(seen - np.asarray(wanted)).max() < 1.6  # Pillow's is rounded to 8 bits
        assert np.abs(seen - whole).max() > 10

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_the_result_is_that_of_the_same_picture_in_srgb(self, brighten, dtype):
        top = np.iinfo(dtype).max
        srgb = np.round(self.smooth() * top).astype(dtype)
        options = {"colorspace": "rgb", "outcolorspace": "rgb", "intent": 1, "flags": 0x100}
        as_adobe = imagecodecs.cms_transform(srgb, SRGB, ADOBE, **options)
        wide = np.asarray(brighten.enhance(picture_of(as_adobe, icc_profile=ADOBE)))
        back = imagecodecs.cms_transform(wide, ADOBE, SRGB, **options)
        plain = np.asarray(brighten.enhance(picture_of(srgb)))
        difference = np.abs(back.astype(float) - plain) / top
        assert difference.mean() < 0.5 / 255
        assert dtype == np.uint8 or difference.max() < 1 / 255  # 8 bits round steep dark colours
        wrong = np.asarray(brighten.enhance(picture_of(as_adobe)))
        assert np.abs(wrong.astype(float) - wide).mean() / top > 1.5 / 255

    def test_grey_under_its_own_profile(self, brighten):
        grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
        result = np.asarray(brighten.enhance(picture_of(grey, icc_profile=GREY)))
        plain = np.asarray(brighten.enhance(picture_of(grey)))
        assert result.shape == grey.shape
        assert (np.diff(result.reshape(-1).astype(int)) >= -1).all()
        assert np.abs(result.astype(int) - plain).max() > 3

    def test_srgb_costs_no_conversion(self):
        whole = pixels(3, np.uint8)
        tensor = open_image(picture_of(whole, icc_profile=SRGB)).read()
        np.testing.assert_array_equal(tensor[0].permute(1, 2, 0).numpy() * 255, whole)

    @pytest.mark.parametrize(
        ("icc", "said"), [(b"profile" * 30, "is damaged"), (ADOBE[:200], "cannot be used")]
    )
    def test_a_damaged_profile_stays_and_is_told_of(self, identity, icc, said):
        with pytest.warns(ImageWarning, match=f"profile {said}.*stays with the picture"):
            result = identity.enhance(picture_of(pixels(3, np.uint8), icc_profile=icc))
        assert result.info["icc_profile"] == icc

    @pytest.mark.parametrize("name", ["a.jpg", "a.png", "deep.png", "deep.tif", "ink.tif"])
    def test_a_warning_of_a_profile_names_the_file_each_time(self, identity, tmp_path, name):
        if name == "ink.tif":
            Image.new("CMYK", (4, 4)).save(tmp_path / name)
        else:
            whole = pixels(3, np.uint16 if "deep" in name else np.uint8)
            write(picture_of(whole, icc_profile=b"profile" * 30), tmp_path / name)
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
            path = shutil.copy(tmp_path / name, tmp_path / folder / name)
            with pytest.warns(ImageWarning, match=re.escape(str(path))):
                identity.enhance(path)

    @pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2, 2.6])
    @pytest.mark.parametrize("space", ["adobe", "p3", "prophoto"])
    def test_curves_and_matrix_as_littlecms_has_them(self, space, gamma):
        icc = wide(space, gamma)
        chance = np.random.default_rng(0).random((60, 50, 3), np.float32)
        chance[:20] *= 0.02
        chance[0, :2] = [[0, 0, 0], [1, 1, 1]]
        found = Profile(icc, "rgb")
        assert found._shaper is not None
        for given, made in (((icc, SRGB), found.to_srgb), ((SRGB, icc), found.from_srgb)):
            whole = np.round(chance * 65535).astype(np.uint16)
            wanted = imagecodecs.cms_transform(
                whole, *given, colorspace="rgb", outcolorspace="rgb", intent=1, flags=0x100
            )
            assert np.abs(made(chance) * 65535 - wanted).max() < 3

    def test_tables_are_curves_too(self):
        steps = np.linspace(0, 1, 1024) ** 2.2
        table = (
            b"curv" + struct.pack(">II", 0, 1024) + np.round(steps * 65535).astype(">u2").tobytes()
        )
        icc = with_curves(wide("p3", 2.2), table)
        chance = np.random.default_rng(0).random((40, 50, 3), np.float32)
        whole = np.round(chance * 65535).astype(np.uint16)
        seen = Profile(icc, "rgb").to_srgb(chance) * 65535
        # LittleCMS rounds light to 16 bits, which dark colours of sRGB show 13 times larger
        rough = imagecodecs.cms_transform(
            whole, icc, SRGB, colorspace="rgb", outcolorspace="rgb", intent=1, flags=0x100
        )
        assert np.abs(seen - rough).max() < 14
        plain = Profile(wide("p3", 2.2), "rgb").to_srgb(chance) * 65535
        assert np.abs(seen - plain).max() < 8  # the table itself holds 16 bits of light

    @pytest.mark.parametrize(
        "curve",
        [
            b"curv" + struct.pack(">II", 0, 10**9),
            b"curv" + struct.pack(">II4H", 0, 4, 0, 9000, 100, 65535),  # not rising
            b"curv" + struct.pack(">II2H", 0, 2, 65535, 0),
            b"para" + struct.pack(">IHHi", 0, 0, 0, -65536),
            b"para" + struct.pack(">IHH", 0, 9, 0),
            b"what" + bytes(8),
        ],
    )
    def test_curves_that_cannot_be_turned_back_are_littlecmss_matter(self, curve):
        assert shaper_of(with_curves(wide("p3", 2.2), curve)) is None

    @pytest.mark.parametrize("suffix", [".tif", ".jpg"])
    def test_cmyk_through_its_profile(self, identity, tmp_path, suffix):
        inks = np.zeros((8, 8, 4), np.uint8)
        inks[:, 4:, 1] = 255  # magenta, which the profile says is a grey
        printed = Image.fromarray(inks, "CMYK")
        printed.save(tmp_path / f"print{suffix}", icc_profile=grey_inks())
        result = identity.enhance(tmp_path / f"print{suffix}")
        assert result.mode == "RGB"
        assert "icc_profile" not in result.info
        shown = np.asarray(result).astype(int)
        assert shown[:, :4].min() > 250
        assert np.ptp(shown[:, 4:], axis=2).max() <= 2
        assert 100 < shown[:, 4:].mean() < 220

    def test_cmyk_without_a_profile(self, identity, tmp_path):
        inks = Image.fromarray(pixels(3, np.uint8)).convert("CMYK")
        inks.save(tmp_path / "print.tif")
        with pytest.warns(ImageWarning, match="CMYK picture has no profile: .* plain formula"):
            result = identity.enhance(tmp_path / "print.tif")
        np.testing.assert_array_equal(np.asarray(result), np.asarray(inks.convert("RGB")))


class TestMetadata:
    @pytest.mark.parametrize("suffix", [".avif", ".heic", ".jpg", ".png", ".tif", ".webp"])
    @pytest.mark.parametrize("metadata", ["keep", "strip"])
    def test_keep_and_strip(self, identity, tmp_path, suffix, metadata):
        if suffix == ".heic":
            pytest.importorskip("pillow_heif")
        source, target = tmp_path / "in.png", tmp_path / f"out{suffix}"
        whole = pixels(3, np.uint8, (32, 32))
        write(picture_of(whole, exif=exif(6), xmp=XMP, icc_profile=SRGB), source)
        write(identity.enhance(source), target, Encoding(metadata=metadata))
        result = decode(target)
        assert result.info["icc_profile"] == SRGB
        assert result.size == (32, 32)
        if metadata == "strip":
            assert not {"exif", "xmp"} & result.info.keys() or result.info["exif"] is None
            assert MAKER not in result.getexif()
        else:
            assert described(result.info) == ("Maker", 0.02, b"note at offset 1234", "N")
            assert b'tiff:Orientation="1"' in result.info["xmp"]
            assert result.getexif().get(ORIENTATION, 1) == 1

    def test_only_the_orientation_changes_in_exif(self, identity, tmp_path):
        write(picture_of(pixels(3, np.uint8), exif=exif(6)), tmp_path / "a.png")
        result = identity.enhance(tmp_path / "a.png")
        assert result.size == (13, 17)
        assert result.info["exif"].removeprefix(b"Exif\0\0") == exif(1).removeprefix(b"Exif\0\0")

    def test_resolution_is_kept(self, identity, tmp_path):
        for suffix in (".jpg", ".png", ".tif"):
            write(picture_of(pixels(3, np.uint8), dpi=(300.0, 150.0)), tmp_path / f"a{suffix}")
            result = identity.enhance(tmp_path / f"a{suffix}")
            assert result.info["dpi"] == pytest.approx((300, 150), abs=0.02)


class TestEncoding:
    def size(self, tmp_path, suffix, **options):
        path = tmp_path / f"a{suffix}"
        write(Image.fromarray(pixels(3, np.uint8, (64, 64))), path, Encoding(**options))
        return path.stat().st_size

    @pytest.mark.parametrize("suffix", [".jpg", ".avif", ".webp"])
    def test_quality(self, tmp_path, suffix):
        assert self.size(tmp_path, suffix, quality=30) < 0.8 * self.size(tmp_path, suffix)

    @pytest.mark.parametrize("suffix", [".jpg", ".avif"])
    def test_subsampling(self, tmp_path, suffix):
        halved = self.size(tmp_path, suffix, subsampling="4:2:0")
        assert halved < 0.9 * self.size(tmp_path, suffix)

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
    def test_avif_keeps_the_mode_and_is_near(self, tmp_path, mode):
        ramp = Image.linear_gradient("L").resize((32, 32)).convert(mode)
        if mode == "RGBA":
            ramp.putalpha(Image.radial_gradient("L").resize((32, 32)))
        write(ramp, tmp_path / "a.avif")
        result = decode(tmp_path / "a.avif")
        assert (result.mode, result.format) == (mode, "AVIF")
        assert np.abs(np.asarray(result).astype(int) - np.asarray(ramp)).mean() < 2

    def test_heic_is_near_and_upright(self, identity, tmp_path):
        pytest.importorskip("pillow_heif")
        ramp = Image.linear_gradient("L").resize((64, 32)).convert("RGB")
        write(ramp, tmp_path / "a.heic")
        result = identity.enhance(tmp_path / "a.heic")
        assert (result.size, result.format) == ((64, 32), "HEIF")
        assert np.abs(np.asarray(result).astype(int) - np.asarray(ramp)).mean() < 3

    def test_heic_without_the_extra(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
        with pytest.raises(ImageError, match=r"pip install 'enhancekit\[heic\]'"):
            decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))

    @pytest.mark.parametrize(
        ("name", "options", "said"),
        [
            ("a.jpg", {"quality": 0}, "between 1 and 100"),
            ("a.jpg", {"quality": "90"}, "between 1 and 100, not '90'"),
            ("a.jpg", {"metadata": "Strip"}, "metadata is one of keep, strip, not 'Strip'"),
            ("a.jpg", {"subsampling": "4:1:1"}, "subsampling is one of 4:4:4, .* not '4:1:1'"),
            ("a.png", {"quality": 90}, "PNG has no quality; AVIF"),
            ("a.webp", {"subsampling": "4:2:0"}, "WEBP has no choice of subsampling"),
            ("a.jpg", {"lossless": True}, "JPEG cannot be written without loss; use BMP, PNG"),
            ("a.avif", {"lossless": True}, "AVIF cannot be written without loss"),
            ("a.webp", {"lossless": True, "quality": 50}, "leave one of the two out"),
        ],
    )
    def test_options_that_a_format_has_not(self, tmp_path, name, options, said):
        with pytest.raises(OptionError, match=said):
            check_output(tmp_path / name, Encoding(**options))

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp"])
    def test_lossless(self, tmp_path, suffix):
        array = pixels(3, np.uint8)
        write(Image.fromarray(array), tmp_path / f"a{suffix}", Encoding(lossless=True))
        np.testing.assert_array_equal(np.asarray(decode(tmp_path / f"a{suffix}")), array)


class TestFits:
    @pytest.mark.parametrize(
        ("suffix", "side"), [(".webp", 16383), (".jpg", 65500), (".heic", 16384), (".avif", 32768)]
    )
    def test_size(self, tmp_path, suffix, side):
        check_fits(Image.new("RGB", (side, 1)), tmp_path / f"a{suffix}")
        with pytest.raises(ImageError, match=f"holds at most {side:,} pixels a side"):
            check_fits(Image.new("RGB", (1, side + 1)), tmp_path / f"a{suffix}")
        with pytest.raises(ImageError, match=f"not {2 * side:,} x 2"):
            check_fits(Image.new("RGB", (side, 1)), tmp_path / f"a{suffix}", scale=2)

    @pytest.mark.parametrize(("suffix", "side"), [(".webp", 16383), (".jpg", 65500)])
    def test_what_fits_can_be_written(self, tmp_path, suffix, side):
        write(Image.new("RGB", (side, 1)), tmp_path / f"a{suffix}")
        assert decode(tmp_path / f"a{suffix}").size == (side, 1)

    def test_modes_are_those_after_conversion(self, tmp_path):
        check_fits(Image.new("CMYK", (1, 1)), tmp_path / "a.jpg")
        check_fits(Image.new("P", (1, 1)), tmp_path / "a.webp")
        with pytest.raises(ImageError, match=r"cannot hold .* mode RGB;16 .*use \.png, \.tif"):
            check_fits(DeepPicture(pixels(3, np.uint16)), tmp_path / "a.jpg")

    def test_metadata_too_long_for_a_jpeg(self, tmp_path):
        long = Image.new("RGB", (1, 1))
        long.info["xmp"] = bytes(70_000)
        with pytest.raises(ImageError, match=r"70,000 bytes of XMP .*--metadata strip"):
            check_fits(long, tmp_path / "a.jpg")
        check_fits(long, tmp_path / "a.jpg", Encoding(metadata="strip"))


def test_every_format_is_read_and_written(tmp_path):
    suffixes = {"HEIF": ".heic", "JPEG": ".jpg", "TIFF": ".tif"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in FORMATS:
            if kind == "HEIF":
                pytest.importorskip("pillow_heif")
            path = tmp_path / f"a{suffixes.get(kind, '.' + kind.lower())}"
            write(Image.new("RGB", (16, 16), (9, 99, 199)), path)
            assert decode(path).format == kind


class TestWhatIsLeftOut:
    @pytest.mark.parametrize(
        ("shape", "photometric", "extra", "left"),
        [
            ((8, 8, 4), "rgb", [0], 1),
            ((8, 8, 6), "rgb", [2, 0, 0], 2),
            ((8, 8, 2), "minisblack", [0], 1),
        ],
    )
    def test_channels_without_a_meaning(self, tmp_path, shape, photometric, extra, left):
        array = np.zeros(shape, np.uint8)
        tifffile.imwrite(
            tmp_path / "a.tif", array, photometric=photometric, extrasamples=extra, metadata=None
        )
        said = rf"{left} of its {shape[2]} channels have no meaning here"
        with pytest.warns(ImageWarning, match=said):
            decode(tmp_path / "a.tif")

    def test_what_lies_below_pages(self):
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as file:
            large = np.full((32, 32, 3), 90, np.uint8)
            file.write(large, photometric="rgb", subifds=1, metadata=None)
            file.write(large[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        with pytest.warns(ImageWarning, match=r"SubIFDs.*left out"):
            assert decode(buffer.getvalue()).size == (32, 32)

    def test_tags_of_maps(self, tmp_path):
        tags = [(33550, "d", 3, (1.0, 1.0, 0.0), True)]
        pixels = np.zeros((8, 8, 3), np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=tags, metadata=None)
        with pytest.warns(ImageWarning, match=r"its tags 33550 \(GeoTIFF\) are left out"):
            decode(tmp_path / "a.tif")

    @pytest.mark.parametrize(
        ("mark", "said"),
        [
            (b"http://ns.adobe.com/xmp/extension/\0", "longer than 64 KB is not kept"),
            (b"http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version='1'/>", "gain map .* is not kept"),
        ],
    )
    def test_of_a_jpeg(self, mark, said):
        buffer = io.BytesIO()
        segment = b"\xff\xe1" + struct.pack(">H", 2 + len(mark)) + mark
        Image.new("RGB", (8, 8)).save(buffer, "JPEG", extra=segment)
        with pytest.warns(ImageWarning, match=said):
            decode(buffer.getvalue())

    def test_a_jpeg_of_very_many_scans_is_refused(self):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64)).save(buffer, "JPEG", progressive=True)
        whole = buffer.getvalue()
        assert decode(whole).size == (64, 64)
        start = whole.rindex(b"\xff\xda")
        scan = whole[start:-2]
        with pytest.raises(ImageError, match=r"\d+ scans, of which each costs"):
            decode(whole[:-2] + scan * 200 + whole[-2:])

    def test_what_follows_a_jpegs_end_is_not_counted(self):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), (9, 99, 30)).save(buffer, "JPEG")
        film = b"\x00\x00\x00\x18ftypmp42" + b"\xff\xda" * 1000
        with pytest.warns(ImageWarning, match="the film that a telephone put after its end"):
            assert decode(buffer.getvalue() + film).size == (64, 64)

    def test_bytes_inside_a_segment_are_no_scans(self):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64)).save(buffer, "JPEG", comment=b"\xff\xda" * 1000)
        assert decode(buffer.getvalue()).size == (64, 64)

    def test_colours_that_alpha_hides_stay_in_a_webp(self, tmp_path):
        array = pixels(4, np.uint8)
        array[:8, :, 3] = 0
        write(Image.fromarray(array), tmp_path / "a.webp")
        np.testing.assert_array_equal(np.asarray(decode(tmp_path / "a.webp")), array)
