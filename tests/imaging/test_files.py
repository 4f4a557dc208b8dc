"""Picture files in and out."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import png as png_reference
import pytest
import tifffile
from PIL import Image, ImageCms, ImageFilter

import enhancekit
from enhancekit.errors import ImageError, ImageWarning
from enhancekit.imaging.formats import FORMATS
from enhancekit.imaging.pictures import check_output, write
from enhancekit.imaging.reading import decode, read_rgb8

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
ORIENTATIONS = CORPUS / "exif-orientation"
PNGSUITE = CORPUS / "pngsuite"
ORIENTATION, MAKER, ARTIST = 0x0112, 0x010F, 0x013B

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PILLOW_FORMATS = [f for f in FORMATS if f != "HEIF"]

TURN = Image.Transpose
STORED = {
    1: None,
    2: TURN.FLIP_LEFT_RIGHT,
    3: TURN.ROTATE_180,
    4: TURN.FLIP_TOP_BOTTOM,
    5: TURN.TRANSPOSE,
    6: TURN.ROTATE_90,
    7: TURN.TRANSVERSE,
    8: TURN.ROTATE_270,
}
"""How the sensor's pixels lie in the file for each value of the EXIF tag."""


def upright():
    """A smooth picture in which no turn or mirror image looks like another."""
    y, x = np.mgrid[0:16, 0:24]
    channels = (x * 10, y * 15, ((x > 12) & (y > 8)) * 200)
    pixels = np.stack(channels, axis=2).astype(np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))


def exif(orientation=None):
    made = Image.Exif()
    made[MAKER], made[ARTIST] = "Maker", "Someone"
    if orientation is not None:
        made[ORIENTATION] = orientation
    return made


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, payload):
    body = name + payload
    return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, depth, colour, extra=b""):
    """A PNG of zeros, written by hand, since Pillow cannot write 16 bits in colour."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    row = b"\0" + bytes(width * channels * depth // 8)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + extra
        + chunk(b"IDAT", zlib.compress(row * height))
        + chunk(b"IEND", b"")
    )


def difference(a, b):
    return np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean()


@pytest.fixture(scope="module")
def identity():
    return enhancekit.load("identity")


class TestOrientation:
    @pytest.mark.parametrize("tag", range(1, 9))
    @pytest.mark.parametrize("kind", ["AVIF", "JPEG", "PNG", "TIFF", "WEBP"])
    def test_upright_and_the_tag_gone(self, tag, kind):
        stored = upright() if STORED[tag] is None else upright().transpose(STORED[tag])
        lossy = kind in ("AVIF", "JPEG")
        options = {"quality": 95, "subsampling": "4:4:4"} if lossy else {}
        options |= {"lossless": True} if kind == "WEBP" else {}
        result = decode(encoded(stored, kind, exif=exif(tag), **options))
        assert result.size == (24, 16)
        assert difference(result, upright()) < (3 if lossy else 1e-9)
        assert result.getexif().get(ORIENTATION, 1) == 1
        assert result.format == kind

    @pytest.mark.parametrize("tag", range(2, 9))
    def test_upright_once_more_after_writing(self, identity, tmp_path, tag):
        source, target = tmp_path / "in.jpg", tmp_path / "out.png"
        upright().transpose(STORED[tag]).save(source, quality=95, exif=exif(tag))
        write(identity.enhance(source), target)
        with Image.open(target) as again:
            assert again.getexif().get(ORIENTATION, 1) == 1
            assert again.getexif()[ARTIST] == "Someone"
            assert difference(again, upright()) < 3
        assert difference(decode(target), upright()) < 3

    @pytest.mark.parametrize("tag", [0, 9, 255])
    def test_a_meaningless_tag_is_ignored(self, tag):
        assert difference(decode(encoded(upright(), "PNG", exif=exif(tag))), upright()) == 0

    def test_the_test_picture_tells_all_eight_apart(self):
        square = upright().resize((16, 16))
        others = [square.transpose(t) for t in STORED.values() if t is not None]
        assert min(difference(square, other) for other in others) > 10


class TestMetadata:
    @pytest.mark.parametrize(
        ("suffix", "kind"),
        [(".png", "PNG"), (".jpg", "JPEG"), (".tiff", "TIFF"), (".tif", "TIFF"), (".webp", "WEBP")],
    )
    def test_icc_and_exif_are_kept(self, identity, tmp_path, suffix, kind):
        source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
        upright().save(source, kind, exif=exif(), icc_profile=SRGB)
        write(identity.enhance(source), target)
        with Image.open(target) as result:
            assert result.format == kind
            assert result.info["icc_profile"] == SRGB
            assert result.getexif()[MAKER] == "Maker"
            assert result.getexif()[ARTIST] == "Someone"

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
    def test_exif_bytes_are_the_same(self, identity, tmp_path, suffix):
        source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
        upright().save(source, exif=exif())
        write(identity.enhance(source), target)
        prefix = b"Exif\0\0"
        with Image.open(source) as before, Image.open(target) as after:
            wanted = before.info["exif"].removeprefix(prefix)
            assert after.info["exif"].removeprefix(prefix) == wanted
            assert b"Someone" in wanted

    @pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp"])
    def test_from_one_format_to_another(self, identity, tmp_path, suffix):
        source, target = tmp_path / "in.jpg", tmp_path / f"out{suffix}"
        upright().save(source, exif=exif(), icc_profile=SRGB)
        write(identity.enhance(source), target)
        with Image.open(target) as result:
            assert result.info["icc_profile"] == SRGB
            assert result.getexif()[ARTIST] == "Someone"

    def test_a_tiff_gives_its_exif_to_a_jpeg(self, identity, tmp_path):
        source, target = tmp_path / "in.tiff", tmp_path / "out.jpg"
        upright().save(source, exif=exif())
        write(identity.enhance(source), target)
        with Image.open(target) as result:
            assert result.getexif()[ARTIST] == "Someone"

    def test_bmp_is_written_without_them(self, identity, tmp_path):
        source, target = tmp_path / "in.jpg", tmp_path / "out.bmp"
        upright().save(source, quality=95, exif=exif(), icc_profile=SRGB)
        with pytest.warns(ImageWarning, match=r"BMP has no place for EXIF, a colour profile"):
            write(identity.enhance(source), target)
        assert difference(decode(target), decode(source)) == 0

    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_damaged_exif_does_not_cost_the_picture(self, kind):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(upright(), kind, exif=b"Exif\0\0no EXIF at all", **options)
        with pytest.warns(ImageWarning, match="EXIF cannot be read and is left out"):
            result = decode(data)
        assert difference(result, upright()) == 0
        assert "exif" not in result.info


class TestDepth:
    @pytest.mark.parametrize("suffix", [".png", ".tiff"])
    def test_deep_grey_is_exact(self, identity, tmp_path, suffix):
        pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
        write(Image.fromarray(pixels), source)
        write(identity.enhance(source), target)
        result = decode(target)
        assert result.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(result), pixels)

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_deep_grey_tiff_of_either_byte_order(self, identity, order):
        pixels = np.arange(0, 65536, 7, dtype=np.uint16)[:9300].reshape(93, 100)
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, byteorder=order, photometric="minisblack")
        result = identity.enhance(buffer.getvalue())
        np.testing.assert_array_equal(np.asarray(result), pixels)

    def test_float_tiff_is_exact(self, identity, tmp_path):
        pixels = np.random.default_rng(0).random((5, 7), np.float32)
        write(Image.fromarray(pixels), tmp_path / "in.tiff")
        write(identity.enhance(tmp_path / "in.tiff"), tmp_path / "out.tiff")
        np.testing.assert_array_equal(np.asarray(decode(tmp_path / "out.tiff")), pixels)

    def test_the_same_png_in_8_bits_is_read(self):
        assert decode(png(5, 3, 8, 2)).size == (5, 3)
        assert decode(png(5, 3, 16, 0)).mode == "I;16"


class TestRefused:
    @pytest.mark.parametrize("animated", [True, False])
    def test_gif(self, animated):
        frames = [Image.new("RGB", (8, 8), (i * 60, 0, 0)) for i in range(3)]
        data = encoded(frames[0], "GIF", save_all=animated, append_images=frames[animated:])
        with pytest.raises(ImageError, match=r"not a picture that can be read.*PNG"):
            decode(data)

    def test_one_frame_of_an_animation_format_is_read(self):
        data = encoded(upright(), "WEBP", save_all=True, lossless=True)
        assert difference(decode(data), upright()) == 0

    @pytest.mark.parametrize("kind", PILLOW_FORMATS)
    @pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
    def test_truncated(self, kind, share):
        noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(Image.fromarray(noise), kind, **options)
        with pytest.raises(ImageError):
            decode(data[: int(len(data) * share)])

    @pytest.mark.parametrize("kind", PILLOW_FORMATS)
    def test_random_damage_raises_nothing_else(self, kind):
        options = {"lossless": True} if kind == "WEBP" else {}
        whole = encoded(upright(), kind, exif=exif(), **options)
        random = np.random.default_rng(1)
        refused = 0
        for _ in range(60):
            data = bytearray(whole)
            for place in random.integers(0, len(data), 4):
                data[place] = random.integers(0, 256)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ImageWarning)
                    decode(bytes(data))
            except ImageError:
                refused += 1
        assert kind in ("BMP", "TIFF") or refused > 0

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "empty"),
            (b"just text\n", "not a picture that can be read"),
            (bytes(1000), "not a picture that can be read"),
            (b"\x89PNG\r\n\x1a\n", "damaged|not a picture"),
            (b"\xff\xd8\xff", "damaged|not a picture"),
            (b"%PDF-1.7", "not a picture that can be read"),
        ],
    )
    def test_garbage_names_the_file(self, tmp_path, content, said):
        path = tmp_path / "holiday.jpg"
        path.write_bytes(content)
        with pytest.raises(ImageError, match=said) as caught:
            decode(path)
        assert "holiday.jpg" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_missing_file(self, tmp_path):
        with pytest.raises(ImageError, match=r"nowhere\.png does not exist"):
            decode(tmp_path / "nowhere.png")

    def test_folder(self, tmp_path):
        with pytest.raises(ImageError, match="is a folder, not a picture"):
            decode(tmp_path)

    def test_a_name_that_cannot_be(self):
        with pytest.raises(ImageError, match="cannot be read: embedded null"):
            decode("a\0b.png")

    def test_file_as_a_folder(self, tmp_path):
        (tmp_path / "a").write_bytes(b"x")
        with pytest.raises(ImageError, match="cannot be read"):
            decode(tmp_path / "a" / "b.png")


class TestResolution:
    @pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "deep"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_turns_with_the_picture(self, tmp_path, kind, orientation):
        path = tmp_path / "a"
        if kind == "deep":
            how = {"resolution": (200, 100), "resolutionunit": 2, "photometric": "rgb"}
            tags = [(274, 3, 1, orientation, True)]
            tifffile.imwrite(path, np.zeros((10, 20, 3), np.uint16), extratags=tags, **how)
        else:
            turn = Image.Exif()
            turn[274], turn[282], turn[283] = orientation, 200.0, 100.0
            Image.new("RGB", (20, 10)).save(path, kind, dpi=(200, 100), exif=turn)
        found = decode(path)
        sideways = orientation >= 5
        assert found.size == ((10, 20) if sideways else (20, 10))
        assert [round(float(d)) for d in found.info["dpi"]] == (
            [100, 200] if sideways else [200, 100]
        )
        if kind == "JPEG":
            told = [found.getexif()[tag] for tag in (282, 283)]
            assert told == ([100, 200] if sideways else [200, 100])


class TestTrainingPictures:
    def test_rgb(self, tmp_path):
        upright().save(tmp_path / "a.png")
        pixels = read_rgb8(tmp_path / "a.png")
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, np.asarray(upright()))

    def test_grey_is_repeated(self, tmp_path):
        upright().convert("L").save(tmp_path / "a.png")
        pixels = read_rgb8(tmp_path / "a.png")
        for channel in range(3):
            np.testing.assert_array_equal(pixels[..., channel], upright().convert("L"))

    def test_palette(self, tmp_path):
        palette = upright().quantize(32)
        palette.save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_rgb8(tmp_path / "a.png"), palette.convert("RGB"))

    def test_another_profile_than_srgb_is_refused(self, tmp_path):
        upright().save(tmp_path / "a.png", icc_profile=SRGB)
        np.testing.assert_array_equal(read_rgb8(tmp_path / "a.png"), np.asarray(upright()))
        adobe = bytes(imagecodecs.cms_profile("adobergb"))
        upright().save(tmp_path / "b.png", icc_profile=adobe)
        with pytest.raises(ImageError, match=r"b\.png: its colour profile is not sRGB"):
            read_rgb8(tmp_path / "b.png")

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16"])
    def test_others_are_refused(self, tmp_path, mode):
        Image.new(mode, (5, 4)).save(tmp_path / "a.png")
        with pytest.raises(ImageError, match=rf"a\.png: mode {mode}.*8-bit RGB"):
            read_rgb8(tmp_path / "a.png")

    @pytest.mark.parametrize("key", [3, bytes(range(0, 160, 10))], ids=["one", "table"])
    def test_a_palette_with_alpha_is_refused(self, tmp_path, key):
        upright().quantize(16).save(tmp_path / "a.png", transparency=key)
        with pytest.raises(ImageError, match=r"a\.png"):
            read_rgb8(tmp_path / "a.png")


class TestWrite:
    @pytest.mark.parametrize(
        ("mode", "suffix"),
        [
            *((m, ".png") for m in ("L", "LA", "RGB", "RGBA", "I;16")),
            *((m, ".tif") for m in ("L", "LA", "RGB", "RGBA", "I;16", "F")),
            *((m, ".webp") for m in ("RGB", "RGBA")),
            *((m, ".bmp") for m in ("L", "RGB")),
        ],
    )
    def test_what_is_lossless_is_exact(self, tmp_path, mode, suffix):
        random = np.random.default_rng(0)
        channels = {"LA": (2,), "RGB": (3,), "RGBA": (4,)}.get(mode, ())
        pixels = random.integers(1, 256, (6, 9, *channels))
        pixels = pixels.astype({"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8))
        if mode == "F":
            pixels /= 255
        write(Image.fromarray(pixels), tmp_path / f"a{suffix}")
        result = decode(tmp_path / f"a{suffix}")
        assert result.mode == mode
        np.testing.assert_array_equal(np.asarray(result), pixels)

    @pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
    def test_jpeg_is_near(self, tmp_path, suffix):
        write(upright(), tmp_path / f"a{suffix}")
        assert decode(tmp_path / f"a{suffix}").format == "JPEG"
        assert difference(decode(tmp_path / f"a{suffix}"), upright()) < 3

    @pytest.mark.parametrize(
        ("mode", "suffix", "able"),
        [
            ("RGBA", ".jpg", ".png"),
            ("LA", ".jpg", ".png"),
            ("I;16", ".jpg", ".png"),
            ("I;16", ".webp", ".tiff"),
            ("F", ".png", ".tiff"),
            ("RGBA", ".bmp", ".webp"),
            ("CMYK", ".png", "another mode"),
        ],
    )
    def test_what_would_be_lost_is_refused_and_nothing_written(self, tmp_path, mode, suffix, able):
        with pytest.raises(ImageError, match=f"cannot hold.*mode {mode}") as caught:
            write(Image.new(mode, (4, 3)), tmp_path / f"a{suffix}")
        assert able in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_permissions_are_those_of_any_new_file(self, tmp_path):
        (tmp_path / "other").write_bytes(b"")
        write(upright(), tmp_path / "a.png")
        wanted = (tmp_path / "other").stat().st_mode
        assert (tmp_path / "a.png").stat().st_mode == wanted

    def test_an_existing_file_is_replaced(self, tmp_path):
        path = tmp_path / "a.png"
        path.write_bytes(b"old")
        write(upright(), str(path))
        assert difference(decode(path), upright()) == 0
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("error", [OSError(28, "No space left"), ValueError("bad value")])
    def test_a_failure_leaves_everything_as_it_was(self, tmp_path, monkeypatch, error):
        def save(self, file, **_options):
            file.write(b"half a picture")
            raise error

        monkeypatch.setattr(Image.Image, "save", save)
        path = tmp_path / "a.png"
        path.write_bytes(b"precious")
        with pytest.raises(ImageError, match=r"a\.png cannot be written: .*(No space|bad value)"):
            write(upright(), path)
        assert path.read_bytes() == b"precious"
        assert list(tmp_path.iterdir()) == [path]

    def test_an_interrupt_leaves_nothing_behind(self, tmp_path, monkeypatch):
        def save(self, file, **_options):
            raise KeyboardInterrupt

        monkeypatch.setattr(Image.Image, "save", save)
        with pytest.raises(KeyboardInterrupt):
            write(upright(), tmp_path / "a.png")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp"])
    def test_exif_that_cannot_be_written_raises_nothing_else(self, tmp_path, suffix):
        damaged = upright()
        damaged.info["exif"] = b"Exif\0\0no EXIF at all"
        try:
            write(damaged, tmp_path / f"a{suffix}")
        except ImageError:
            assert list(tmp_path.iterdir()) == []
        else:
            with Image.open(tmp_path / f"a{suffix}") as result:
                assert difference(result.convert("RGB"), upright()) < 3


class TestCheckOutput:
    @pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpeg", ".tif", ".webp", ".bmp"])
    def test_fine(self, tmp_path, suffix):
        check_output(tmp_path / f"a{suffix}")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["a.gif", "a.txt", "a.eps", "a"])
    def test_suffix(self, tmp_path, name):
        with pytest.raises(ImageError, match=r"cannot write .*written are.*\.png"):
            check_output(tmp_path / name)

    def test_folder(self, tmp_path):
        (tmp_path / "a.png").mkdir()
        with pytest.raises(ImageError, match="is a folder; give the name of a file"):
            check_output(tmp_path / "a.png")

    def test_missing_folder(self, tmp_path):
        with pytest.raises(ImageError, match=r"there is no folder .*nowhere"):
            check_output(tmp_path / "nowhere" / "a.png")

    @pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() == 0, reason="root may write anywhere")
    def test_no_permission(self, tmp_path):
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(ImageError, match="no permission"):
                check_output(tmp_path / "a.png")
        finally:
            tmp_path.chmod(0o700)

    def test_no_permission_as_the_system_says(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(ImageError, match="no permission to write"):
            write(upright(), tmp_path / "a.png")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not ORIENTATIONS.is_dir(), reason="the corpus is not on this machine")
class TestOrientationCorpus:
    @pytest.mark.parametrize("prefix", ["Landscape", "Portrait"])
    @pytest.mark.parametrize("tag", range(9))
    def test_upright(self, prefix, tag):
        wanted = decode(ORIENTATIONS / f"{prefix}_0.jpg")
        result = decode(ORIENTATIONS / f"{prefix}_{tag}.jpg")
        assert result.size == wanted.size
        small = [p.convert("RGB").reduce(4) for p in (result, wanted)]
        assert difference(*small) < 10
        assert result.getexif().get(ORIENTATION, 1) not in range(2, 9)


def suite():
    return sorted(PNGSUITE.glob("*.png")) if PNGSUITE.is_dir() else []


@pytest.mark.skipif(not PNGSUITE.is_dir(), reason="the corpus is not on this machine")
class TestPngSuite:
    def test_the_suite_is_whole(self):
        broken = [p for p in suite() if p.stem.startswith("x")]
        assert (len(suite()) - len(broken), len(broken)) == (161, 14)

    @pytest.mark.parametrize("path", suite(), ids=lambda p: p.stem)
    def test_read_as_the_reference_does_or_refused(self, identity, path):
        broken = path.stem.startswith("x")
        try:
            result = identity.enhance(path)
        except ImageError:
            assert broken
        else:
            assert not broken
            assert_as_pypng(result, path)


def assert_as_pypng(result, path):
    """Compare with a decoder of its own, in pure Python, to the bit."""
    reader = png_reference.Reader(bytes=path.read_bytes())
    reader.preamble()
    reader.sbit = None  # what the bits once meant; pypng would shift them out
    _, _, rows, described = reader.asDirect()
    wanted = np.array([list(row) for row in rows], np.int64)
    wanted = wanted.reshape(len(wanted), -1, described["planes"])
    shown = np.asarray(result).astype(np.int64)
    shown = shown.reshape(*shown.shape[:2], -1)
    assert shown.shape == wanted.shape
    full = 2 ** described["bitdepth"] - 1
    if full > 255:
        assert np.asarray(result).dtype == np.uint16
    else:
        wanted = wanted * 255 // full
    np.testing.assert_array_equal(shown, wanted)
