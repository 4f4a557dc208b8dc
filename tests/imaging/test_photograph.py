"""What comes with a photograph: it survives `save`, and says nothing that is no longer so."""

from __future__ import annotations

import copy
import io
import struct
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, IptcImagePlugin, PngImagePlugin
from PIL.PngImagePlugin import PngInfo

import enhancekit
from enhancekit.errors import ImageError, ImageWarning, OptionError
from enhancekit.imaging.formats import Encoding
from enhancekit.imaging.pictures import DeepPicture, Photograph, write
from enhancekit.imaging.reading import decode

ORIENTATION, MAKER, EXIF, WIDTH, HEIGHT = 0x0112, 0x010F, 0x8769, 0xA002, 0xA003
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(width=24, height=16):
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8)
    )


@pytest.fixture
def photograph(tmp_path):
    """A JPEG taken with the camera on its side."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER] = 6, "Maker"
    exif.get_ifd(EXIF).update({WIDTH: 24, HEIGHT: 16})
    path = tmp_path / "photograph.jpg"
    picture().save(path, exif=exif, icc_profile=PROFILE, dpi=(300, 300), quality=95)
    return path


class TestSave:
    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
    @pytest.mark.parametrize("options", [{}, {"quality": 50}])
    def test_keeps_what_came_with_it(self, photograph, tmp_path, suffix, options):
        path = tmp_path / f"out.{suffix}"
        done = enhancekit.load("gamma").enhance(photograph)
        if options and suffix == "tif":
            with pytest.warns(ImageWarning, match="exposure and place in EXIF are left out"):
                done.save(path, **options)
        else:
            done.save(path, **options)
            with Image.open(path) as saved:
                assert saved.getexif().get_ifd(EXIF)[WIDTH] == 16
        with Image.open(path) as saved:
            assert saved.size == (16, 24)
            assert saved.info["icc_profile"] == PROFILE
            assert saved.getexif()[MAKER] == "Maker"
            assert saved.getexif().get(ORIENTATION, 1) == 1

    @pytest.mark.parametrize("to_buffer", [True, False])
    def test_exposure_in_a_tiff_that_is_asked_for_by_name(self, photograph, tmp_path, to_buffer):
        done = enhancekit.load("identity").enhance(photograph)
        target = io.BytesIO() if to_buffer else tmp_path / "a.tif"
        done.save(target, "TIFF")
        with Image.open(target) as saved:
            assert saved.getexif().get_ifd(EXIF)[WIDTH] == 16
        done.save(tmp_path / "b.dat", "TIFF")
        with Image.open(tmp_path / "b.dat") as saved:
            assert (saved.format, saved.size) == ("TIFF", (16, 24))

    def test_letters_and_notes_in_avif(self, tmp_path):
        artist = "Zoë Müller".encode()
        exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2)
        exif += struct.pack("<HHIHH", 274, 3, 1, 1, 0)
        exif += struct.pack("<HHII", 315, 2, len(artist) + 1, 38) + bytes(4) + artist + b"\0"
        (tmp_path / "a.jpg").write_bytes(jpeg(exif=exif))
        write(enhancekit.load("identity").enhance(tmp_path / "a.jpg"), tmp_path / "a.avif")
        stored = (tmp_path / "a.avif").read_bytes()
        place = stored.index(artist)
        assert stored[place - 38 : place - 34] == b"II*\0"  # where the entry says it is
        with Image.open(tmp_path / "a.avif") as saved:
            assert saved.getexif()[315].encode("latin-1") == artist

    def test_resolution(self, photograph, tmp_path):
        enhancekit.load("identity").enhance(photograph).save(tmp_path / "out.jpg")
        with Image.open(tmp_path / "out.jpg") as saved:
            assert saved.info["dpi"] == (300, 300)

    def test_jpeg_as_on_the_command_line(self, photograph, tmp_path, cli):
        enhancekit.load("gamma").enhance(photograph).save(tmp_path / "out.jpg")
        done = cli("enhance", photograph, "-o", tmp_path / "cli.jpg", "-e", "gamma")
        assert done.code == 0
        assert (tmp_path / "out.jpg").read_bytes() == (tmp_path / "cli.jpg").read_bytes()

    def test_of_an_image_opened_with_pillow(self, photograph, tmp_path):
        with Image.open(photograph) as opened:
            result = enhancekit.load("gamma").enhance(opened)
            assert opened.getexif()[ORIENTATION] == 6
        result.save(tmp_path / "out.jpg")
        with Image.open(tmp_path / "out.jpg") as saved:
            assert saved.info["icc_profile"] == PROFILE

    def test_into_a_buffer_and_into_what_only_pillow_writes(self, photograph, tmp_path):
        result = enhancekit.load("identity").enhance(photograph)
        buffer = io.BytesIO()
        result.save(buffer, "JPEG", quality=60)
        with Image.open(buffer) as saved:
            assert saved.info["icc_profile"] == PROFILE
        with pytest.warns(ImageWarning, match="GIF has no place for EXIF, a colour profile"):
            result.save(tmp_path / "out.gif")
        with Image.open(tmp_path / "out.gif") as saved:
            assert (saved.format, saved.size) == ("GIF", (16, 24))

    def test_loss_is_refused(self, tmp_path):
        result = enhancekit.load("identity").enhance(Image.new("RGBA", (4, 4)))
        with pytest.raises(ImageError, match="JPEG cannot hold a picture of mode RGBA"):
            result.save(tmp_path / "out.jpg")

    def test_is_a_pil_image_in_all_else(self, photograph):
        result = enhancekit.load("identity").enhance(photograph)
        assert isinstance(result, Image.Image)
        assert type(result.resize((3, 3))) is Image.Image
        assert copy.deepcopy(result) == result

    def test_grey_into_webp_says_why_not(self, tmp_path):
        with pytest.raises(ImageError, match=r"WEBP has no grey, so that .* come back as RGB"):
            write(Image.new("L", (4, 4)), tmp_path / "grey.webp")


class TestStatedSize:
    @pytest.mark.parametrize("options", [{}, {"quality": 50}])
    @pytest.mark.parametrize(("name", "times"), [("identity", 1), ("spline-x2", 2)])
    def test_is_that_of_the_result(self, photograph, tmp_path, name, times, options):
        enhancekit.load(name).enhance(photograph).save(tmp_path / "out.jpg", **options)
        with Image.open(tmp_path / "out.jpg") as saved:
            stated = saved.getexif().get_ifd(EXIF)
            assert (stated[WIDTH], stated[HEIGHT]) == saved.size == (16 * times, 24 * times)

    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
    def test_in_the_main_directory_too(self, tmp_path, suffix):
        exif = Image.Exif()
        exif[ORIENTATION], exif[0x100], exif[0x101] = 6, 24, 16
        picture().save(tmp_path / f"in.{suffix}", exif=exif)
        done = enhancekit.load("spline-x2").enhance(tmp_path / f"in.{suffix}")
        done.save(tmp_path / f"out.{suffix}")
        with Image.open(tmp_path / f"out.{suffix}") as saved:
            stated = saved.getexif()
            assert (stated[0x100], stated[0x101]) == saved.size == (32, 48)


def with_thumbnail(order, thumbnail, orientation=6):
    """EXIF with one tag, and a second directory that holds a thumbnail."""
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    entry = f"{order}HHII"
    turned = struct.pack(f"{order}HHIHH", ORIENTATION, 3, 1, orientation, 0)
    first = struct.pack(f"{order}IH", 8, 1) + turned + struct.pack(f"{order}I", 26)
    at = 26 + 2 + 24 + 4
    second = struct.pack(f"{order}H", 2)
    second += struct.pack(entry, 0x201, 4, 1, at) + struct.pack(entry, 0x202, 4, 1, len(thumbnail))
    return b"Exif\0\0" + mark + first + second + struct.pack(f"{order}I", 0) + thumbnail


class TestThumbnail:
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_of_the_picture_as_it_was_is_dropped(self, tmp_path, order):
        buffer = io.BytesIO()
        picture(8, 8).save(buffer, "JPEG")
        thumbnail = buffer.getvalue()
        path = tmp_path / "thumbnail.jpg"
        picture().save(path, exif=with_thumbnail(order, thumbnail))
        with Image.open(path) as opened:
            assert thumbnail in opened.info["exif"]
        result = enhancekit.load("gamma").enhance(path)
        exif = result.info["exif"]
        assert thumbnail[100:200] not in exif
        assert exif[28:32] == bytes(4)  # where the second directory's place stood
        result.save(tmp_path / "out.jpg")
        with Image.open(tmp_path / "out.jpg") as saved:
            assert saved.getexif().get(ORIENTATION) == 1
            assert saved.info["exif"] == exif

    @pytest.mark.parametrize("length", [0, 4, 10, 20, 30, 40, 60, 80])
    def test_damaged_exif_does_no_harm(self, tmp_path, length):
        path = tmp_path / "damaged.jpg"
        picture().save(path, exif=with_thumbnail("<", b"\xff" * 40)[:length] + b"\xff")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert enhancekit.load("identity").enhance(path).width in (16, 24)


def test_an_address_is_no_file():
    with pytest.raises(ImageError, match=r"^https://x\.org/a\.jpg is an address, not a file"):
        enhancekit.load("identity").enhance("https://x.org/a.jpg")


def test_big_tiff_of_16_bits(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (7, 9, 3)).astype(np.uint16)
    path = tmp_path / "big.tif"
    tifffile.imwrite(path, pixels, bigtiff=True, photometric="rgb", description="Someone's")
    read = decode(path)
    np.testing.assert_array_equal(np.asarray(read), pixels)
    exif = Image.Exif()
    exif.load(read.info["exif"])
    assert exif[270] == "Someone's"


def test_warnings_of_profiles_name_each_file(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        picture().save(tmp_path / name, icc_profile=b"damaged" * 40)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for name in ("a.jpg", "b.jpg"):
            enhancekit.load("gamma").enhance(decode(tmp_path / name))
    said = [str(w.message) for w in caught]
    assert [text.split(":")[0] for text in said] == [str(tmp_path / n) for n in ("a.jpg", "b.jpg")]


IPTC = b"\x1c\x02\x78\x00\x07Harbour"
CAPTIONS = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x0c" + IPTC
TEXTS = {"Title": "Été", "Author": "Ωmega", "Comment": "plain"}


class TestCaptions:
    @pytest.fixture
    def captioned(self, tmp_path):
        segment = b"\xff\xed" + struct.pack(">H", 2 + len(CAPTIONS)) + CAPTIONS
        path = tmp_path / "captioned.jpg"
        picture().save(path, comment=b"a comment", extra=segment)
        return path

    @pytest.fixture
    def texted(self, tmp_path):
        texts = PngInfo()
        for key, text in TEXTS.items():
            texts.add_text(key, text)
        texts.add_itxt("Place", "harbour", lang="en", tkey="Ort")
        path = tmp_path / "texted.png"
        picture().save(path, pnginfo=texts)
        return path

    @pytest.mark.parametrize("options", [{}, {"quality": 60}])
    def test_of_a_jpeg(self, captioned, tmp_path, options):
        enhancekit.load("gamma").enhance(captioned).save(tmp_path / "out.jpg", **options)
        with Image.open(tmp_path / "out.jpg") as saved:
            assert saved.info["photoshop"] == {0x0404: IPTC}
            assert saved.info["comment"] == b"a comment"
            assert IptcImagePlugin.getiptcinfo(saved) == {(2, 120): b"Harbour"}

    def test_from_jpeg_to_tiff_and_back(self, captioned, tmp_path):
        identity = enhancekit.load("identity")
        with pytest.warns(ImageWarning, match="TIFF has no place for a JPEG's comment"):
            identity.enhance(captioned).save(tmp_path / "out.tif")
        identity.enhance(tmp_path / "out.tif").save(tmp_path / "back.jpg")
        with Image.open(tmp_path / "back.jpg") as saved:
            assert saved.info["photoshop"] == {0x0404: IPTC}

    @pytest.mark.parametrize("kind", [np.uint8, np.uint16])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_of_a_tiff_as_numbers_of_32_bits(self, tmp_path, order, kind):
        numbers = struct.unpack(f"{order}3I", IPTC)
        pixels = np.full((4, 4, 3), 70, kind)
        tags = [(33723, "I", len(numbers), numbers, True)]
        with tifffile.TiffWriter(tmp_path / "in.tif", byteorder=order) as file:
            file.write(pixels, extratags=tags, photometric="rgb")
        enhancekit.load("identity").enhance(tmp_path / "in.tif").save(tmp_path / "out.tif")
        assert decode(tmp_path / "out.tif").info["iptc"] == IPTC

    @pytest.mark.parametrize("options", [{}, {"compress_level": 1}])
    def test_texts_of_a_png(self, texted, tmp_path, options):
        enhancekit.load("gamma").enhance(texted).save(tmp_path / "out.png", **options)
        with Image.open(tmp_path / "out.png") as saved:
            assert saved.text == TEXTS | {"Place": "harbour"}
            assert (saved.text["Place"].lang, saved.text["Place"].tkey) == ("en", "Ort")

    def test_texts_of_a_deep_png(self, texted, tmp_path):
        texts = decode(texted).info["text"]
        deep = DeepPicture(np.full((4, 4, 3), 700, np.uint16), {"text": texts})
        deep.save(tmp_path / "in.png")
        enhancekit.load("identity").enhance(tmp_path / "in.png").save(tmp_path / "out.png")
        assert decode(tmp_path / "out.png").info["text"] == TEXTS | {"Place": "harbour"}

    def test_of_an_image_opened_with_pillow(self, texted, captioned, tmp_path):
        for path in (texted, captioned):
            with Image.open(path) as opened:
                enhancekit.load("gamma").enhance(opened).save(tmp_path / f"out{path.suffix}")
        assert decode(tmp_path / "out.png").info["text"] == TEXTS | {"Place": "harbour"}
        assert decode(tmp_path / "out.jpg").info["comment"] == b"a comment"

    @pytest.mark.parametrize("length", [12, 13])
    def test_captions_of_a_jpeg_end_at_an_even_place(self, tmp_path, length):
        given = picture()
        given.info["iptc"] = b"\x1c" * length
        write(given, tmp_path / "a.jpg")
        data = (tmp_path / "a.jpg").read_bytes()
        place = data.index(b"Photoshop 3.0\0")
        (size,) = struct.unpack_from(">H", data, place - 2)
        assert size - 2 == len(b"Photoshop 3.0\0") + 12 + length + length % 2
        assert decode(tmp_path / "a.jpg").info["photoshop"] == {0x0404: given.info["iptc"]}

    @pytest.mark.parametrize("stated", [b'tiff:Orientation="6"', b"<tiff:Orientation>6</"])
    def test_an_orientation_that_xmp_alone_states_is_applied_and_reset(self, tmp_path, stated):
        picture().save(tmp_path / "in.webp", xmp=b"<x:xmpmeta>" + stated, lossless=True)
        done = decode(tmp_path / "in.webp")
        assert done.size == (16, 24)
        assert done.info["xmp"] == b"<x:xmpmeta>" + stated.replace(b"6", b"1")

    def test_xmp_is_not_written_twice(self, tmp_path):
        write(Photograph.of(picture()), tmp_path / "a.png")
        bare = decode(tmp_path / "a.png")
        bare.info["xmp"] = b"<x:xmpmeta/>"
        write(bare, tmp_path / "in.png")
        enhancekit.load("gamma").enhance(tmp_path / "in.png").save(tmp_path / "out.png")
        assert (tmp_path / "out.png").read_bytes().count(b"XML:com.adobe.xmp") == 1

    def test_strip_leaves_them_out(self, captioned, texted, tmp_path):
        identity = enhancekit.load("identity")
        for path in (captioned, texted):
            write(
                identity.enhance(path), tmp_path / f"out{path.suffix}", Encoding(metadata="strip")
            )
        with Image.open(tmp_path / "out.jpg") as saved:
            assert not {"comment", "photoshop"} & saved.info.keys()
        with Image.open(tmp_path / "out.png") as saved:
            assert saved.text == {}

    def test_too_long_for_a_jpeg(self, tmp_path):
        long = picture()
        long.info["iptc"] = b"\x1c" * 65506
        write(long, tmp_path / "a.jpg")
        assert decode(tmp_path / "a.jpg").info["photoshop"] == {0x0404: long.info["iptc"]}
        long.info["iptc"] += b"\x1c"
        with pytest.raises(ImageError, match=r"65,507 bytes of IPTC captions do not fit a JPEG"):
            write(long, tmp_path / "a.jpg")


class TestFromFormatToFormat:
    @pytest.mark.parametrize("first", ["webp", "avif", "png", "tif"])
    @pytest.mark.parametrize("second", ["jpg", "webp", "png", "tif", "avif"])
    def test_exif_goes_through_two_formats(self, photograph, tmp_path, first, second):
        identity = enhancekit.load("identity")
        identity.enhance(photograph).save(tmp_path / f"a.{first}")
        identity.enhance(tmp_path / f"a.{first}").save(tmp_path / f"b.{second}")
        with Image.open(tmp_path / f"b.{second}") as saved:
            assert saved.getexif()[MAKER] == "Maker"

    def test_the_longest_exif_of_a_jpeg(self, tmp_path):
        exif = Image.Exif()
        exif[MAKER] = "M" * 65000
        bare = exif.tobytes().removeprefix(b"Exif\0\0")
        whole = picture()
        whole.info["exif"] = bare + b"\0" * (65527 - len(bare))
        write(whole, tmp_path / "a.jpg")
        write(decode(tmp_path / "a.jpg"), tmp_path / "b.jpg")
        assert decode(tmp_path / "b.jpg").getexif()[MAKER] == "M" * 65000
        whole.info["exif"] += b"\0"
        with pytest.raises(ImageError, match="65,534 bytes of EXIF do not fit a JPEG"):
            write(whole, tmp_path / "a.jpg")

    def test_damaged_exif_costs_a_tiff_nothing_else(self, tmp_path):
        whole = picture()
        whole.info.update(exif=b"Exif\0\0MM\0\x19\0\0\0\x08\0\0", xmp=b"<x/>")
        with pytest.warns(ImageWarning, match="EXIF is damaged and left out of a TIFF"):
            write(whole, tmp_path / "a.tif")
        assert decode(tmp_path / "a.tif").info["xmp"] == b"<x/>"


class TestWithOptionsOfPillow:
    def test_tiff_keeps_what_its_main_directory_holds(self, photograph, tmp_path):
        done = enhancekit.load("identity").enhance(photograph)
        done.info.update(xmp=b"<x/>", iptc=IPTC)
        with pytest.warns(ImageWarning, match="exposure and place in EXIF are left out"):
            done.save(tmp_path / "a.tif", compression="tiff_lzw")
        found = decode(tmp_path / "a.tif")
        assert found.getexif()[MAKER] == "Maker"
        assert (found.info["xmp"], found.info["iptc"]) == (b"<x/>", IPTC)
        assert found.info["icc_profile"] == PROFILE

    @pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
    def test_an_open_file_is_known_by_its_name(self, tmp_path, suffix):
        done = Photograph.of(picture())
        done.info["xmp"] = b"<x/>"
        with (tmp_path / f"a.{suffix}").open("wb") as file:
            done.save(file)
        assert decode(tmp_path / f"a.{suffix}").info["xmp"] == b"<x/>"

    def test_captions_too_long_for_a_jpeg_are_refused_as_without(self, tmp_path):
        done = Photograph.of(picture())
        done.info["iptc"] = b"\x1c" * 70000
        with pytest.raises(ImageError, match="IPTC captions do not fit a JPEG"):
            done.save(tmp_path / "a.jpg", quality=80)


class TestTextsOfPngs:
    @pytest.mark.parametrize("key", ["text", "xmp", "Raw profile type xmp"])
    def test_of_a_name_that_means_something_else(self, tmp_path, key):
        texts = PngInfo()
        texts.add_text(key, "hello")
        picture().save(tmp_path / "in.png", pnginfo=texts, exif=exif_of("Maker"))
        enhancekit.load("identity").enhance(tmp_path / "in.png").save(tmp_path / "out.png")
        with Image.open(tmp_path / "out.png") as saved:
            assert saved.text == {key: "hello"}
        assert decode(tmp_path / "out.png").getexif()[MAKER] == "Maker"

    def test_of_an_image_that_is_no_file_any_more(self, tmp_path):
        bare = picture()
        bare.info["text"] = "hello"
        enhancekit.load("identity").enhance(bare).save(tmp_path / "out.png")
        assert decode(tmp_path / "out.png").size == bare.size


class TestXmpOrientation:
    @pytest.mark.parametrize("stated", [b"tiff:Orientation='6'", b'tiff:Orientation = "6"'])
    def test_what_is_not_applied_is_not_reset(self, tmp_path, stated):
        picture().save(tmp_path / "in.webp", xmp=b"<x:xmpmeta " + stated + b"/>")
        done = enhancekit.load("identity").enhance(tmp_path / "in.webp")
        assert done.size == picture().size
        assert stated in done.info["xmp"]


class TestDeepPictures:
    def test_are_equal_to_themselves_alone(self):
        deep = DeepPicture(np.zeros((2, 2, 3), np.uint16))
        assert deep == deep  # noqa: PLR0124
        assert deep != DeepPicture(deep.pixels)
        assert {deep: 1}[deep] == 1

    @pytest.mark.parametrize(
        "pixels", [np.zeros((2, 2, 1), np.uint16), np.zeros((2, 2, 3), np.uint8)]
    )
    def test_of_another_kind_are_refused(self, pixels):
        with pytest.raises(ImageError, match="a DeepPicture is uint16 of shape"):
            DeepPicture(pixels)


def exif_of(maker):
    exif = Image.Exif()
    exif[MAKER] = maker
    return exif


STORED = {
    33432: b"\xc2\xa9 2024 J\xc3\xb2n",
    315: b"M\xfcller",
    0xA430: b"\xe5\xb1\xb1\xe7\x94\xb0",
    0x12: b"Krassowski\xe9",
}
"""Texts in UTF-8 and Latin-1, of EXIF's main directory, its own and the one of GPS."""


def exif_with_texts():
    made = Image.Exif()
    fillers = {tag: f"{number}" * len(text) for number, (tag, text) in enumerate(STORED.items())}
    made[33432], made[315] = fillers[33432], fillers[315]
    made.get_ifd(EXIF)[0xA430] = fillers[0xA430]
    made.get_ifd(0x8825)[0x12] = fillers[0x12]
    data = made.tobytes()
    for tag, text in STORED.items():  # Pillow itself writes ASCII alone
        data = data.replace(fillers[tag].encode(), text)
    return data


def texts_of(path):
    with Image.open(path) as opened:
        exif = opened.getexif()
        parts = {**exif, **exif.get_ifd(EXIF), **exif.get_ifd(0x8825)}
    return {tag: parts[tag].encode("latin-1") for tag in STORED if tag in parts}


class TestTextsOfExif:
    @pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
    def test_are_the_same_bytes_everywhere(self, tmp_path, suffix):
        identity = enhancekit.load("identity")
        picture().save(tmp_path / "in.jpg", exif=exif_with_texts())
        identity.enhance(tmp_path / "in.jpg").save(tmp_path / "a.tif")
        identity.enhance(tmp_path / "a.tif").save(tmp_path / f"b.{suffix}")
        for name in ("in.jpg", "a.tif", f"b.{suffix}"):
            assert texts_of(tmp_path / name) == STORED

    def test_of_a_deep_tiff(self, tmp_path):
        deep = DeepPicture(np.full((4, 4, 3), 700, np.uint16), {"exif": exif_with_texts()})
        deep.save(tmp_path / "a.tif")
        decode(tmp_path / "a.tif").save(tmp_path / "b.png")
        assert texts_of(tmp_path / "b.png") == STORED

    def test_in_a_tiff_with_options_of_pillow(self, tmp_path):
        picture().save(tmp_path / "in.jpg", exif=exif_with_texts())
        done = enhancekit.load("identity").enhance(tmp_path / "in.jpg")
        with pytest.warns(ImageWarning, match="exposure and place in EXIF are left out"):
            done.save(tmp_path / "a.tif", compression="tiff_lzw")
        assert texts_of(tmp_path / "a.tif") == {tag: STORED[tag] for tag in (33432, 315)}

    def test_of_exif_in_a_text_of_a_png(self, tmp_path):
        data = exif_with_texts()
        texts = PngInfo()
        texts.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n", zip=True)
        picture().save(tmp_path / "in.png", pnginfo=texts)
        done = enhancekit.load("identity").enhance(tmp_path / "in.png")
        assert done.info["exif"] == data
        done.save(tmp_path / "out.png")
        assert texts_of(tmp_path / "out.png") == STORED


class TestLongProfilesAndTextsOfPngs:
    LONG = PROFILE + np.random.default_rng(0).bytes(1_200_000)

    @pytest.mark.parametrize("kind", [np.uint8, np.uint16])
    def test_a_profile_is_kept_and_told_of(self, tmp_path, kind):
        path = tmp_path / "a.png"
        pixels = np.zeros((4, 5, 3), kind)
        given = DeepPicture(pixels) if kind is np.uint16 else Image.fromarray(pixels)
        given.info["icc_profile"] = self.LONG
        said = (
            rf"a\.png: programs that read PNG with Pillow do not open .* {len(self.LONG):,} bytes"
        )
        with pytest.warns(ImageWarning, match=said):
            write(given, path)
        assert decode(path).info["icc_profile"] == self.LONG
        assert PngImagePlugin.MAX_TEXT_CHUNK == 2**20

    def test_is_told_of_with_options_of_pillow_too(self, tmp_path):
        done = Photograph.of(picture())
        done.info["icc_profile"] = self.LONG
        with pytest.warns(ImageWarning, match="programs that read PNG with Pillow"):
            done.save(tmp_path / "a.png", compress_level=1)
        done.save(tmp_path / "b.png", compress_level=1, icc_profile=None)
        write(done, tmp_path / "a.tif")

    @pytest.mark.parametrize("text", ["x" * 2_000_000, "é漢" * 700_000])
    def test_a_compressed_text_is_read(self, tmp_path, text):
        texts = PngInfo()
        texts.add_text("workflow", text, zip=True)
        picture().save(tmp_path / "a.png", pnginfo=texts)
        assert decode(tmp_path / "a.png").info["text"] == {"workflow": text}

    def test_one_beyond_the_limit_is_not_called_damage(self, tmp_path):
        texts = PngInfo()
        texts.add_text("workflow", "x" * 7_000_000, zip=True)
        picture().save(tmp_path / "a.png", pnginfo=texts)
        with pytest.raises(ImageError, match=r"a\.png: its colour profile or texts are too long"):
            decode(tmp_path / "a.png")
        assert PngImagePlugin.MAX_TEXT_CHUNK == 2**20


FILM = b"\0\0\0\x18ftypmp42" + bytes(100)


def jpeg(**options):
    buffer = io.BytesIO()
    picture().save(buffer, "JPEG", **options)
    return buffer.getvalue()


def of_two_pictures(kind):
    """A JPEG that holds another picture, which its index calls of this kind."""
    buffer = io.BytesIO()
    picture().save(buffer, "MPO", save_all=True, append_images=[picture(12, 8)])
    data = bytearray(buffer.getvalue())
    index = data.index(b"MPF\0")
    first = data.rindex(struct.pack("<I", 0x030000), index, index + 100)
    struct.pack_into("<I", data, first + 16, kind)
    return bytes(data)


def said_of(data):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ImageWarning)
        decode(data)
    return [str(w.message).split(": ", 1)[1] for w in caught]


class TestComments:
    @pytest.mark.parametrize("comment", ["A café", "日本", "Zo\xeb"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_of_a_jpeg_becomes_a_text_of_a_png(self, tmp_path, comment, dtype):
        encoding = "latin-1" if comment.startswith("Z") else "utf-8"
        stored = comment.encode(encoding)
        if dtype == np.uint8:
            (tmp_path / "a.jpg").write_bytes(jpeg(comment=stored))
            write(decode(tmp_path / "a.jpg"), tmp_path / "a.png")
        else:
            deep = DeepPicture(np.zeros((4, 4, 3), dtype), {"comment": stored}, "TIFF", "a.tif")
            write(deep, tmp_path / "a.png")
        assert decode(tmp_path / "a.png").info["text"] == {"Comment": comment}
        write(decode(tmp_path / "a.png"), tmp_path / "b.png", Encoding(metadata="strip"))
        assert not decode(tmp_path / "b.png").info.get("text")

    def test_a_text_of_that_name_goes_first(self, tmp_path):
        both = picture()
        both.info |= {"comment": b"old", "text": {"Comment": "new"}}
        write(both, tmp_path / "a.png")
        assert decode(tmp_path / "a.png").info["text"] == {"Comment": "new"}


class TestShapesOfArrays:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize(
        ("given", "left"), [({}, None), ({"site": "Oslo"}, '{"site": "Oslo"}')]
    )
    def test_what_tifffile_says_of_them_is_left_out(self, tmp_path, dtype, given, left):
        pixels = np.zeros((10, 12, 3), dtype)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", metadata=given)
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert '"shape": [10, 12, 3]' in file.pages[0].description
        enlarged = enhancekit.load("spline-x2").enhance(tmp_path / "a.tif")
        write(enlarged, tmp_path / "b.tif")
        with tifffile.TiffFile(tmp_path / "b.tif") as file:
            assert file.pages[0].description == (left or "")
            assert file.asarray().shape == (20, 24, 3)

    @pytest.mark.parametrize("text", ["A shape", '["shape"]', '{"form": 1}'])
    def test_other_descriptions_stay(self, tmp_path, text):
        tifffile.imwrite(
            tmp_path / "a.tif", np.zeros((4, 4, 3), np.uint8), description=text, metadata=None
        )
        write(decode(tmp_path / "a.tif"), tmp_path / "b.tif")
        with tifffile.TiffFile(tmp_path / "b.tif") as file:
            assert file.pages[0].description == text


class TestWhatTelephonesAdd:
    def test_a_film_is_told_of(self):
        assert said_of(jpeg()) == []
        assert said_of(jpeg() + FILM) == ["the film that a telephone put after its end is not kept"]

    @pytest.mark.parametrize("name", [b"GCamera:MotionPhoto", b"Camera:MicroVideo"])
    @pytest.mark.parametrize("form", [b'<d %b="1" %bVersion="1"/>', b"<%b>1</%b>"])
    def test_a_film_is_no_longer_claimed(self, tmp_path, name, form):
        claim = form % (name, name)
        (tmp_path / "a.jpg").write_bytes(jpeg(xmp=b"<x:xmpmeta>" + claim) + FILM)
        with pytest.warns(ImageWarning, match="film"):
            done = enhancekit.load("identity").enhance(tmp_path / "a.jpg")
        done.save(tmp_path / "b.jpg")
        assert decode(tmp_path / "b.jpg").info["xmp"] == b"<x:xmpmeta>" + claim.replace(
            b"1", b"0", 1
        )

    @pytest.mark.parametrize(
        "mark",
        [
            b'hdrgm:Version="1.0"',
            b"urn:iso:std:iso:ts:21496:-1",
            b"apple:photo:2020:aux:hdrgainmap",
        ],
    )
    def test_a_gain_map_by_any_mark(self, mark):
        assert said_of(jpeg() + mark) == ["its gain map for HDR screens is not kept"]
        told = said_of(of_two_pictures(0) + mark)
        assert told == ["its gain map for HDR screens is not kept"]

    @pytest.fixture
    def heic(self):
        pillow_heif = pytest.importorskip("pillow_heif")
        buffer = io.BytesIO()
        pillow_heif.from_pillow(picture(64, 64)).save(buffer)
        return buffer.getvalue()

    def test_a_film_in_heic(self, heic):
        assert said_of(heic) == []
        film = struct.pack(">I4s", 8 + len(FILM), b"mpvd") + FILM
        assert said_of(heic + film) == ["the film that a telephone put into it is not kept"]

    def test_what_else_stands_in_heic(self, heic, monkeypatch):
        import pillow_heif

        apple = "urn:com:apple:photo:20{}:aux:{}".format
        aux = {apple(20, "hdrgainmap"): [2], apple(18, "portraiteffectsmatte"): [3]}

        def opened(file, **options):
            found = pillow_heif.open_heif(file, **options)
            found.info.update(aux=dict(aux), depth_images=[4])
            return found

        # no encoder here writes such pictures
        library = SimpleNamespace(open_heif=opened)
        monkeypatch.setattr("enhancekit.imaging.heif._library", lambda: library)
        told = ["its gain map for HDR screens", "its map of distances"]
        masks = "what it holds besides colours, masks say,"
        assert said_of(heic) == [f"{what} is not kept" for what in (*told, masks)]
        del aux[apple(18, "portraiteffectsmatte")]
        assert said_of(heic) == [f"{what} is not kept" for what in told]

    @pytest.mark.parametrize(
        ("number", "told"), [(1999, 0), (2000, 1), (2047, 1), (2048, 1), (2997, 1), (2998, 0)]
    )
    def test_clipping_paths(self, number, told):
        mark = b"8BIM" + struct.pack(">H", number)
        said = "what Photoshop cuts it out by, its clipping path, is not kept"
        assert said_of(jpeg() + mark) == told * [said]

    @pytest.mark.parametrize("kind", [0, 0x020001, 0x020002, 0x020003])
    def test_further_pictures(self, kind):
        told = said_of(of_two_pictures(kind))
        assert told == ["further pictures in it that are no previews, 1 of them, are not kept"]

    @pytest.mark.parametrize("kind", [0x010001, 0x010002])
    def test_previews_are_none(self, kind):
        assert said_of(of_two_pictures(kind)) == []


class TestSaveOfDeepPictures:
    DEEP = DeepPicture(np.random.default_rng(0).integers(0, 65536, (4, 5, 3)).astype(np.uint16))

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_into_a_buffer(self, kind):
        buffer = io.BytesIO()
        self.DEEP.save(buffer, format=kind)
        again = decode(buffer.getvalue())
        assert again.format == kind
        np.testing.assert_array_equal(again, self.DEEP)

    def test_into_an_open_file_by_its_name(self, tmp_path):
        with (tmp_path / "a.tif").open("wb") as file:
            self.DEEP.save(file)
        assert decode(tmp_path / "a.tif").format == "TIFF"

    def test_with_a_format(self, tmp_path):
        self.DEEP.save(tmp_path / "a.png", format="PNG")
        self.DEEP.save(str(tmp_path / "b.part"), format="png")
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.part").read_bytes()
        with pytest.raises(OptionError, match=r"a\.png would not be TIFF by its suffix"):
            self.DEEP.save(tmp_path / "a.png", format="TIFF")

    def test_what_is_refused(self):
        with pytest.raises(ImageError, match="the open file: cannot write a file without a suffix"):
            self.DEEP.save(io.BytesIO())
        with pytest.raises(ImageError, match=r"the open file: JPEG cannot hold .* RGB;16"):
            self.DEEP.save(io.BytesIO(), format="JPEG")


class TestHeicWithOptions:
    @pytest.fixture(autouse=True)
    def library(self):
        pytest.importorskip("pillow_heif")

    def test_quality(self, photograph, tmp_path):
        done = enhancekit.load("identity").enhance(photograph)
        done.save(tmp_path / "a.heic", quality=95)
        done.save(tmp_path / "b.heic", quality=20)
        assert (tmp_path / "a.heic").stat().st_size > (tmp_path / "b.heic").stat().st_size
        assert decode(tmp_path / "b.heic").getexif()[MAKER] == "Maker"

    def test_into_a_buffer(self, photograph):
        buffer = io.BytesIO()
        enhancekit.load("identity").enhance(photograph).save(buffer, format="HEIF")
        assert decode(buffer.getvalue()).format == "HEIF"
