"""How a file is made: read, enhanced and written beside its place, with the hashes of both."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from enhancekit.batch.crew import Crew, LateError
from enhancekit.batch.listing import safe_target
from enhancekit.batch.manifest import Record
from enhancekit.errors import EnhanceKitError, ImageError, OptionError, WeightsError
from enhancekit.imaging.formats import MAX_PIXELS, Encoding
from enhancekit.imaging.pictures import check_fits, check_output, write
from enhancekit.imaging.reading import decode, decode_frames
from enhancekit.inference.device import precision_name
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.loading import find_scheme, load
from enhancekit.weights import normalised

__all__ = ["Job", "Plan", "Settings", "crew_of", "said_of", "sha256_of"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything but the input that shapes an output."""

    enhancer: str
    version: str
    weights_sha256: str | None
    options: Mapping[str, Any]

    def made(self, record: Record) -> bool:
        """Tell whether a record is of an output made with them."""
        return (
            record.enhancer == self.enhancer
            and record.version == self.version
            and record.weights_sha256 == self.weights_sha256
            and record.options == self.options
        )


@dataclass(slots=True, kw_only=True)
class Job:
    """A file in hand; what is known of it is filled in while it is worked on."""

    source: Path
    target: Path
    staged: Path
    """Where the output is written before it is put in its place."""
    relative: str = ""
    """Path relative to the input folder, with ``/``."""
    made: str = ""
    """Path relative to the output folder, with ``/``."""
    begun: float = 0.0
    input_sha256: str | None = None
    input_bytes: int | None = None
    input_mtime_ns: int | None = None
    output_sha256: str | None = None
    output_bytes: int | None = None
    size: tuple[int, int] | None = None
    """Width and height of the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the files of a run are made; plain data, which can be sent to other processes."""

    enhancer: str
    device: str = "auto"
    precision: str = "auto"
    tile: str | int | None = "auto"
    weights: Path | None = None
    engine: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    strength: float = 1.0
    mode: str = "exact"
    controls: Mapping[str, float] = field(default_factory=dict)
    encoding: Encoding = field(default_factory=Encoding)
    max_pixels: int = MAX_PIXELS
    frames: Literal["first", "all"] = "first"

    def load(self) -> Enhancer:
        """Load the enhancer; raises what `enhancekit.load` does."""
        return load(
            self.enhancer,
            device=self.device,
            precision=self.precision,
            tile=self.tile,
            weights=self.weights,
            engine=self.engine,
            **self.options,
        )

    def pinned(self, loaded: Enhancer) -> Plan:
        """Return this plan with nothing left that another process would decide otherwise."""
        precision = precision_name(loaded.precision)
        weights = None if self.weights is None else self.weights.absolute()
        return replace(self, precision=precision, engine=loaded.engine, weights=weights)

    def settings(self, loaded: Enhancer) -> Settings:
        """Return what shapes the outputs, as it stands in the manifest."""
        provider = loaded.entry.provider
        return Settings(
            loaded.entry.qualified_name,
            # what a file is called changes nothing
            provider.version if find_scheme(self.enhancer) else str(provider),
            self._weights_hash(loaded),
            normalised(
                {
                    "options": {**loaded.entry.spec.config, **self.options},
                    "strength": self.strength,
                    "mode": self.mode,
                    "controls": dict(self.controls),
                    "precision": precision_name(loaded.precision),
                    "tile": self.tile,
                    "engine": loaded.engine,
                    "frames": self.frames,
                    "encoding": asdict(self.encoding),
                }
            ),
        )

    def _weights_hash(self, loaded: Enhancer) -> str | None:
        if self.weights is None:
            shipped = loaded.entry.spec.weights
            return shipped.sha256 if shipped else loaded.file_sha256
        try:
            return sha256_of(self.weights)
        except OSError as error:
            raise WeightsError(
                f"{self.weights} cannot be read: {error.strerror or error}"
            ) from error

    def make(self, loaded: Enhancer, job: Job) -> None:
        """Make an output, at its place for unfinished files.

        Parameters
        ----------
        loaded : Enhancer
            As `load` gives it.
        job : Job
            What is to be made; its `size` is filled in.

        Raises
        ------
        EnhanceKitError
            Naming the input, or the output's own place.
        """
        every = self.frames == "all"
        opened: Any = (decode_frames if every else decode)(job.source, max_pixels=self.max_pixels)
        with _naming(job):
            check_output(job.staged, self.encoding)
            check_fits(opened, job.staged, self.encoding, scale=loaded.entry.spec.scale)
        if every:
            pictures = tuple(self._enhanced(loaded, picture) for picture in opened.pictures)
            done: Any = replace(opened, pictures=pictures)
        else:
            pictures = (self._enhanced(loaded, opened),)
            (done,) = pictures
        with _naming(job):
            write(done, job.staged, self.encoding, called=job.target)
        job.size = pictures[0].size

    def _enhanced(self, loaded: Enhancer, picture: Any) -> Any:
        return loaded.enhance(picture, strength=self.strength, mode=self.mode, **self.controls)


def _make_known(plan: Plan, loaded: Enhancer, job: Job, root: Path) -> None:
    """Make an output with the hashes of both files, of an input that stays the same meanwhile."""
    safe_target(root, job.made)
    try:
        before = job.source.stat()
        if not stat.S_ISREG(before.st_mode):  # reading a pipe would wait for ever
            raise ImageError(f"{job.source} is no regular file")
        if job.target.exists() and job.target.samefile(job.source):
            raise ImageError(f"{job.source} would overwrite itself; choose another output")
        job.input_sha256 = sha256_of(job.source)
        job.input_bytes, job.input_mtime_ns = before.st_size, before.st_mtime_ns
    except OSError as error:
        raise ImageError(f"{job.source} cannot be read: {error.strerror or error}") from error
    plan.make(loaded, job)
    after = job.source.stat()
    if (after.st_size, after.st_mtime_ns) != (job.input_bytes, job.input_mtime_ns):
        raise ImageError(f"{job.source} was changed while it was read; run again")
    job.output_sha256, job.output_bytes = sha256_of(job.staged), job.staged.stat().st_size


def sha256_of(path: Path) -> str:
    """Return the hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _naming(job: Job) -> Iterator[None]:
    """Name the output, not the unfinished file; how it is encoded is this file's matter."""
    try:
        yield
    except (ImageError, OptionError) as error:
        said = str(error)
        if not any(str(path) in said for path in (job.staged, job.target)):
            said = f"{job.target}: {said}"
        raise ImageError(said.replace(str(job.staged), str(job.target))) from error


def crew_of(
    plan: Plan, loaded: Enhancer, root: Path, *, jobs: int, time_limit: float | None
) -> Crew[Job, None]:
    """Return threads that make files by a plan, and compute one at a time."""
    crew: Crew[Job, None] = Crew(
        lambda job: _make_known(plan, computed, job, root), jobs, time_limit
    )
    computed = loaded.computed_by(crew.compute)
    return crew


def said_of(error: BaseException, source: os.PathLike[str]) -> str:
    """Return the line that tells why a file failed.

    Examples
    --------
    >>> said_of(OSError("no space left"), Path("a.png"))
    'a.png: OSError: no space left'
    """
    if isinstance(error, LateError):
        return f"{source} {error} and was given up; a higher time limit allows more"
    if isinstance(error, EnhanceKitError):
        return str(error)
    return f"{source}: {type(error).__name__}: {error}"
