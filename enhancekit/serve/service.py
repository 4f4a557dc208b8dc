"""From the bytes of a picture to the bytes of a better one, for many requests at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from enhancekit.errors import EnhanceKitError, OptionError
from enhancekit.imaging.formats import Encoding, Format
from enhancekit.imaging.pictures import Picture, check_fits, encode
from enhancekit.imaging.reading import decode
from enhancekit.inference.device import choose_device
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.loading import find_scheme, load
from enhancekit.inference.parts import Part, Source
from enhancekit.plugins import host
from enhancekit.registry import Entry
from enhancekit.serve.asked import MEDIA_TYPES, Asked, acceptable
from enhancekit.serve.computer import LARGEST, Computer
from enhancekit.serve.pool import Job, Pool
from enhancekit.serve.problems import ProblemError
from enhancekit.serve.settings import Settings
from enhancekit.serve.warned import collected
from enhancekit.specs import EnhancerSpec

__all__ = ["Done", "Service"]

THREADS = 4
"""Pictures worked on at once: one is computed while others are read and written."""


@dataclass(frozen=True, slots=True)
class Done:
    """An enhanced picture, encoded."""

    body: bytes
    media_type: str
    enhancer: str
    """Its qualified name."""
    size: tuple[int, int]
    """Width and height."""
    seconds: Mapping[str, float]
    """By stage: ``decode``, ``wait``, ``compute``, ``encode``."""
    warnings: tuple[str, ...]
    """What got lost, in words."""


class _Stages(threading.local):
    """How long each stage of the request took that this thread is working on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.job: Job[Any] | None = None


class _Model(NamedTuple):
    """One instance of an enhancer, called in two ways."""

    in_turn: Enhancer
    """Computes part by part."""
    together: Enhancer
    """Computes small pictures, several at once."""

    def fitting(self, pixels: int) -> Enhancer:
        return self.together if pixels <= LARGEST else self.in_turn


class Service:
    """Enhances the bytes of pictures, with one instance of each enhancer.

    Parameters
    ----------
    settings : Settings
        What is offered, and how much is taken on.

    Raises
    ------
    EnhanceKitError
        If an enhancer that shall be offered, or the device, does not exist.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> buffer = io.BytesIO()
    >>> Image.new("L", (4, 3), 64).save(buffer, "PNG")
    >>> service = Service(Settings(enhancers=("gamma",)))
    >>> service.submit(buffer.getvalue(), Asked(), "image/webp, */*;q=0.1").future.result().size
    (4, 3)
    >>> service.close()
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        choose_device(settings.device)
        self._models: dict[str, _Model] = {}
        self.entries = list(self._offered())
        self.default = self._default()
        self.computer = Computer()
        self.pool = Pool(THREADS, settings.queue)
        self._loading = threading.Lock()
        self._stages = _Stages()

    def submit(self, body: bytes, asked: Asked, accept: str) -> Job[Done]:
        """Put a picture in the queue.

        Raises
        ------
        BusyError
            If it is full.
        OptionError
            If the enhancer is not offered.
        """
        entry = self.find(asked.enhancer)
        return self.pool.submit(lambda job: self._enhance(job, body, asked, accept, entry))

    def find(self, name: str | None) -> Entry[EnhancerSpec]:
        """Return what is offered by a name; ``None`` asks for the default.

        Raises
        ------
        OptionError
            If nothing is.
        """
        offered = ", ".join(e.qualified_name for e in self.entries)
        if name is None:
            if self.default is None:
                raise OptionError(f"name an enhancer; this server offers {offered}")
            return self.default
        for known in self.entries:
            if known.qualified_name == name:  # of a scheme, which the registry doesn't know
                return known
        entry = host().enhancers.get(name)
        if entry not in self.entries:
            raise OptionError(
                f"this server does not offer {entry.qualified_name}; it has {offered}"
            )
        return entry

    def warm_up(self) -> None:
        """Load the default enhancer and use it once, so that the first request need not wait."""
        if self.default is not None:
            self._model(self.default).in_turn.run(torch.zeros(1, 3, 64, 64))

    def close(self) -> None:
        """Let the threads end after what is waiting."""
        self.pool.close()
        self.computer.close()

    def _offered(self) -> Iterator[Entry[EnhancerSpec]]:
        """Yield what is named, or else everything that can be used as it is installed."""
        if not self.settings.enhancers:
            yield from filter(_is_ready, host().enhancers.list())
        offered: list[Entry[EnhancerSpec]] = []
        for name in dict.fromkeys(self.settings.enhancers):
            if find_scheme(name):
                loaded = self._load(name)
                entry = loaded.entry
                if entry.qualified_name in self._models:
                    raise OptionError(
                        f"{name} is one more {entry.qualified_name}; a server offers one of a name"
                    )
                self._models[entry.qualified_name] = self._model_of(loaded)
            else:
                entry = host().enhancers.get(name)
            if not _is_ready(entry) and entry.qualified_name not in self._models:
                raise OptionError(
                    f"{entry} has no weights, and so cannot be served; name the file of yours: "
                    "file:PATH"
                )
            if entry not in offered:  # by its bare and by its full name, say
                offered.append(entry)
                yield entry

    def _default(self) -> Entry[EnhancerSpec] | None:
        if self.settings.enhancers:
            return self.entries[0]
        chosen = [e for e in self.entries if e.spec.default]
        return chosen[0] if len(chosen) == 1 else None

    def _enhance(
        self, job: Job[Done], body: bytes, asked: Asked, accept: str, entry: Entry[EnhancerSpec]
    ) -> Done:
        seconds: dict[str, float] = {}
        self._stages.job, self._stages.seconds = job, seconds
        scale = entry.spec.scale
        with collected() as warned:
            model = self._model(entry)
            with _timed(seconds, "decode"):
                opened = decode(body, max_pixels=max(1, self.settings.max_pixels // scale**2))
            kind = _chosen(opened, accept, asked.encoding, scale)
            name = _name(kind)
            job.check()
            begun = time.perf_counter()
            result: Any = model.fitting(opened.width * opened.height).enhance(
                opened, strength=asked.strength, mode=asked.mode, **asked.controls
            )
            spent = time.perf_counter() - begun
            # turning pixels to floats and back belongs to computing, waiting for a turn does not
            seconds["compute"] = spent - seconds.setdefault("wait", 0.0)
            job.check()
            with _timed(seconds, "encode"):
                encoded = encode(result, name, asked.encoding)
        return Done(
            encoded,
            MEDIA_TYPES[kind.name],
            entry.qualified_name,
            result.size,
            seconds,
            tuple(warned),
        )

    def _model(self, entry: Entry[EnhancerSpec]) -> _Model:
        """Return the one instance of an enhancer."""
        name = entry.qualified_name
        if name not in self._models:
            with self._loading:
                if name not in self._models:
                    self._models[name] = self._model_of(self._load(name))
        return self._models[name]

    def _load(self, name: str) -> Enhancer:
        return load(
            name,
            device=self.settings.device,
            precision=self.settings.precision,
            tile=self.settings.tile,
        )

    def _model_of(self, loaded: Enhancer) -> _Model:
        in_turn = loaded.computed_by(self._in_turn)
        if loaded.module is None:  # functions gain nothing by being called for several pictures
            return _Model(in_turn, in_turn)

        def run(
            source: Source, _dtype: torch.dtype, controls: Mapping[str, float], _turned: bool
        ) -> Iterator[Part]:
            turn = _Turn(self._stages)
            yield Part.whole(self.computer.small(loaded, source.read(), controls, turn.wanted))

        return _Model(in_turn, loaded.running(run))

    def _in_turn(self, function: Callable[[], Part | None]) -> Part | None:
        """Compute a part of a picture in the thread for that; other pictures come in between."""
        return self.computer.call(function, _Turn(self._stages).wanted)


class _Turn:
    """Notes how long a request waited for its turn, and whether anybody still waits for it."""

    def __init__(self, stages: _Stages) -> None:
        self._job, self._seconds = stages.job, stages.seconds
        self._begun = time.perf_counter()

    def wanted(self) -> bool:
        waited = time.perf_counter() - self._begun
        self._seconds["wait"] = self._seconds.get("wait", 0.0) + waited
        return self._job is None or not self._job.given_up


def _is_ready(entry: Entry[EnhancerSpec]) -> bool:
    return bool(entry.spec.target or entry.spec.weights)


def _chosen(opened: Picture, accept: str, encoding: Encoding, scale: int) -> Format:
    """Return the best accepted format that can hold the result."""
    kinds = acceptable(accept, opened.format or "")
    if not kinds:
        raise ProblemError(
            406, f"none of {accept!r} is written; written are {', '.join(MEDIA_TYPES.values())}"
        )
    refused: EnhanceKitError | None = None
    for kind in kinds:
        try:
            encoding.options(kind)
            check_fits(opened, _name(kind), encoding, scale=scale)
        except EnhanceKitError as error:
            refused = refused or error
        else:
            return kind
    assert refused is not None  # noqa: S101  there was at least one kind
    raise refused


def _name(kind: Format) -> Path:
    """Return what errors call the result."""
    return Path(f"the result{kind.suffixes[0]}")


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - begun
