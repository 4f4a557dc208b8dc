"""Animations and files of several pages: every picture in, every picture out, with its time."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageSequence

import enhancekit
from enhancekit.batch import enhance_folder
from enhancekit.errors import ImageError
from enhancekit.imaging.pictures import DeepPicture, write
from enhancekit.imaging.reading import decode_frames

TIMES = [100, 40, 70]
ANIMATED = ["PNG", "WEBP", "AVIF"]


def noise(seed, shape=(8, 9, 3), dtype=np.uint8):
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, shape, dtype, endpoint=True)


def animation(path, kind, mode="RGB", **options):
    frames = [Image.fromarray(noise(i)).convert(mode) for i in range(3)]
    options |= {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}}.get(kind, {})
    if kind != "AVIF":
        options.setdefault("loop", 2)
    options.setdefault("duration", TIMES)
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], **options)
    return path


def shown(path):
    """Return an animation's frames, their times, and how often it is shown."""
    with Image.open(path) as file:
        frames, times = [], []
        for frame in ImageSequence.Iterator(file):
            frame.load()
            frames.append(np.array(frame))
            times.append(round(frame.info.get("duration", 0)))
        return frames, times, file.info.get("loop")


class TestAnimations:
    @pytest.mark.parametrize("kind", ANIMATED)
    @pytest.mark.parametrize("mode", ["RGB", "RGBA"])
    def test_all_frames_with_their_times(self, cli, tmp_path, kind, mode):
        source = animation(tmp_path / f"in.{kind.lower()}", kind, mode)
        target = tmp_path / f"out.{kind.lower()}"
        given = ("--quality", 100) if kind == "AVIF" else ()
        done = cli("enhance", source, "-o", target, "-e", "gamma", "--frames", "all", *given)
        assert (done.code, done.err) == (0, "")
        before, times, loop = shown(source)
        after, kept_times, kept_loop = shown(target)
        assert kept_times == times == TIMES
        assert kept_loop == loop
        assert len(after) == 3
        gamma = enhancekit.load("gamma")
        for one, other in zip(before, after, strict=True):
            wanted = gamma.enhance(one).astype(int)
            assert np.abs(wanted - other).max() <= (40 if kind == "AVIF" else 0)
            assert np.abs(wanted - other).mean() <= (6 if kind == "AVIF" else 0)

    @pytest.mark.parametrize("suffix", [".png", ".webp"])
    def test_from_one_kind_to_another(self, cli, tmp_path, suffix):
        source = animation(tmp_path / "in.webp", "WEBP")
        target = tmp_path / f"out{suffix}"
        cli("enhance", source, "-o", target, "-e", "identity", "--frames", "all")
        before, after = shown(source), shown(target)
        np.testing.assert_array_equal(after[0], before[0])
        assert after[1:] == before[1:]

    def test_a_picture_shown_instead_of_the_animation(self, tmp_path):
        times = {"default_image": True, "duration": TIMES[1:]}
        source = animation(tmp_path / "in.png", "PNG", **times)
        write(decode_frames(source), tmp_path / "out.png")
        for path in (source, tmp_path / "out.png"):
            with Image.open(path) as file:
                assert file.info["default_image"]
                assert file.n_frames == 3
        assert shown(tmp_path / "out.png")[1:] == shown(source)[1:]
        np.testing.assert_array_equal(shown(tmp_path / "out.png")[0], shown(source)[0])

    def test_a_palette_with_a_transparent_colour(self, tmp_path):
        frames = [Image.fromarray(noise(i, (8, 9)) % 4, "P") for i in range(3)]
        for frame in frames:
            frame.putpalette(list(range(12)))
        frames[0].save(
            tmp_path / "in.png", save_all=True, append_images=frames[1:], transparency=1, duration=9
        )
        found = decode_frames(tmp_path / "in.png").pictures
        identity = enhancekit.load("identity")
        for frame, given in zip(found, frames, strict=True):
            alpha = np.asarray(identity.enhance(frame))[..., 3]
            np.testing.assert_array_equal(alpha == 0, np.asarray(given) == 1)

    @pytest.mark.parametrize(
        ("suffix", "name"), [(".jpg", "JPEG"), (".tif", "TIFF"), (".bmp", "BMP")]
    )
    def test_formats_without_animation(self, cli, tmp_path, suffix, name):
        source = animation(tmp_path / "in.webp", "WEBP")
        target = tmp_path / f"out{suffix}"
        done = cli("enhance", source, "-o", target, "-e", "identity", "--frames", "all")
        assert done.code == 1
        assert f"{name} does not hold 3 frames of an animation; use .avif, .png, .webp" in done.err
        assert not target.exists()

    def test_the_first_alone_unless_asked(self, cli, tmp_path):
        source = animation(tmp_path / "in.webp", "WEBP")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            done = cli("enhance", source, "-o", tmp_path / "out.webp", "-e", "identity")
        assert done.code == 0
        assert "only the first is read (`enhancekit enhance --frames all` takes all)" in done.err
        assert len(shown(tmp_path / "out.webp")[0]) == 1

    def test_of_16_bits(self, tmp_path):
        data = bytearray()
        DeepPicture(noise(0, dtype=np.uint16)).save(tmp_path / "deep.png")
        data += (tmp_path / "deep.png").read_bytes()
        control = b"acTL" + struct.pack(">II", 2, 0)
        frame = b"fcTL" + struct.pack(">IIIIIHHBB", 0, 9, 8, 0, 0, 1, 10, 0, 0)
        second = b"fcTL" + struct.pack(">IIIIIHHBB", 1, 9, 8, 0, 0, 1, 10, 0, 0)
        body = data[data.index(b"IDAT") + 4 : data.index(b"IEND") - 8]

        def chunk(payload):
            return (
                struct.pack(">I", len(payload) - 4)
                + payload
                + struct.pack(">I", zlib.crc32(payload))
            )

        extra = chunk(second) + chunk(b"fdAT" + struct.pack(">I", 2) + body)
        end = data.index(b"IEND") - 4
        whole = data[:33] + chunk(control) + chunk(frame) + data[33:end] + extra + data[end:]
        with pytest.raises(ImageError, match="animations of 16 bits a channel are not read"):
            decode_frames(bytes(whole))

    def test_all_frames_count_against_the_limit(self, tmp_path):
        for kind in ANIMATED:
            source = animation(tmp_path / f"in.{kind.lower()}", kind)
            assert len(decode_frames(source, max_pixels=3 * 72).pictures) == 3
            with pytest.raises(ImageError, match="3 times 9 x 8 are too many pixels"):
                decode_frames(source, max_pixels=3 * 72 - 1)


PAGES = [
    noise(0), noise(1, (5, 6)), noise(2, (7, 4, 4)), noise(3, (6, 5, 3), np.uint16),
    noise(4, (3, 8), np.uint16), noise(5, (4, 4, 2), np.uint16),
]  # fmt: skip


@pytest.fixture
def pages(tmp_path):
    """Return a TIFF of pages that differ in everything."""
    with tifffile.TiffWriter(tmp_path / "in.tif") as file:
        for i, page in enumerate(PAGES):
            colour = page.ndim == 3 and page.shape[2] > 2
            extra = ["unassalpha"] if page.ndim == 3 and page.shape[2] in (2, 4) else None
            file.write(
                page,
                photometric="rgb" if colour else "minisblack",
                planarconfig="contig",
                extrasamples=extra,
                resolution=(72 + i, 72 + i),
                resolutionunit=2,
                extratags=[(305, 2, 0, f"page {i}", True)],
                metadata=None,
                software=False,
            )
    return tmp_path / "in.tif"


class TestPages:
    def test_all_to_the_bit(self, cli, tmp_path, pages):
        target = tmp_path / "out.tif"
        done = cli("enhance", pages, "-o", target, "-e", "identity", "--frames", "all")
        assert (done.code, done.err) == (0, "")
        with tifffile.TiffFile(target) as file:
            assert len(file.pages) == len(PAGES)
            for page, wanted in zip(file.pages, PAGES, strict=True):
                np.testing.assert_array_equal(page.asarray(), wanted)
                assert page.offset % 2 == 0
        found = decode_frames(target).pictures
        assert [p.info["dpi"][0] for p in found] == pytest.approx([72 + i for i in range(6)])
        made = [Image.Exif() for _ in found]
        for exif, picture in zip(made, found, strict=True):
            exif.load(picture.info["exif"])
        assert [exif[305] for exif in made] == [f"page {i}" for i in range(6)]
        with Image.open(target) as file:  # and others find them, too
            file.seek(2)
            np.testing.assert_array_equal(np.asarray(file), PAGES[2])

    def test_each_is_turned_by_its_own_orientation(self, tmp_path):
        with tifffile.TiffWriter(tmp_path / "in.tif") as file:
            for dtype in (np.uint8, np.uint16):
                for turn in (1, 6, 3):
                    file.write(
                        noise(turn, dtype=dtype), photometric="rgb", metadata=None,
                        extratags=[(274, 3, 1, turn, True)],
                    )  # fmt: skip
        found = decode_frames(tmp_path / "in.tif").pictures
        for picture, (dtype, turns) in zip(
            found, [(d, t) for d in (np.uint8, np.uint16) for t in (0, -1, 2)], strict=True
        ):
            plain = noise({0: 1, -1: 6, 2: 3}[turns], dtype=dtype)
            np.testing.assert_array_equal(np.asarray(picture), np.rot90(plain, turns))

    def test_formats_without_pages(self, cli, tmp_path, pages):
        done = cli("enhance", pages, "-o", tmp_path / "x.webp", "-e", "gamma", "--frames", "all")
        assert done.code == 1
        assert "WEBP does not hold 6 pages; use .tif, .tiff" in done.err

    def test_all_pages_count_against_the_limit(self, pages):
        total = sum(p.shape[0] * p.shape[1] for p in PAGES)
        assert len(decode_frames(pages, max_pixels=total).pictures) == 6
        with pytest.raises(ImageError, match="too many pixels"):
            decode_frames(pages, max_pixels=total - 1)

    def test_a_circle(self, pages):
        data = bytearray(pages.read_bytes())
        (first,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, first)
        struct.pack_into("<I", data, first + 2 + 12 * count, first)
        with pytest.raises(ImageError, match="in a circle"):
            decode_frames(bytes(data))


def test_a_single_picture_is_one_frame(cli, tmp_path):
    for kind in ("JPEG", "PNG", "BMP", "TIFF", "WEBP"):
        path = tmp_path / f"a.{kind.lower()}"
        Image.fromarray(noise(0)).save(path)
        assert len(decode_frames(path).pictures) == 1
        given = ("-o", tmp_path / f"out.{kind.lower()}", "-e", "identity", "--frames", "all")
        assert cli("enhance", path, *given).code == 0


def test_heic_of_several(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    file = pillow_heif.from_pillow(Image.fromarray(noise(0, (64, 64, 3))))
    file.add_from_pillow(Image.fromarray(noise(1, (64, 64, 3))))
    file.save(tmp_path / "a.heic", quality=90)
    with pytest.raises(ImageError, match="HEIF of 2 pictures: all of them cannot be read"):
        decode_frames(tmp_path / "a.heic")


def test_in_a_folder(tmp_path):
    (tmp_path / "in").mkdir()
    animation(tmp_path / "in" / "a.webp", "WEBP")
    (result,) = enhance_folder(tmp_path / "in", tmp_path / "out", "identity", frames="all")
    assert result.status == "done"
    assert len(shown(tmp_path / "out" / "a.webp")[0]) == 3
    with pytest.warns(UserWarning, match="only the first"):
        list(enhance_folder(tmp_path / "in", tmp_path / "first", "identity"))
    (result,) = enhance_folder(tmp_path / "in", tmp_path / "out", "identity")
    assert result.status == "stale"


def test_bytes_are_taken_too():
    buffer = io.BytesIO()
    animation(buffer, "PNG")
    frames = decode_frames(buffer.getvalue())
    assert (len(frames.pictures), frames.durations, frames.loop) == (3, tuple(TIMES), 2)
