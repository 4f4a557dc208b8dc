"""Videos: what is enhanced, what is kept to the bit, and that the brightness doesn't flicker."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

import enhancekit
from enhancekit.errors import ImageError, OptionError
from enhancekit.inference.enhancer import Enhancer
from enhancekit.video import enhance_video, files
from enhancekit.video.exposure import SteadyExposure

BT709 = (1, 1, 1, 1)  # matrix, limited range, transfer, primaries: H.273 (the range FFmpeg's)


def scene(count=10, height=48, width=64, low=20, high=220):
    """Return smooth frames that change a little; compression hardly touches them."""
    across, down = np.linspace(low, high, width)[None, :], np.linspace(high, low, height)[:, None]
    planes = np.broadcast_arrays(across, down, np.full((1, 1), (low + high) / 2))
    return [np.stack(planes, axis=2).astype(np.uint8) + i % 5 for i in range(count)]


def make(
    path, frames, *, rate=25, times=None, tags=BT709, pix_fmt="yuv420p", crf=4, sound="aac",
    codec="libx264", title="A test", aspect=None, chapters=(), lasts=None, dispositions=(),
):  # fmt: skip
    """Write a video; `times`, or how long each frame `lasts`, in units of 1/1000 s."""
    if lasts:
        times = [sum(lasts[:i]) for i in range(len(lasts))]
    with av.open(str(path), "w") as file:
        file.metadata["title"] = title
        video = file.add_stream(codec, rate=rate, options={"crf": str(crf)})
        context = video.codec_context
        context.height, context.width = frames[0].shape[:2]
        context.pix_fmt = pix_fmt
        context.time_base = Fraction(1, 1000)
        context.colorspace, context.color_range, context.color_trc, context.color_primaries = tags
        if aspect:
            context.sample_aspect_ratio = aspect
        file.set_chapters(list(chapters))
        unspecified = 1 if context.height >= 720 else 5  # what players take it for
        if sound:
            hertz = 48000 if sound == "libopus" else 44100
            audio = file.add_stream(sound, rate=hertz)
            audio.metadata["language"] = "deu"
            for number, name in enumerate(dispositions):
                file.streams[number].disposition = av.stream.Disposition[name]
            tone = np.sin(np.arange(hertz * len(frames) // rate) * 0.05).astype(np.float32)
        for i, pixels in enumerate(frames):
            rgb = av.VideoFrame.from_ndarray(
                pixels, format="rgb48le" if pixels.dtype == np.uint16 else "rgb24"
            )
            frame = rgb.reformat(
                format=pix_fmt, src_colorspace=1,
                dst_colorspace=tags[0] if tags[0] != 2 else unspecified,
                src_color_range=2, dst_color_range=tags[1] or 1,
            )  # fmt: skip
            frame.pts = times[i] if times else i * 1000 // rate
            frame.time_base = Fraction(1, 1000)
            file.mux(video.encode(frame))
        for packet in video.encode(None):
            if lasts:
                packet.duration = lasts[times.index(packet.pts)]
            file.mux(packet)
        if sound:
            step = 1024
            for start in range(0, len(tone) - step, step):
                frame = av.AudioFrame.from_ndarray(
                    tone[None, start : start + step], format="fltp", layout="mono"
                )
                frame.sample_rate = hertz
                frame.pts = start
                file.mux(audio.encode(frame))
            file.mux(audio.encode(None))
    return path


def turn(path, matrix):
    """Write into an MP4 how players shall turn its pictures."""
    data = path.read_bytes()
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (n << 16 for n in matrix)
    numbers = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    written = b"".join(n.to_bytes(4, "big", signed=True) for n in numbers)
    path.write_bytes(data[:place] + written + data[place + 36 :])


def frames_of(path):
    with av.open(str(path)) as file:
        return [
            f.to_ndarray(format="rgb48le" if "10" in f.format.name else "rgb24")
            for f in file.decode(video=0)
        ]


def times_of(path):
    with av.open(str(path)) as file:
        return [round(f.time * 1000) for f in file.decode(video=0)]


def sound_of(path):
    """Return the packets of the sound: their bytes and times."""
    with av.open(str(path)) as file:
        (stream,) = file.streams.audio
        return [(bytes(p), p.pts * p.time_base) for p in file.demux(stream) if p.dts is not None]


def spread(frames):
    """Return the variation of the frames' means, relative to their mean."""
    means = np.array([f.mean() for f in frames])
    return means.std() / means.mean()


@pytest.fixture(scope="module")
def identity():
    return enhancekit.load("identity")


class TestKept:
    def test_pictures_sound_and_metadata(self, tmp_path, identity):
        source = make(tmp_path / "in.mp4", scene())
        said = []
        count = enhance_video(
            source, tmp_path / "out.mp4", identity, crf=4, on_frame=lambda *n: said.append(n)
        )
        assert count == 10
        assert said == [(i, 10) for i in range(1, 11)]
        for before, after in zip(frames_of(source), frames_of(tmp_path / "out.mp4"), strict=True):
            assert np.abs(before.astype(int) - after).mean() < 1.5
        assert sound_of(tmp_path / "out.mp4") == sound_of(source)
        assert times_of(tmp_path / "out.mp4") == times_of(source)
        with av.open(str(source)) as given, av.open(str(tmp_path / "out.mp4")) as made:
            assert made.metadata["title"] == "A test"
            assert made.streams.audio[0].metadata["language"] == "deu"
            assert made.streams.video[0].average_rate == given.streams.video[0].average_rate == 25
            assert made.duration == pytest.approx(given.duration, abs=2000)

    @pytest.mark.parametrize("tags", [BT709, (5, 1, 6, 5), (9, 1, 14, 9), (1, 2, 1, 1)])
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_colours(self, tmp_path, identity, tags, suffix):
        source = make(tmp_path / f"in{suffix}", scene(3), tags=tags, sound="")
        enhance_video(source, tmp_path / f"out{suffix}", identity, crf=4)
        with av.open(str(source)) as given, av.open(str(tmp_path / f"out{suffix}")) as made:
            for one, other in zip(given.decode(video=0), made.decode(video=0), strict=True):
                names = ("colorspace", "color_range", "color_trc", "color_primaries")
                assert [getattr(one, n) for n in names] == [getattr(other, n) for n in names]
                assert other.colorspace == (6 if tags[0] == 5 else tags[0]) or tags[0] == 5
                for plane in range(3):
                    values, now = (
                        np.frombuffer(f.planes[plane], np.uint8).astype(int) for f in (one, other)
                    )
                    assert np.abs(values - now).mean() < 1.2

    def test_uneven_times(self, tmp_path, identity):
        times = [0, 40, 120, 130, 300, 301, 600]
        source = make(tmp_path / "in.mkv", scene(7), times=times, sound="")
        enhance_video(source, tmp_path / "out.mkv", identity)
        assert times_of(tmp_path / "out.mkv") == times

    def test_ten_bits(self, tmp_path, identity):
        deep = [f.astype(np.uint16) * 16 + 77 for f in scene(3)]
        source = make(tmp_path / "in.mp4", deep, pix_fmt="yuv420p10le", crf=1, sound="")
        enhance_video(source, tmp_path / "out.mp4", identity, crf=1)
        with av.open(str(tmp_path / "out.mp4")) as made:
            assert next(made.decode(video=0)).format.name == "yuv420p10le"
        for before, after in zip(frames_of(source), frames_of(tmp_path / "out.mp4"), strict=True):
            assert np.abs(before.astype(int) - after).mean() < 150  # of 65535: half of 8 bits' step

    @pytest.mark.parametrize(
        ("matrix", "upright"),
        [
            ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),  # by a quarter clockwise
            ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
            ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
            ((-1, 0, 0, 1), np.fliplr),  # as front cameras write it
            ((1, 0, 0, -1), np.flipud),
            ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
        ],
    )
    def test_frames_become_upright(self, tmp_path, identity, matrix, upright):
        source = make(tmp_path / "in.mp4", scene(3), sound="")
        turn(source, matrix)
        enhance_video(source, tmp_path / "out.mp4", identity, crf=4)
        wanted = upright(scene(1)[0])
        with av.open(str(tmp_path / "out.mp4")) as made:
            frame = next(made.decode(video=0))
            assert (frame.height, frame.width, frame.rotation) == (*wanted.shape[:2], 0)
        assert np.abs(frames_of(tmp_path / "out.mp4")[0].astype(int) - wanted).mean() < 3

    @pytest.mark.parametrize("height", [48, 720])
    def test_colours_whose_matrix_is_not_named(self, tmp_path, identity, monkeypatch, height):
        frame = np.broadcast_to(np.uint8([200, 90, 30]), (height, 64, 3))
        source = make(tmp_path / "in.mkv", [frame], tags=(2, 1, 2, 2), sound="")
        seen = []
        enhance = type(identity).enhance
        monkeypatch.setattr(
            type(identity), "enhance", lambda self, x, **k: seen.append(x) or enhance(self, x, **k)
        )
        enhance_video(source, tmp_path / "out.mkv", identity)
        assert np.abs(seen[0].astype(int) - frame).max() < 8
        with av.open(str(tmp_path / "out.mkv")) as made:
            assert next(made.decode(video=0)).colorspace == 2

    @pytest.mark.parametrize(("turned", "kept"), [(False, Fraction(4, 3)), (True, Fraction(3, 4))])
    def test_the_shape_of_the_pixels(self, tmp_path, identity, turned, kept):
        source = make(tmp_path / "in.mp4", scene(2), sound="", aspect=Fraction(4, 3))
        if turned:
            turn(source, (0, 1, -1, 0))
        enhance_video(source, tmp_path / "out.mp4", identity)
        with av.open(str(tmp_path / "out.mp4")) as made:
            assert made.streams.video[0].sample_aspect_ratio == kept

    @pytest.mark.parametrize(
        ("codec", "pix_fmt", "suffix"),
        [("libx264rgb", "rgb24", ".mkv"), ("png", "rgb24", ".mov"), ("ffv1", "gray", ".mkv")],
    )
    @pytest.mark.parametrize("target", ["out.mp4", "out.webm"])
    def test_colours_that_are_not_luma_and_chroma(
        self, tmp_path, identity, codec, pix_fmt, suffix, target
    ):
        source = tmp_path / f"in{suffix}"
        with av.open(str(source), "w") as file:
            video = file.add_stream(codec, rate=25)
            video.codec_context.height, video.codec_context.width = 48, 64
            video.codec_context.pix_fmt = pix_fmt
            for pixels in scene(2):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                file.mux(video.encode(frame.reformat(format=pix_fmt)))
            file.mux(video.encode(None))
        enhance_video(source, tmp_path / target, identity, crf=1)
        for before, after in zip(frames_of(source), frames_of(tmp_path / target), strict=True):
            assert np.abs(before.astype(int) - after).max() < 8

    def test_what_tracks_are_for(self, tmp_path, identity):
        source = make(tmp_path / "in.mkv", scene(), dispositions=("default", "comment"))
        enhance_video(source, tmp_path / "out.mkv", identity)
        with av.open(str(source)) as given, av.open(str(tmp_path / "out.mkv")) as made:
            found = [[s.disposition for s in file.streams] for file in (given, made)]
        assert (
            found[0] == found[1] == [av.stream.Disposition.default, av.stream.Disposition.comment]
        )

    def test_sound_that_is_cut_away_stays_so(self, tmp_path, identity):
        source = make(tmp_path / "in.mp4", scene(50))
        data = bytearray(source.read_bytes())
        place, second = 0, {0: 16000, 1: 44100}
        for track in range(2):  # the film plays from its first second on, and for half a second
            place = data.index(b"elst", place + 4)
            (start,) = struct.unpack_from(">i", data, place + 16)
            struct.pack_into(">Ii", data, place + 12, 500, start + second[track])
        source.write_bytes(data)
        enhance_video(source, tmp_path / "out.mkv", identity)
        assert len(sound_of(tmp_path / "out.mkv")) < 30
        assert times_of(tmp_path / "out.mkv")[0] < 40

    def test_chapters(self, tmp_path, identity):
        base = Fraction(1, 1000)
        chapters = [
            {"id": i, "start": 200 * i, "end": 200 * (i + 1), "time_base": base,
             "metadata": {"title": f"Part {i}"}}
            for i in range(2)
        ]  # fmt: skip
        source = make(tmp_path / "in.mkv", scene(), sound="", chapters=chapters)
        enhance_video(source, tmp_path / "out.mkv", identity)
        with av.open(str(tmp_path / "out.mkv")) as made:
            found = [
                (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
                for c in made.chapters()
            ]
        assert found == [(0, Fraction(1, 5), "Part 0"), (Fraction(1, 5), Fraction(2, 5), "Part 1")]

    def test_a_last_frame_that_is_shown_for_long(self, tmp_path, identity):
        source = make(tmp_path / "in.mkv", scene(3), lasts=[100, 400, 1500], sound="")
        enhance_video(source, tmp_path / "out.mkv", identity)
        assert times_of(tmp_path / "out.mkv") == [0, 100, 500]
        with av.open(str(tmp_path / "out.mkv")) as made:
            assert made.duration == 2_000_000

    def test_a_colon_in_a_name(self, tmp_path, identity, monkeypatch):
        make(tmp_path / "a.mp4", scene(2), sound="").rename(tmp_path / "a:b.mp4")
        monkeypatch.chdir(tmp_path)
        assert enhance_video("a:b.mp4", "c:d.mp4", identity) == 2

    def test_a_beginning_later_than_0(self, tmp_path, identity):
        times = [5000 + 40 * i for i in range(12)]
        source = make(tmp_path / "in.mkv", scene(12), times=times, sound="")
        assert enhance_video(source, tmp_path / "out.mp4", identity) == 12

    def test_twelve_bits_become_ten_with_a_warning(self, tmp_path, identity):
        frames = [f.astype(np.uint16) * 257 for f in scene(2)]
        source = make(tmp_path / "in.mkv", frames, codec="ffv1", pix_fmt="yuv420p12le", sound="")
        with pytest.warns(UserWarning, match="12 bits a channel, of which libx264 keeps 10"):
            enhance_video(source, tmp_path / "out.mp4", identity)

    def test_odd_sizes(self, tmp_path, identity):
        source = make(tmp_path / "in.mkv", scene(2, 33, 47), pix_fmt="yuv444p", sound="")
        enhance_video(source, tmp_path / "out.mkv", identity)
        assert frames_of(tmp_path / "out.mkv")[0].shape == (33, 47, 3)

    def test_enlarged(self, tmp_path):
        source = make(tmp_path / "in.mkv", scene(2), sound="")
        enhance_video(source, tmp_path / "out.mkv", enhancekit.load("spline-x2"))
        assert frames_of(tmp_path / "out.mkv")[0].shape == (96, 128, 3)

    def test_another_container(self, tmp_path, identity):
        source = make(tmp_path / "in.mkv", scene(), sound="libopus")
        enhance_video(source, tmp_path / "out.webm", identity)
        with av.open(str(tmp_path / "out.webm")) as made:
            assert made.streams.video[0].codec_context.name in ("vp9", "libvpx-vp9")
        assert [b for b, _ in sound_of(tmp_path / "out.webm")] == [b for b, _ in sound_of(source)]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Return a static dark scene of 60 frames with a small sensor's noise."""
    chance = np.random.default_rng(0)
    plain = scene(1, low=4, high=40)[0]
    frames = [
        (plain + 6 * chance.standard_normal(plain.shape)).clip(0, 255).astype(np.uint8)
        for _ in range(60)
    ]
    return make(tmp_path_factory.mktemp("noisy") / "in.mp4", frames, rate=30)


class TestEnhanced:
    def test_by_the_enhancer(self, tmp_path):
        source = make(tmp_path / "in.mp4", scene(3, low=10, high=60), sound="")
        gamma = enhancekit.load("gamma")
        enhance_video(source, tmp_path / "out.mp4", gamma, crf=1)
        enhance_video(source, tmp_path / "half.mp4", gamma, crf=1, strength=0.5)
        for name, strength in (("out", 1), ("half", 0.5)):
            for before, after in zip(
                frames_of(source), frames_of(tmp_path / f"{name}.mp4"), strict=True
            ):
                wanted = gamma.enhance(before, strength=strength)
                assert np.abs(wanted.astype(int) - after).mean() < 2.5

    def test_brightness_does_not_flicker(self, tmp_path, noisy):
        enhancer = enhancekit.load("mfnn-lite")
        enhance_video(noisy, tmp_path / "out.mp4", enhancer)
        before, after = frames_of(noisy), frames_of(tmp_path / "out.mp4")
        assert len(before) == len(after) == 60
        assert spread(after) <= spread(before)
        assert np.mean(after) > 2 * np.mean(before)
        assert sound_of(tmp_path / "out.mp4") == sound_of(noisy)

    @pytest.mark.parametrize("orientation", [1, 3, 6, 8])
    def test_pictures_that_say_more_than_pyav_knows(self, tmp_path, identity, orientation):
        pixels = np.zeros((32, 48, 3), np.uint8)
        pixels[:8, :12] = 255  # the corner at the top left
        exif = Image.Exif()
        exif[0x0112] = orientation
        with av.open(str(tmp_path / "in.avi"), "w") as file:
            stream = file.add_stream("mjpeg", rate=10)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj444p"
            for number in range(3):
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "JPEG", exif=exif, subsampling=0)
                packet = av.Packet(buffer.getvalue())
                packet.stream, packet.pts, packet.dts = stream, number, number
                packet.time_base, packet.is_keyframe = Fraction(1, 10), True
                file.mux(packet)
        enhance_video(tmp_path / "in.avi", tmp_path / "out.mp4", identity, crf=1)
        shown = frames_of(tmp_path / "out.mp4")
        wanted = {1: pixels, 3: pixels[::-1, ::-1], 6: np.rot90(pixels, 3), 8: np.rot90(pixels)}
        assert len(shown) == 3
        for frame in shown:
            assert frame.shape == wanted[orientation].shape
            assert np.abs(frame.astype(int) - wanted[orientation]).mean() < 8

    @pytest.mark.parametrize("still", [1, 6])
    def test_few_pictures_beside_much_sound(self, tmp_path, identity, still):
        with av.open(str(tmp_path / "in.mkv"), "w") as file:
            pictures = file.add_stream("libx264", rate=1)
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
            sound = file.add_stream("aac", rate=48000, layout="stereo")
            for number in range(still):
                grey = np.full((32, 32, 3), 99, np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                frame = frame.reformat(format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1)
                file.mux(pictures.encode(frame))
            file.mux(pictures.encode(None))
            for number in range(600):
                tone = av.AudioFrame.from_ndarray(
                    np.zeros((2, 1024), np.float32), format="fltp", layout="stereo"
                )
                tone.sample_rate, tone.pts = 48000, number * 1024
                tone.time_base = Fraction(1, 48000)
                file.mux(sound.encode(tone))
            file.mux(sound.encode(None))
        assert enhance_video(tmp_path / "in.mkv", tmp_path / "out.mkv", identity) == still

    def test_a_failing_callback_fails_as_itself(self, tmp_path, identity):
        source = make(tmp_path / "in.mp4", scene(2), sound="")

        def broken(*_):
            raise ValueError("no bar")

        with pytest.raises(ValueError, match=r"^no bar$"):
            enhance_video(source, tmp_path / "out.mp4", identity, on_frame=broken)
        assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]

    @pytest.mark.parametrize("mode", ["exact", "fast"])
    def test_the_mode_is_for_all_frames(self, tmp_path, cli, monkeypatch, mode):
        modes = []
        enhance = Enhancer.enhance

        def watched(self, image, **how):
            modes.append(how["mode"])
            return enhance(self, image, **how)

        monkeypatch.setattr(Enhancer, "enhance", watched)
        source = make(tmp_path / "in.mp4", scene(3), sound="")
        given = () if mode == "exact" else ("--mode", mode)
        assert cli("video", source, "-o", tmp_path / "out.mp4", "-e", "gamma", *given).code == 0
        assert modes == [mode] * 3

    def test_a_control_is_for_all_frames(self, tmp_path, noisy):
        enhancer = enhancekit.load("mfnn-lite")
        enhance_video(noisy, tmp_path / "out.mp4", enhancer, controls={"exposure": 0.6})
        assert np.mean(frames_of(tmp_path / "out.mp4")) / 255 == pytest.approx(0.6, abs=0.04)


class TestRefused:
    @pytest.mark.parametrize(
        ("name", "given", "error", "said"),
        [
            ("out.avi", {}, ImageError, "cannot write .avi"),
            ("out", {}, ImageError, "without a suffix"),
            ("out.mp4", {"crf": 52}, OptionError, "crf"),
            ("out.mp4", {"crf": 1.5}, OptionError, "crf is a whole number"),
            ("out.mp4", {"smoothing": "1"}, OptionError, "smoothing"),
            ("\0.mp4", {}, ImageError, "cannot be written"),
            (f"{'x' * 260}.mp4", {}, ImageError, "cannot be written"),
            ("out.mp4", {"smoothing": -1}, OptionError, "smoothing"),
            ("out.mp4", {"strength": 3}, OptionError, "strength"),
            ("out.mp4", {"mode": "quick"}, OptionError, "'exact', 'fast', 'best'"),
            ("out.mp4", {"controls": {"exposure": 0.5}}, OptionError, "no control"),
            ("nowhere/out.mp4", {}, ImageError, r"there is no folder .*nowhere$"),
        ],
    )
    def test_choices(self, tmp_path, identity, name, given, error, said):
        source = make(tmp_path / "in.mp4", scene(2), sound="")
        with pytest.raises(error, match=said):
            enhance_video(source, tmp_path / name, identity, **given)
        assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]

    def test_itself(self, tmp_path, identity):
        source = make(tmp_path / "in.mp4", scene(2), sound="")
        with pytest.raises(ImageError, match="overwrite itself"):
            enhance_video(source, source, identity)

    def test_transparency_beside_the_pictures(self, tmp_path, identity):
        plain = make(tmp_path / "in.webm", scene(2), codec="libvpx-vp9", sound="")
        with (
            av.open(str(plain)) as given,
            av.open(str(tmp_path / "clear.webm"), "w") as file,
        ):
            stream = file.add_stream_from_template(given.streams.video[0])
            stream.metadata["alpha_mode"] = "1"
            for packet in given.demux(given.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    file.mux(packet)
        with pytest.raises(ImageError, match=r"clear.webm has transparency"):
            enhance_video(tmp_path / "clear.webm", tmp_path / "out.webm", identity)

    def test_addresses_and_lists_of_files(self, tmp_path, identity, monkeypatch):
        make(tmp_path / "in.mp4", scene(2), sound="")
        (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile in.mp4\n")
        monkeypatch.chdir(tmp_path)
        for name, said in {
            "list.mp4": "only names other files",
            "concat:in.mp4|in.mp4": "does not exist",
            "http://127.0.0.1:9/in.mp4": "does not exist",
            ".": "is no file",
        }.items():
            with pytest.raises(ImageError, match=said):
                enhance_video(name, "out.mp4", identity)

    def test_fields_that_begin_later(self, tmp_path, identity, monkeypatch):
        source = make(tmp_path / "in.mkv", scene(4), sound="")
        seen = []
        monkeypatch.setattr(
            files._Kept, "interlaced", staticmethod(lambda f: seen.append(f) or len(seen) > 2)
        )
        with pytest.raises(ImageError, match="is interlaced"):
            enhance_video(source, tmp_path / "out.mkv", identity)

    def test_a_folder_in_the_place_of_the_output(self, tmp_path, identity):
        source = make(tmp_path / "in.mkv", scene(2), sound="")
        (tmp_path / "out.mkv").mkdir()
        frames = []
        with pytest.raises(ImageError, match=r"out.mkv cannot be written: .*directory"):
            enhance_video(
                source, tmp_path / "out.mkv", identity, on_frame=lambda *n: frames.append(n)
            )
        assert frames == []

    def test_a_change_of_size(self, tmp_path, identity):
        parts = [
            make(
                tmp_path / f"{i}.ts",
                scene(4, height=48 + 16 * i),
                sound="",
                times=[1000 * i + 40 * n for n in range(4)],
            ).read_bytes()
            for i in range(2)
        ]
        (tmp_path / "in.ts").write_bytes(b"".join(parts))
        with pytest.raises(ImageError, match="change from 64x48 to 64x64 midway"):
            enhance_video(tmp_path / "in.ts", tmp_path / "out.mp4", identity)
        assert not (tmp_path / "out.mp4").exists()

    def test_sound_that_would_be_lost(self, tmp_path, identity):
        source = make(tmp_path / "in.mp4", scene(2))
        with pytest.raises(ImageError, match="cannot hold sound of aac"):
            enhance_video(source, tmp_path / "out.webm", identity)
        assert not (tmp_path / "out.webm").exists()

    def test_broken_files(self, tmp_path, identity):
        whole = make(tmp_path / "in.mp4", scene()).read_bytes()
        cases = {"empty": b"", "text": b"dear diary" * 99, "half": whole[: len(whole) // 2]}
        for name, data in cases.items():
            (tmp_path / f"{name}.mp4").write_bytes(data)
            with pytest.raises(ImageError, match=name):
                enhance_video(tmp_path / f"{name}.mp4", tmp_path / "out.mp4", identity)
        with pytest.raises(ImageError, match=r"none\.mp4"):
            enhance_video(tmp_path / "none.mp4", tmp_path / "out.mp4", identity)
        assert not (tmp_path / "out.mp4").exists()

    def test_sound_alone(self, tmp_path, identity):
        with av.open(str(tmp_path / "in.mp4"), "w") as file:
            audio = file.add_stream("aac", rate=44100)
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate = 44100
            file.mux(audio.encode(frame))
            file.mux(audio.encode(None))
        with pytest.raises(ImageError, match="no moving pictures"):
            enhance_video(tmp_path / "in.mp4", tmp_path / "out.mp4", identity)

    def test_a_song_with_a_cover(self, tmp_path, identity):
        with av.open(str(tmp_path / "in.mp4"), "w") as file:
            cover = file.add_stream("mjpeg", rate=1)
            context = cover.codec_context
            context.width, context.height, context.pix_fmt = 32, 32, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            frame.pts = 0
            file.mux([*cover.encode(frame), *cover.encode(None)])
        with pytest.raises(ImageError, match="no moving pictures, only sound, a cover"):
            enhance_video(tmp_path / "in.mp4", tmp_path / "out.mp4", identity)


class TestCommandLine:
    def test_done(self, cli, tmp_path):
        source = make(tmp_path / "in.mp4", scene(3))
        done = cli("video", source, "-o", tmp_path / "out.mp4", "-e", "gamma")
        assert (done.code, done.err) == (0, "")
        assert done.out == f"{tmp_path / 'out.mp4'}  (3 frames)\n"
        again = cli("video", source, "-o", tmp_path / "out.mp4", "-e", "gamma")
        assert again.code == 1
        assert "exists already" in again.err
        given = ("--overwrite", "always", "--crf", 30)
        before = (tmp_path / "out.mp4").stat().st_size
        assert cli("video", source, "-o", tmp_path / "out.mp4", "-e", "gamma", *given).code == 0
        assert (tmp_path / "out.mp4").stat().st_size < before

    def test_the_brightness_asked_for(self, cli, tmp_path):
        source = make(tmp_path / "in.mp4", scene(2))
        found = {}
        for wanted in (0.2, 0.6):
            out = tmp_path / f"{wanted}.mp4"
            done = cli("video", source, "-o", out, "-e", "mfnn", "--exposure", wanted)
            assert done.code == 0
            found[wanted] = np.stack(frames_of(out)).mean() / 255
        assert found[0.2] == pytest.approx(0.2, abs=0.1)
        assert found[0.6] == pytest.approx(0.6, abs=0.15)

    def test_without_the_extra(self, cli, tmp_path, monkeypatch):
        for name in [n for n in sys.modules if n.split(".")[:2] == ["enhancekit", "video"]]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "av", None)
        done = cli("video", tmp_path / "in.mp4", "-o", tmp_path / "out.mp4", "-e", "gamma")
        assert done.code == 1
        assert done.err == (
            "error: video needs av; install it with: pip install 'enhancekit[video]'\n"
        )


def test_a_cut_is_followed_at_once(identity):
    steady = SteadyExposure(identity, seconds=1.0)
    frames = [np.full((48, 64, 3), value, np.uint8) for value in (20, 20, 20, 120, 120, 60)]
    chosen = [steady(frame, 0.04) * 255 for frame in frames]
    np.testing.assert_allclose(chosen, [20, 20, 20, 120, 120, 60], atol=0.01)


class Wanting:
    """An enhancer that makes every picture grey."""

    def __init__(self, identity):
        self.entry = identity.entry

    def run(self, pictures):
        return torch.full_like(pictures, 0.5)


def steadied(identity, values, elapsed=0.04):
    steady = SteadyExposure(Wanting(identity), seconds=1.0)
    return [steady(np.full((8, 8, 3), value, np.uint8), elapsed) for value in values]


def test_a_slow_change_is_followed_slowly(identity):
    values = np.linspace(60, 120, 100).astype(int)
    chosen = steadied(identity, [*values, *[120] * 100])
    assert chosen[0] == pytest.approx(0.5, abs=1e-3)
    assert max(np.abs(np.diff(chosen))) < 0.006
    assert 0.53 < chosen[99] < 0.65
    assert chosen[-1] == pytest.approx(0.5, abs=0.03)


def test_noise_moves_nothing(identity):
    noisy = (60, 61, 59, 60, 61, 60)
    chosen = steadied(identity, noisy)
    assert len({round(c, 6) for c, value in zip(chosen, noisy, strict=True) if value == 60}) == 1


def test_a_fade_to_black_stays_one(identity):
    values = [80] * 10 + [round(80 * (1 - i / 20)) for i in range(1, 21)] + [0] * 10
    chosen = steadied(identity, values)
    assert np.all(np.diff(chosen[10:]) <= 0)
    assert chosen[20] < 0.4
    assert chosen[27] < 0.2
    assert chosen[-1] < 0.001


def test_after_black_all_is_as_before(identity):
    chosen = steadied(identity, [80, 80, 30, 0, 0, 0, 30, 80, 80])
    assert chosen[-1] == pytest.approx(chosen[0], abs=0.02)


def test_the_rate_of_frames_does_not_matter(identity):
    def after_two_seconds(rate):
        values = [60 + 60 * i // (2 * rate) for i in range(2 * rate)]
        return steadied(identity, values, 1 / rate)[-1]

    assert after_two_seconds(10) == pytest.approx(after_two_seconds(50), abs=0.01)


def test_memory_does_not_grow_with_the_length(tmp_path, identity):
    peaks = []
    for count in (10, 60):
        source = make(tmp_path / f"{count}.mp4", scene(count), sound="")
        tracemalloc.start()
        enhance_video(source, tmp_path / f"out{count}.mp4", identity)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 5 * 48 * 64 * 3  # far less than the fifty frames more


def test_the_last_frame_where_none_has_a_duration(tmp_path, identity):
    times = [0, 5000, 10000, 15000]
    source = make(tmp_path / "a.wmv", scene(4), codec="wmv2", times=times, sound="")
    assert enhance_video(source, tmp_path / "b.mp4", identity) == 4
    assert times_of(tmp_path / "b.mp4") == times


def test_one_that_is_cut_off_is_refused(tmp_path, identity):
    whole = make(tmp_path / "a.webm", scene(25), codec="libvpx-vp9", sound="", rate=25)
    data = whole.read_bytes()
    (tmp_path / "cut.webm").write_bytes(data[: len(data) // 3])
    with pytest.raises(
        ImageError, match=r"cut.webm (is cut off: 0\.\d+ of 1\.0\d s|cannot be read)"
    ):
        enhance_video(tmp_path / "cut.webm", tmp_path / "b.webm", identity)
    assert not (tmp_path / "b.webm").exists()


def test_what_phones_say_of_themselves_is_kept(tmp_path, identity):
    said = {"com.apple.quicktime.make": "Acme", "com.apple.quicktime.location.ISO6709": "+52+013/"}
    plain = make(tmp_path / "plain.mov", scene(3), sound="")
    with (
        av.open(str(plain)) as given,
        av.open(str(tmp_path / "a.mov"), "w", options={"movflags": "use_metadata_tags"}) as file,
    ):
        file.metadata.update(said)
        stream = file.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                file.mux(packet)
    enhance_video(tmp_path / "a.mov", tmp_path / "b.mov", identity)
    with av.open(str(tmp_path / "b.mov")) as file:
        assert said.items() <= file.metadata.items()


def test_sound_whose_speakers_are_not_named(tmp_path, identity):
    with av.open(str(tmp_path / "a.avi"), "w") as file:
        video = file.add_stream("mjpeg", rate=10)
        video.width, video.height, video.pix_fmt = 32, 32, "yuvj420p"
        sound = file.add_stream("pcm_s16le", rate=8000, layout="stereo")
        for pixels in scene(4, 32, 32):
            picture = av.VideoFrame.from_ndarray(pixels).reformat(format="yuvj420p")
            file.mux(video.encode(picture))
        file.mux(video.encode(None))
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 6400), np.int16), "s16", "stereo")
        tone.sample_rate, tone.pts = 8000, 0
        file.mux(sound.encode(tone))
    enhance_video(tmp_path / "a.avi", tmp_path / "b.mp4", identity)
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert file.streams.audio[0].codec_context.layout.name == "stereo"
