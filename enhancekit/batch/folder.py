"""`enhance_folder`: every picture of a folder, surviving broken ones, kills and interruptions."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from enhancekit.atomic import put_in_place
from enhancekit.batch.cluster import Ray, RayCrew, need_ray
from enhancekit.batch.crew import Crew
from enhancekit.batch.listing import Shard, find_inputs, safe_target
from enhancekit.batch.manifest import Manifest, Record, read_manifests
from enhancekit.batch.work import Job, Plan, Settings, crew_of, said_of, sha256_of
from enhancekit.errors import FolderError, ImageError, OptionError, WeightsError
from enhancekit.imaging.formats import MAX_PIXELS, SUFFIXES, Encoding

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
    engine: str = "auto",
    options: Mapping[str, Any] | None = None,
    encoding: Encoding | None = None,
    max_pixels: int = MAX_PIXELS,
    frames: Literal["first", "all"] = "first",
    recursive: bool = False,
    include: Sequence[str] = (),
    shard: Shard | None = None,
    jobs: int = 3,
    overwrite: Overwrite = "never",
    keep_going: bool = True,
    time_limit: float | None = None,
    ray: Ray | None = None,
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
        As for `enhancekit.load`, and so are `device`, `precision`, `tile`, `weights`, `engine` and
        `options`.
    strength, mode, controls
        As for `Enhancer.enhance`.
    encoding : Encoding, optional
        How the outputs are written; a `format` changes the suffixes of their names.
    max_pixels : int
        Larger pictures are refused, by their headers.
    frames : {"first", "all"}
        What to read of animations and files of several pages: the first picture, with a warning,
        or all, of which a file of the same kind is made.
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
        With `ray`, in each of the workers.
    overwrite : {"never", "always", "stale"}
        What to do where an output exists: keep it; replace it; or replace it if it is not known
        to be made of this input with these settings.
    keep_going : bool
        Go on after a failure; otherwise those in hand are finished and no more are begun.
    time_limit : float, optional
        Seconds for each file, waiting for its turn not counted; one that takes longer fails.
    ray : Ray, optional
        Make the pictures in processes of Ray, here or on a cluster whose machines see both
        folders under the same paths; this process puts the outputs in their places and keeps the
        manifest. A picture whose worker is killed is made by another.

    Yields
    ------
    Result
        First what is kept, then the others as they end. Closing the iterator, or Ctrl-C while it
        works, finishes and notes the pictures in hand.

    Raises
    ------
    FolderError
        If the input folder is missing or holds no such pictures, one of the two folders lies in
        the other in a way that would overwrite inputs, two inputs would become one output, or
        another run works into `output`.
    OptionError
        If an option has a value that cannot be used, or Ray is not installed.
    DeviceError
        If Ray cannot be reached, or its workers cannot start.
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
    if frames not in ("first", "all"):
        raise OptionError(f"frames is first or all, not {frames!r}")
    folder, root = _folders(Path(folder), Path(output))
    if ray is not None:
        need_ray()
        folder = folder.absolute()  # for processes that stand elsewhere
    names = find_inputs(folder, recursive=recursive, include=include, skip=root)
    plan = Plan(
        enhancer=enhancer,
        device=device,
        precision=precision,
        tile=tile,
        weights=None if weights is None else Path(weights),
        engine=engine,
        options=dict(options or {}),
        strength=strength,
        mode=mode,
        controls=dict(controls or {}),
        encoding=encoding or Encoding(),
        max_pixels=max_pixels,
        frames=frames,
    )
    made = _made(names, plan.encoding)
    loaded = plan.load()
    loaded.check(strength=strength, mode=mode, **plan.controls)
    if plan.encoding.format:  # else it is each file's own
        plan.encoding.options(plan.encoding.kind(root))
    settings = plan.settings(loaded)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"{root} cannot be made: {error.strerror or error}") from error

    def hire(run: _Run) -> Crew[Job, None] | RayCrew:
        if ray is None:
            return crew_of(plan, loaded, root, jobs=jobs, time_limit=time_limit)
        return RayCrew(
            ray, plan.pinned(loaded), settings, run.staging, jobs=jobs, time_limit=time_limit
        )

    run = _Run(
        folder=folder,
        root=root,
        settings=settings,
        overwrite=overwrite,
        keep_going=keep_going,
        part=f"-{shard.index}-of-{shard.count}" if shard else "",
        hire=hire,
    )
    return run.results({n: made[n] for n in names if shard is None or shard.owns(n)})


def _made(names: Sequence[str], encoding: Encoding) -> dict[str, str]:
    """Return the relative path of each input's output, refusing two that would be the same."""
    made: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in names:
        made[name] = output = encoding.renamed(name)
        if first.setdefault(output, name) != name:
            raise FolderError(
                f"{first[output]} and {name} would both become {output}; do one of them in a run "
                "of its own, with include (--include) and another output folder"
            )
    return made


def _folders(folder: Path, output: Path) -> tuple[Path, Path]:
    """Resolve the output folder, and refuse two of which one would overwrite the other."""
    if not folder.is_dir():
        raise FolderError(f"{folder} is no folder that can be read")
    if output.exists() and not output.is_dir():
        raise FolderError(f"{output} is a file; a folder's results need a folder")
    if not output.exists() and output.suffix.lower() in SUFFIXES:  # more likely a slip
        raise FolderError(
            f"{output} is the name of a picture, but {folder} is a folder, whose results need one"
        )
    try:
        root, given = output.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:  # links that lead to themselves
        raise FolderError(f"{output} or {folder} leads nowhere: {error}") from error
    if given.is_relative_to(root):
        raise FolderError(
            f"the output folder {output} holds the input {folder}, which could be overwritten; "
            "choose another"
        )
    return folder, root


_SAME_FOR_ALL = (OptionError, WeightsError)
"""What says nothing of the file that happened to be in hand."""


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run over a folder."""

    folder: Path
    root: Path
    settings: Settings
    overwrite: Overwrite
    keep_going: bool
    part: str
    """Ending of the names of what belongs to this run alone: empty, or the shard."""
    hire: Callable[[_Run], Crew[Job, None] | RayCrew]
    """Gives the workers, as soon as there is work."""
    mark: str = field(default_factory=lambda: secrets.token_hex(4))
    """Begins the names of unfinished files: a worker of a killed run may still write one."""

    @property
    def staging(self) -> Path:
        """Folder of unfinished files."""
        return self.root / f".enhancekit{self.part}"

    def results(self, made: Mapping[str, str]) -> Iterator[Result]:
        """Do the files, given as the relative paths of inputs and their outputs."""
        with (
            self._alone(),
            contextlib.closing(Manifest(self.root / f"manifest{self.part}.jsonl")) as manifest,
        ):
            kept, missing = self._sorted_out(made)
            for name, status in kept:
                yield Result(
                    input=self.folder / name,
                    output=self.root / made[name],
                    status=status,
                    total=len(made),
                )
            if not missing:
                return
            pending = deque(self._job(n, made[n], i) for i, n in enumerate(missing))
            with contextlib.closing(self.hire(self)) as crew:
                try:
                    while pending or len(crew):
                        while pending and crew.room():
                            pending[0].begun = time.perf_counter()
                            crew.start(pending.popleft())
                        job, error = crew.next()
                        if isinstance(error, _SAME_FOR_ALL):
                            raise error
                        result = self._note(manifest, job, error, len(made))
                        if result.error and not self.keep_going:
                            pending.clear()
                        yield result
                finally:
                    while len(crew):
                        job, error = crew.next()
                        if not isinstance(error, _SAME_FOR_ALL):
                            self._note(manifest, job, error, len(made))

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
        self, made: Mapping[str, str]
    ) -> tuple[list[tuple[str, Literal["kept", "stale"]]], list[str]]:
        """Tell what is kept, and what is to be made."""
        if self.overwrite == "always":
            return [], list(made)
        records = read_manifests(self.root)
        kept: list[tuple[str, Literal["kept", "stale"]]] = []
        missing = []
        for name, output in made.items():
            if not os.path.lexists(self.root / output):
                missing.append(name)
            elif self._fresh(name, output, records.get(output)):
                kept.append((name, "kept"))
            elif self.overwrite == "never":
                kept.append((name, "stale"))
            else:
                missing.append(name)
        return kept, missing

    def _fresh(self, name: str, output: str, record: Record | None) -> bool:
        """Tell whether an output is known to be made of this input with these settings."""
        if record is None or record.status != "done" or not self.settings.made(record):
            return False
        if record.input != name:
            return False
        source = self.folder / name
        try:
            if (self.root / output).stat().st_size != record.output_bytes:
                return False
            given = source.stat()
            if (given.st_size, given.st_mtime_ns) == (record.input_bytes, record.input_mtime_ns):
                return True
            return given.st_size == record.input_bytes and sha256_of(source) == record.input_sha256
        except OSError:
            return False  # doing it says what is wrong with it

    def _job(self, name: str, output: str, number: int) -> Job:
        return Job(
            relative=name,
            made=output,
            source=self.folder / name,
            target=self.root / output,
            staged=self.staging / f"{self.mark}-{number}{Path(output).suffix}",
        )

    def _note(
        self, manifest: Manifest, job: Job, error: BaseException | None, total: int
    ) -> Result:
        """Put an output in its place and note it, or note why there is none."""
        if error is None:
            try:
                self._place(job)
            except (ImageError, OSError) as refused:
                error = refused
        said = None if error is None else said_of(error, job.source)
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
                output=job.made,
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

    def _place(self, job: Job) -> None:
        # asked again: a link may have come since, and making folders would follow it
        target = safe_target(self.root, job.made)
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.overwrite == "never" and os.path.lexists(target):
            raise ImageError(f"{target} was made by somebody else in the meantime; it is kept")
        put_in_place(job.staged, target)
