"""`enhance_folder`: every picture of a folder, surviving broken ones, kills and interruptions."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from enhancekit.batch.crew import Crew, LateError
from enhancekit.batch.listing import Shard, find_inputs, safe_target
from enhancekit.batch.manifest import Manifest, Record, read_manifests
from enhancekit.errors import (
    EnhanceKitError,
    FolderError,
    ImageError,
    OptionError,
    WeightsError,
)
from enhancekit.imaging.files import check_fits, check_output, decode, write
from enhancekit.imaging.formats import MAX_PIXELS, Encoding
from enhancekit.inference.enhancer import Enhancer
from enhancekit.inference.loading import load
from enhancekit.weights import normalised

__all__ = ["Overwrite", "Result", "enhance_folder"]

Overwrite = Literal["never", "always", "stale"]
"""What is done where an output exists already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one picture of a folder."""

    input: Path
    """The file."""
    output: Path
    """Where the result lies, or would lie."""
    status: Literal["done", "kept", "stale", "failed"]
    """``"kept"``: the output existed. ``"stale"``: it existed and was kept, too, but it was made
    of another input or with other settings, or nothing is known of it."""
    error: str | None = None
    """Why it failed."""
    seconds: float = 0.0
    """How long it took, waiting for its turn included."""
    total: int
    """How many results this run gives in all."""


@dataclass(frozen=True, slots=True)
class _Settings:
    """Everything but the input that shapes an output."""

    enhancer: str
    version: str
    weights_sha256: str | None
    options: Mapping[str, Any]

    def made(self, record: Record) -> bool:
        return (
            record.enhancer == self.enhancer
            and record.version == self.version
            and record.weights_sha256 == self.weights_sha256
            and record.options == self.options
        )


@dataclass(slots=True)
class _Job:
    """A file in hand; filled while it is worked on."""

    relative: str
    source: Path
    target: Path
    staged: Path
    begun: float = 0.0
    input_sha256: str | None = None
    input_bytes: int | None = None
    input_mtime_ns: int | None = None
    output_sha256: str | None = None
    output_bytes: int | None = None


def enhance_folder(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    enhancer: str,
    *,
    strength: float = 1.0,
    mode: str = "exact",
    controls: Mapping[str, float] | None = None,
    device: str = "auto",
    precision: str = "auto",
    tile: str | int | None = "auto",
    weights: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    encoding: Encoding | None = None,
    max_pixels: int = MAX_PIXELS,
    recursive: bool = False,
    include: Sequence[str] = (),
    shard: Shard | None = None,
    jobs: int = 3,
    overwrite: Overwrite = "never",
    keep_going: bool = True,
    time_limit: float | None = None,
) -> Iterator[Result]:
    """Enhance the pictures of a folder into another, by the same names.

    An output appears whole or not at all, and is then noted in ``manifest.jsonl`` of the output
    folder (``manifest-i-of-n.jsonl`` for a shard), see `Record`. Called again after it was
    killed, it goes on where it was; at most `jobs` files are done twice.

    Parameters
    ----------
    folder, output : path-like
        Where the pictures lie and where the results go; `output` is made if missing. Links in
        `output` that lead out of it are refused.
    enhancer : str
        As for `enhancekit.load`, and so are `device`, `precision`, `tile`, `weights` and `options`.
    strength, mode, controls
        As for `Enhancer.enhance`.
    encoding : Encoding, optional
        How the outputs are written.
    max_pixels : int
        Larger pictures are refused, by their headers.
    recursive : bool
        Do the subfolders, too; links to folders are not followed.
    include : sequence of str
        Patterns such as ``"*.jpg"`` of which one must match the name (or, with a ``/``, the
        relative path), in either case; by default the suffixes of all formats that are read.
        Names that start with a dot are left out.
    shard : Shard, optional
        Only this part of the files.
    jobs : int
        How many pictures are in hand at once: one is computed while others are read and written.
    overwrite : {"never", "always", "stale"}
        What to do where an output exists: keep it; replace it; or replace it if it is not known
        to be made of this input with these settings.
    keep_going : bool
        Go on after a failure; otherwise those in hand are finished and no more are begun.
    time_limit : float, optional
        Seconds for each file, waiting for its turn not counted; one that takes longer fails.

    Yields
    ------
    Result
        First what is kept, then the others as they end. Closing the iterator, or Ctrl-C while it
        works, finishes and notes the pictures in hand.

    Raises
    ------
    FolderError
        If the input folder is missing or holds no such pictures, one of the two folders lies in
        the other in a way that would overwrite inputs, or another run works into `output`.
    OptionError
        If an option has a value that cannot be used.
    EnhanceKitError
        Whatever `enhancekit.load` raises.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> home = Path(tempfile.mkdtemp())
    >>> (home / "in").mkdir()
    >>> Image.new("L", (4, 4), 9).save(home / "in" / "a.png")
    >>> [r.status for r in enhance_folder(home / "in", home / "out", "gamma")]
    ['done']
    >>> [r.status for r in enhance_folder(home / "in", home / "out", "gamma")]
    ['kept']
    """
    if jobs < 1:
        raise OptionError(f"jobs is at least 1, not {jobs}")
    if time_limit is not None and not time_limit > 0:
        raise OptionError(f"the time limit is above 0 seconds, not {time_limit}")
    if overwrite not in ("never", "always", "stale"):
        raise OptionError(f"overwrite is never, always or stale, not {overwrite!r}")
    folder, root = _folders(Path(folder), Path(output))
    names = find_inputs(folder, recursive=recursive, include=include, skip=root)
    if not names:
        raise FolderError(
            f"{folder} holds no pictures"
            + (f" that match {' or '.join(include)}" if include else "")
            + ("" if recursive else "; its subfolders are done with recursive")
        )
    loaded = load(
        enhancer,
        device=device,
        precision=precision,
        tile=tile,
        weights=weights,
        **(options or {}),
    )
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"{root} cannot be made: {error.strerror or error}") from error
    settings = _Settings(
        loaded.entry.qualified_name,
        str(loaded.entry.provider),
        _weights_hash(loaded, weights),
        normalised(
            {
                "options": {**loaded.entry.spec.config, **(options or {})},
                "strength": strength,
                "mode": mode,
                "controls": dict(controls or {}),
                "precision": str(loaded.precision).removeprefix("torch."),
                "tile": tile,
                "encoding": asdict(encoding or Encoding()),
            }
        ),
    )
    run = _Run(
        folder=folder,
        root=root,
        enhancer=loaded,
        settings=settings,
        strength=strength,
        mode=mode,
        controls=dict(controls or {}),
        encoding=encoding or Encoding(),
        max_pixels=max_pixels,
        overwrite=overwrite,
        part=f"-{shard.index}-of-{shard.count}" if shard else "",
    )
    return run.results(
        [name for name in names if shard is None or shard.owns(name)],
        jobs=jobs,
        keep_going=keep_going,
        time_limit=time_limit,
    )


def _folders(folder: Path, output: Path) -> tuple[Path, Path]:
    """Resolve the output folder, and refuse two of which one would overwrite the other."""
    if not folder.is_dir():
        raise FolderError(f"{folder} is no folder that can be read")
    if output.exists() and not output.is_dir():
        raise FolderError(f"{output} is a file; a folder's results need a folder")
    root = output.resolve()
    if folder.resolve().is_relative_to(root):
        raise FolderError(
            f"the output folder {output} holds the input {folder}, which could be overwritten; "
            "choose another"
        )
    return folder, root


def _weights_hash(enhancer: Enhancer, weights: str | os.PathLike[str] | None) -> str | None:
    if weights is None:
        shipped = enhancer.entry.spec.weights
        return shipped.sha256 if shipped else None
    try:
        return _sha256(Path(weights))
    except OSError as error:
        raise WeightsError(f"{weights} cannot be read: {error.strerror or error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run over a folder."""

    folder: Path
    root: Path
    enhancer: Enhancer
    settings: _Settings
    strength: float
    mode: str
    controls: Mapping[str, float]
    encoding: Encoding
    max_pixels: int
    overwrite: Overwrite
    part: str
    """Ending of the names of what belongs to this run alone: empty, or the shard."""

    @property
    def staging(self) -> Path:
        """Folder of unfinished files."""
        return self.root / f".enhancekit{self.part}"

    def results(
        self, names: Sequence[str], *, jobs: int, keep_going: bool, time_limit: float | None
    ) -> Iterator[Result]:
        crew: Crew[_Job, None] = Crew(self._work, time_limit)
        self.enhancer = self.enhancer.computed_by(crew.compute)
        with (
            self._alone(),
            contextlib.closing(Manifest(self.root / f"manifest{self.part}.jsonl")) as manifest,
            contextlib.closing(crew),
        ):
            kept, missing = self._sorted_out(names)
            for name, status in kept:
                yield Result(
                    input=self.folder / name,
                    output=self.root / name,
                    status=status,
                    total=len(names),
                )
            pending = deque(missing)
            try:
                while pending or len(crew):
                    while pending and len(crew) < jobs:
                        name = pending.popleft()
                        crew.start(self._job(name, len(missing) - len(pending)))
                    job, error = crew.next()
                    result = self._note(manifest, job, error, len(names))
                    if isinstance(error, (OptionError, WeightsError)):
                        raise error  # it would be the same for every other file
                    if result.error and not keep_going:
                        pending.clear()
                    yield result
            finally:
                while len(crew):
                    self._note(manifest, *crew.next(), len(names))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder of unfinished files, empty of what a killed run left there."""
        if self.staging.is_symlink():
            raise FolderError(f"{self.staging} is a link, which it may not be; remove it")
        lock = FileLock(self.staging / "lock", timeout=0, thread_local=False)
        try:
            self.staging.mkdir(exist_ok=True)
            lock.acquire()
            for left in self.staging.iterdir():
                if left.name != "lock":
                    left.unlink()
        except Timeout:
            raise FolderError(
                f"another run works into {self.root}; wait for it, or share the work out in shards"
            ) from None
        except OSError as error:
            raise FolderError(f"{self.root} cannot be written to: {error}") from error
        try:
            yield
        finally:
            shutil.rmtree(self.staging, ignore_errors=True)
            lock.release()

    def _sorted_out(
        self, names: Sequence[str]
    ) -> tuple[list[tuple[str, Literal["kept", "stale"]]], list[str]]:
        """Tell what is kept, and what is to be made."""
        if self.overwrite == "always":
            return [], list(names)
        records = read_manifests(self.root)
        kept: list[tuple[str, Literal["kept", "stale"]]] = []
        missing = []
        for name in names:
            if not os.path.lexists(self.root / name):
                missing.append(name)
            elif self._fresh(name, records.get(name)):
                kept.append((name, "kept"))
            elif self.overwrite == "never":
                kept.append((name, "stale"))
            else:
                missing.append(name)
        return kept, missing

    def _fresh(self, name: str, record: Record | None) -> bool:
        """Tell whether an output is known to be made of this input with these settings."""
        if record is None or record.status != "done" or not self.settings.made(record):
            return False
        source = self.folder / name
        try:
            if (self.root / name).stat().st_size != record.output_bytes:
                return False
            given = source.stat()
            if (given.st_size, given.st_mtime_ns) == (record.input_bytes, record.input_mtime_ns):
                return True
            return given.st_size == record.input_bytes and _sha256(source) == record.input_sha256
        except OSError:
            return False  # doing it says what is wrong with it

    def _job(self, name: str, number: int) -> _Job:
        return _Job(
            name,
            self.folder / name,
            self.root / name,
            self.staging / f"{number}{Path(name).suffix}",
            time.perf_counter(),
        )

    def _work(self, job: _Job) -> None:
        """Make an output, in the folder of unfinished files."""
        safe_target(self.root, job.relative)
        try:
            before = job.source.stat()
            if not stat.S_ISREG(before.st_mode):  # reading a pipe would wait for ever
                raise ImageError(f"{job.source} is no regular file")
            if job.target.exists() and job.target.samefile(job.source):
                raise ImageError(f"{job.source} would overwrite itself; choose another output")
            job.input_sha256 = _sha256(job.source)
            job.input_bytes, job.input_mtime_ns = before.st_size, before.st_mtime_ns
        except OSError as error:
            raise ImageError(f"{job.source} cannot be read: {error.strerror or error}") from error
        opened = decode(job.source, max_pixels=self.max_pixels)
        scale = self.enhancer.entry.spec.scale
        with self._naming(job):
            check_output(job.staged, self.encoding)
            check_fits(opened, job.staged, self.encoding, scale=scale)
        picture: Any = self.enhancer.enhance(
            opened, strength=self.strength, mode=self.mode, **self.controls
        )
        with self._naming(job):
            write(picture, job.staged, self.encoding)
        after = job.source.stat()
        if (after.st_size, after.st_mtime_ns) != (job.input_bytes, job.input_mtime_ns):
            raise ImageError(f"{job.source} was changed while it was read; run again")
        job.output_sha256, job.output_bytes = _sha256(job.staged), job.staged.stat().st_size

    @contextlib.contextmanager
    def _naming(self, job: _Job) -> Iterator[None]:
        """Name the output, not the unfinished file; how it is encoded is this file's matter."""
        try:
            yield
        except (ImageError, OptionError) as error:
            said = str(error)
            if str(job.staged) not in said:
                said = f"{job.target}: {said}"
            raise ImageError(said.replace(str(job.staged), str(job.target))) from error

    def _note(
        self, manifest: Manifest, job: _Job, error: BaseException | None, total: int
    ) -> Result:
        """Put an output in its place and note it, or note why there is none."""
        if error is None:
            try:
                self._place(job)
            except (ImageError, OSError) as refused:
                error = refused
        said = None if error is None else _said(error, job)
        if said is not None:
            job.output_sha256 = job.output_bytes = None
            with contextlib.suppress(OSError):
                job.staged.unlink()
        seconds = round(time.perf_counter() - job.begun, 3)
        manifest.append(
            Record(
                input=job.relative,
                input_sha256=job.input_sha256,
                input_bytes=job.input_bytes,
                input_mtime_ns=job.input_mtime_ns,
                output=job.relative,
                output_sha256=job.output_sha256,
                output_bytes=job.output_bytes,
                enhancer=self.settings.enhancer,
                version=self.settings.version,
                weights_sha256=self.settings.weights_sha256,
                options=self.settings.options,
                seconds=seconds,
                status="done" if said is None else "failed",
                error=said,
                finished=datetime.now(UTC).isoformat(),
            )
        )
        return Result(
            input=job.source,
            output=job.target,
            status="done" if said is None else "failed",
            error=said,
            seconds=seconds,
            total=total,
        )

    def _place(self, job: _Job) -> None:
        # asked again: a link may have come since, and making folders would follow it
        target = safe_target(self.root, job.relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.overwrite == "never" and os.path.lexists(target):
            raise ImageError(f"{target} was made by somebody else in the meantime; it is kept")
        job.staged.replace(target)


def _said(error: BaseException, job: _Job) -> str:
    if isinstance(error, LateError):
        return f"{job.source} {error} and was given up; a higher time limit allows more"
    if isinstance(error, EnhanceKitError):
        return str(error)
    return f"{job.source}: {type(error).__name__}: {error}"
