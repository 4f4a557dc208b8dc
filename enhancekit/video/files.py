"""`enhance_video`: decode, enhance and encode one frame after the other; the rest is copied."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec import Codec
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from enhancekit.atomic import replacing
from enhancekit.errors import EnhanceKitError, ImageError, OptionError
from enhancekit.inference.enhancer import Enhancer
from enhancekit.plain import is_number
from enhancekit.video.exposure import SteadyExposure

__all__ = ["FORMATS", "Progress", "enhance_video"]

FORMATS = {
    ".mkv": ("matroska", "libx264"),
    ".mov": ("mov", "libx264"),
    ".mp4": ("mp4", "libx264"),
    ".webm": ("webm", "libvpx-vp9"),
}
"""Suffixes that are written, with the container and the encoder of each, by FFmpeg's names."""

Progress = Callable[[int, int | None], None]
"""Told after every frame how many are done, and of how many if that is known."""

_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""Matrix coefficients of H.273 to the ones the scaler knows."""
_UNSPECIFIED, _RGB = 2, 0
_EDITED = ("mov", "mp4")
"""Containers with lists of what is played of them."""
_LISTS = {"concat", "dash", "hls"}
_STATISTICS = ("BPS", "DURATION", "NUMBER_OF_", "_STATISTICS_")
"""What the tags begin with in which Matroska's writers count a stream's bytes."""
_TRANSPARENT = "{} has transparency, which would be lost; not supported"
_HDR = {16: "PQ", 18: "HLG"}
"""Transfer characteristics of H.273 that do not resemble sRGB."""


def enhance_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    enhancer: Enhancer,
    *,
    strength: float = 1.0,
    mode: str = "exact",
    controls: Mapping[str, float] | None = None,
    smoothing: float = 1.0,
    crf: int = 18,
    on_frame: Progress | None = None,
) -> int:
    """Enhance the pictures of a video; sound, subtitles and metadata are copied as they are.

    Times and rate of the frames, the colour tags, the number of bits and the shape of the pixels
    stay; frames that a camera held sideways are turned upright. One frame is in memory at a time,
    beside those that the encoder looks ahead.

    Parameters
    ----------
    source : path-like
        Whatever FFmpeg reads.
    target : path-like
        ``.mp4``, ``.mov`` or ``.mkv`` (H.264), or ``.webm`` (VP9); appears whole or not at all.
    enhancer : Enhancer
        From `enhancekit.load`.
    strength, mode, controls
        As for `Enhancer.enhance`, for all frames.
    smoothing : float
        Seconds over which the gain chosen is smoothed, if the enhancer has the control
        ``exposure`` and `controls` doesn't set it; 0 lets it choose for each frame anew.
    crf : int
        Quality of the encoder, from 0 (best) to 51 (63 for VP9).
    on_frame : callable, optional
        See `Progress`.

    Returns
    -------
    int
        How many frames were enhanced.

    Raises
    ------
    ImageError
        If the video cannot be read, is interlaced, has no pictures, or cannot be written.
    OptionError
        If an option is out of range.
    """
    source, target = Path(source), Path(target)
    if not is_number(smoothing) or not smoothing >= 0:
        raise OptionError(f"smoothing is at least 0 seconds, not {smoothing!r}")
    kind, codec = _format_for(target, crf)
    with _failing(target, "written"):
        if target.exists() and source.exists() and target.samefile(source):
            raise ImageError(f"{source} would overwrite itself; choose another output")
    given: dict[str, Any] = dict(controls or {})
    enhancer.check(strength=strength, mode=mode, **given)
    steady = (
        SteadyExposure(enhancer, smoothing)
        if smoothing and "exposure" in enhancer.entry.spec.controls and "exposure" not in given
        else None
    )

    def enhanced(pixels: NDArray[Any], elapsed: float) -> NDArray[Any]:
        brightness = {"exposure": steady(pixels, elapsed)} if steady and strength else {}
        return enhancer.enhance(pixels, strength=strength, mode=mode, **(given | brightness))

    if not target.parent.is_dir():
        raise ImageError(f"{target} cannot be written: there is no folder {target.parent}")
    with _failing(source, "read"):
        first = _first_frame(source)
    kept = _Kept.of(first, source)
    count = 0
    with ExitStack() as stack:
        with _failing(source, "read"):
            reading = stack.enter_context(_opened(source))
        stack.enter_context(_failing(target, "written"))
        file = stack.enter_context(replacing(target))
        # else what phones say of themselves is left out of these two
        options = {"movflags": "use_metadata_tags"} if kind in _EDITED else {}
        writing = stack.enter_context(av.open(file, "w", format=kind, options=options))
        video = _film(reading, source)
        scale = enhancer.entry.spec.scale
        encoder = _add_video(writing, video, kept, codec, source, crf=crf, scale=scale)
        copied = _add_copied(reading, writing, video, target)
        total = video.frames or None
        shown = _Shown()
        for item in _items(reading, video, copied, source, edits=kind in _EDITED):
            if isinstance(item, Packet):
                item.stream = copied[item.stream.index]
                writing.mux(item)
                continue
            frame, elapsed = item
            pixels = enhanced(kept.pixels(frame, source), elapsed)
            shown.note(frame)
            made = encoder.encode(kept.frame(pixels, frame, encoder.pix_fmt or ""))
            writing.mux(shown.restored(made))
            count += 1
            if on_frame:
                on_frame(count, total)
        writing.mux(shown.restored(encoder.encode(None)))
    return count


def _format_for(target: Path, crf: Any) -> tuple[str, str]:
    """Give the container and encoder a file's suffix asks for, if they take the quality."""
    if "\0" in str(target):
        raise ImageError(f"{target} cannot be written: its name holds a zero byte")
    if target.suffix.lower() not in FORMATS:
        raise ImageError(
            f"{target}: cannot write {target.suffix or 'a file without a suffix'}; written are "
            + ", ".join(FORMATS)
        )
    kind, codec = FORMATS[target.suffix.lower()]
    best = 63 if codec == "libvpx-vp9" else 51
    if not isinstance(crf, int) or isinstance(crf, bool) or not 0 <= crf <= best:
        raise OptionError(f"crf is a whole number between 0 (best) and {best}, not {crf!r}")
    return kind, codec


def _seconds(count: int | None, unit: Fraction | None) -> Fraction:
    return (count or 0) * (unit or Fraction(0))


class _Shown:
    """How long each frame is shown: encoders give all the same, and nothing follows the last."""

    def __init__(self) -> None:
        self._seconds: dict[Fraction, Fraction] = {}
        self._last: Fraction | None = None

    def note(self, frame: VideoFrame) -> None:
        """Remember a frame that is being encoded."""
        at = _seconds(frame.pts, frame.time_base)
        if self._last is not None:
            self._seconds[self._last] = at - self._last
        self._last, self._seconds[at] = at, _seconds(frame.duration, frame.time_base)

    def restored(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        """Give packets with the durations of the frames they came from."""
        for packet in packets:
            if seconds := self._seconds.pop(_seconds(packet.pts, packet.time_base), None):
                packet.duration = round(seconds / packet.time_base)
        return packets


@contextmanager
def _failing(path: Path, what: str) -> Iterator[None]:
    """Turn what FFmpeg and the system raise into our own error."""
    try:
        yield
    except EnhanceKitError:
        raise
    except (OSError, av.FFmpegError) as error:
        raise ImageError(f"{path} cannot be {what}: {error}") from error


def _opened(source: Path) -> InputContainer:
    """Open a file as just that: no address, and no list of other files."""
    if not source.exists():
        raise ImageError(f"{source} does not exist")
    if not source.is_file():
        raise ImageError(f"{source} is no file")
    # else FFmpeg takes what stands before a colon for a protocol
    options = {"protocol_whitelist": "file"}
    file = av.open(f"file:{source}", metadata_errors="replace", options=options)
    if lists := _LISTS & set(file.format.name.split(",")):
        file.close()
        raise ImageError(f"{source} only names other files ({lists.pop()}); give one of those")
    return file


def _film(file: InputContainer, source: Path) -> VideoStream:
    """Give the first stream of pictures that is no cover of a song or film."""
    for stream in file.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise ImageError(f"{source} has no moving pictures, only sound, a cover or data")


def _first_frame(source: Path) -> VideoFrame:
    """Decode one frame, which knows more than the header does."""
    with _opened(source) as file:
        video = _film(file, source)
        # VP8 and VP9 keep it beside the pictures, where their decoder does not look
        told = {key.lower(): value for key, value in video.metadata.items()}
        if told.get("alpha_mode") == "1":
            raise ImageError(_TRANSPARENT.format(source))
        for frame in file.decode(video):
            return frame
    raise ImageError(f"{source} holds no frame that can be decoded")


@dataclass(frozen=True, slots=True)
class _Kept:
    """How the frames of a video mean their numbers, which stays."""

    format: str
    size: tuple[int, int]
    bits: int
    matrix: int
    tags: tuple[int, int, int, int]
    full_range: bool
    turn: _Turn
    reformatter: VideoReformatter

    @classmethod
    def of(cls, frame: VideoFrame, source: Path) -> _Kept:
        matrix = frame.colorspace
        if matrix == _UNSPECIFIED:
            matrix = 1 if frame.height >= 720 else 5  # what players take it for
        elif matrix == _RGB:
            matrix = 1
        if matrix not in _MATRICES:
            raise ImageError(f"{source}: colours of matrix {matrix} (H.273) are not supported")
        if any(component.is_alpha for component in frame.format.components):
            raise ImageError(_TRANSPARENT.format(source))
        if frame.rotation % 90:
            raise ImageError(f"{source} is turned by {frame.rotation} degrees; not supported")
        if frame.color_trc in _HDR:
            warnings.warn(
                f"{source} is HDR ({_HDR[frame.color_trc]}), but is enhanced as if it were not",
                stacklevel=3,
            )
        name, given = frame.format.name, frame.color_range
        # what FFmpeg takes grey for that doesn't say it
        whole = name.startswith("yuvj") or (name.startswith("gray") and given != ColorRange.MPEG)
        full_range = given == ColorRange.JPEG or whole
        return cls(
            format=name,
            size=(frame.width, frame.height),
            bits=max(component.bits for component in frame.format.components),
            matrix=_MATRICES[matrix],
            tags=(
                frame.colorspace,
                ColorRange.JPEG if full_range else given,
                frame.color_trc,
                frame.color_primaries,
            ),
            full_range=full_range,
            turn=_Turn.of(frame),
            reformatter=VideoReformatter(),
        )

    @staticmethod
    def interlaced(frame: VideoFrame) -> bool:
        """Tell whether a frame is two fields, taken one after the other."""
        return bool(frame.interlaced_frame)

    def pixels(self, frame: VideoFrame, source: Path) -> NDArray[Any]:
        """Give the upright RGB pixels (H, W, 3) of a frame, uint8 or uint16."""
        if (frame.width, frame.height) != self.size:
            raise ImageError(
                f"{source}: its pictures change from {self.size[0]}x{self.size[1]} to "
                f"{frame.width}x{frame.height} midway; split it there first"
            )
        if self.interlaced(frame):
            raise ImageError(f"{source} is interlaced; deinterlace it first")
        rgb = self.reformatter.reformat(
            frame,
            format="rgb48le" if self.deep else "rgb24",
            src_colorspace=self.matrix,
            dst_colorspace=self.matrix,
            src_color_range=self._range,
            dst_color_range=ColorRange.JPEG,
            interpolation=_EXACT,
        )
        return self.turn(rgb.to_ndarray())

    def frame(self, pixels: NDArray[Any], given: VideoFrame, format: str) -> VideoFrame:  # noqa: A002
        """Give the frame of RGB pixels, at the time of the one it came from."""
        rgb = VideoFrame.from_ndarray(
            np.ascontiguousarray(pixels), format="rgb48le" if self.deep else "rgb24"
        )
        made = self.reformatter.reformat(
            rgb,
            format=format,
            src_colorspace=self.matrix,
            dst_colorspace=self.matrix,
            src_color_range=ColorRange.JPEG,
            dst_color_range=self._range,
            interpolation=_EXACT,
        )
        self.tag(made, format)
        made.pts, made.time_base = given.pts, given.time_base
        return made

    def tag(self, made: Any, format: str) -> None:  # noqa: A002
        """Say of a frame or an encoder, whose pixels have a format, what its colours mean."""
        made.colorspace, made.color_range, made.color_trc, made.color_primaries = self.tags
        if made.colorspace == _RGB and not VideoFormat(format).is_rgb:
            made.colorspace = self.matrix

    @property
    def deep(self) -> bool:
        """Whether a channel has more than 8 bits."""
        return self.bits > 8

    @property
    def _range(self) -> ColorRange:
        return ColorRange.JPEG if self.full_range else ColorRange.MPEG


@dataclass(frozen=True, slots=True)
class _Turn:
    """How frames are to be turned or mirrored to stand upright."""

    sideways: bool
    upside_down: bool
    mirrored: bool

    @classmethod
    def of(cls, frame: VideoFrame) -> _Turn:
        """Read the matrix that players apply: x' = ax + cy, y' = bx + dy."""
        try:
            found: Any = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # PyAV stumbles over kinds newer than itself, such as EXIF of a JPEG
            return cls._rotated(frame.rotation)
        if found is None:
            return cls(sideways=False, upside_down=False, mirrored=False)
        a, b, _, c, d, *_ = np.frombuffer(bytes(found), np.int32)
        sideways = abs(int(b)) > abs(int(a))
        return cls(
            sideways=sideways,
            upside_down=bool((b if sideways else d) < 0),
            mirrored=bool((c if sideways else a) < 0),
        )

    @classmethod
    def _rotated(cls, degrees: int) -> _Turn:
        """Give a rotation by quarters, counterclockwise as PyAV tells it."""
        quarters = round(degrees / 90) % 4
        return cls(
            sideways=quarters in (1, 3),
            upside_down=quarters in (1, 2),
            mirrored=quarters in (2, 3),
        )

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Turn (H, W, 3)."""
        pixels = pixels.swapaxes(0, 1) if self.sideways else pixels
        return pixels[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]


def _add_video(
    writing: OutputContainer,
    video: VideoStream,
    kept: _Kept,
    codec: str,
    source: Path,
    *,
    crf: int,
    scale: int,
) -> VideoStream:
    """Set the encoder up like the video that came in."""
    options = {"crf": str(crf)} | ({"b": "0"} if codec == "libvpx-vp9" else {})
    stream = writing.add_stream(codec, rate=video.average_rate, options=options)
    if not isinstance(stream, VideoStream):
        raise ImageError(f"{codec} encodes no pictures")
    given, made = video.codec_context, stream.codec_context
    size, aspect = [given.width * scale, given.height * scale], video.sample_aspect_ratio
    if kept.turn.sideways:
        size.reverse()
        aspect = 1 / aspect if aspect else aspect
    made.width, made.height = size
    made.pix_fmt = _pixel_format(kept, codec, size)
    if kept.bits > (able := max(c.bits for c in VideoFormat(made.pix_fmt).components)):
        warnings.warn(
            f"{source} has {kept.bits} bits a channel, of which {codec} keeps {able}", stacklevel=3
        )
    if video.time_base:
        made.time_base = video.time_base
    if aspect:
        made.sample_aspect_ratio = aspect
    kept.tag(made, made.pix_fmt)
    stream.metadata.update(
        {k: v for k, v in video.metadata.items() if not k.upper().startswith(_STATISTICS)}
    )
    stream.disposition = video.disposition
    return stream


def _pixel_format(kept: _Kept, codec: str, size: list[int]) -> str:
    """Keep the format, or take one of no coarser colours that has its bits, or ten."""
    able = {found.name for found in Codec(codec, "w").video_formats or ()}
    if kept.format in able and not (kept.format.startswith("yuv4") and _odd(kept.format, size)):
        return kept.format
    finer = "yuv444p10le" if kept.deep else "yuv444p"
    if finer not in able:
        raise ImageError(f"{codec} cannot encode frames of {kept.format}; use .mp4 or .mkv")
    return finer


def _odd(name: str, size: list[int]) -> bool:
    """Tell whether a size cannot be halved as the format's colours ask."""
    colours = VideoFormat(name, *size)
    return (
        colours.chroma_width(size[0]) * 2 - size[0] == 1
        or colours.chroma_height(size[1]) * 2 - size[1] == 1
    )


_SPEAKERS = {"1 channels": "mono", "2 channels": "stereo"}
"""Of sound whose file counts its channels, but doesn't name them."""


def _add_copied(
    reading: InputContainer, writing: OutputContainer, video: VideoStream, target: Path
) -> dict[int, Any]:
    """Add what is copied as it is; by index of the stream that it comes from."""
    writing.metadata.update(reading.metadata)
    writing.set_chapters(reading.chapters())
    copied: dict[int, Any] = {}
    for stream in reading.streams:
        if stream is video:
            continue
        name = stream.codec_context.codec.canonical_name if stream.codec_context else "data"
        if stream.type in ("audio", "subtitle") and name in writing.supported_codecs:
            copied[stream.index] = writing.add_stream_from_template(stream)
            copied[stream.index].metadata.update(stream.metadata)
            copied[stream.index].disposition = stream.disposition
            layout = stream.layout.name if isinstance(stream, AudioStream) else ""
            if layout in _SPEAKERS:  # AVI doesn't name them, and MP4 must
                copied[stream.index].codec_context.layout = _SPEAKERS[layout]
        elif stream.type == "audio":
            raise ImageError(f"{target} cannot hold sound of {name}; choose .mkv, which can")
        else:
            warnings.warn(
                f"{target}: stream {stream.index} ({stream.type}, {name}) cannot be copied and is "
                "left out",
                stacklevel=3,
            )
    return copied


def _items(
    reading: InputContainer,
    video: VideoStream,
    copied: Mapping[int, Any],
    source: Path,
    *,
    edits: bool,
) -> Iterator[Packet[Any] | tuple[VideoFrame, float]]:
    """Give the packets to be copied, and the frames with the seconds since the one before.

    `edits` tells whether the target can say that some of what it holds is not to be played.
    """
    first: float | None = None
    last: float | None = None
    end = 0.0
    with _failing(source, "read"):
        for packet in reading.demux([video, *(reading.streams[index] for index in copied)]):
            if packet.stream.index != video.index:
                # without a time it only tells that the stream is at its end
                if packet.dts is not None and not (packet.is_discard and not edits):
                    yield packet
                continue
            for frame in video.decode(packet):
                if frame.pts is None or frame.time_base is None:
                    raise ImageError(f"{source} has frames without a time")
                now = float(frame.pts * frame.time_base)
                if last is not None and now <= last:
                    raise ImageError(
                        f"{source}: the times of its frames go back; convert it to .mkv or .mp4 "
                        "first"
                    )
                elapsed = 0.0 if last is None else now - last
                yield frame, elapsed
                first, last = now if first is None else first, now
                # some containers know no durations; then the last is like the one before
                end = now + (float(_seconds(frame.duration, frame.time_base)) or elapsed)
    _refuse_cut_off(reading, video, 0.0 if first is None else first, end, source)


_DURATION = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")


def _refuse_cut_off(
    reading: InputContainer, video: VideoStream, first: float, end: float, source: Path
) -> None:
    """Refuse a file of which clearly less came than its header says, the last frame included."""
    seconds = end - first
    if "matroska" in reading.format.name and len(reading.streams) > 1:
        # of few frames FFmpeg takes the film to be as long as the sound; muxers state its end
        told = _DURATION.fullmatch(video.metadata.get("DURATION", ""))
        if told is None:
            return
        hours, minutes, rest = map(float, told.groups())
        stated = 3600 * hours + 60 * minutes + rest - first
    elif video.duration is not None and video.time_base is not None:
        stated = float(video.duration * video.time_base)
    elif reading.duration is not None and len(reading.streams) == 1:
        stated = reading.duration / 1e6
        if "matroska" in reading.format.name:  # which counts from 0, not from the first frame
            stated -= max(0, reading.start_time or 0) / 1e6
    else:
        return
    frame = 1 / float(video.average_rate) if video.average_rate else 0.0
    if seconds + 3 * frame < 0.9 * stated:
        raise ImageError(f"{source} is cut off: {seconds:.2f} of {stated:.2f} s can be read")
