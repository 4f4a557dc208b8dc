"""Workers in processes of Ray, here or on a cluster; what a lost one had in hand is redone."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
import warnings
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from enhancekit.batch.work import Job, Plan, Settings
from enhancekit.batch.worker import Ended, Worker
from enhancekit.errors import DeviceError, ImageError, OptionError

__all__ = ["Ray", "RayCrew", "Share", "need_ray", "share_of"]

logger = logging.getLogger(__name__)

_STORE = 200 * 2**20
"""Bytes of Ray's store of objects, where it is started here; it holds names and hashes only."""
_ATTEMPTS = 3
"""How many workers a picture may take down before it is taken for the cause."""
_PATIENCE = 60.0
"""Seconds without any worker after which it is said that they are waited for."""


@dataclass(frozen=True, slots=True)
class Ray:
    """Where the pictures of a folder are made: by workers of Ray; needs ``enhancekit[ray]``.

    A process that is connected to Ray already stays so, and uses that connection.

    Parameters
    ----------
    address : str
        ``"local"`` starts Ray on this machine, for this run alone. ``"auto"`` is the cluster that
        this machine belongs to, or the one of the variable ``RAY_ADDRESS``; otherwise an address
        such as ``"ray://head:10001"``.
    workers : int, optional
        How many; by default one for each GPU, or without any, one for every four CPUs. More of
        them share the GPUs, or the CPUs, evenly.

    Raises
    ------
    OptionError
        If there would be no worker.
    """

    address: str = "local"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"workers are at least 1, not {self.workers}")
        if not self.address:
            raise OptionError("Ray's address is local, auto, or e.g. ray://head:10001")


@dataclass(frozen=True, slots=True)
class Share:
    """What each worker reserves."""

    workers: int
    cpus: float
    gpus: float
    threads: int


def share_of(
    nodes: Sequence[Mapping[str, float]], device: str, workers: int | None = None
) -> Share:
    """Share a cluster out.

    Parameters
    ----------
    nodes : sequence of mapping
        ``CPU`` and ``GPU`` of each machine, as Ray tells them.
    device : str
        As for `enhancekit.load`.
    workers : int, optional
        As for `Ray`.

    Raises
    ------
    DeviceError
        If there is nothing of the kind.

    Examples
    --------
    >>> share_of([{"CPU": 16, "GPU": 2}], "auto")
    Share(workers=2, cpus=1, gpus=1.0, threads=8)
    >>> share_of([{"CPU": 4}, {"CPU": 8}], "auto", 3)
    Share(workers=3, cpus=4, gpus=0.0, threads=4)
    >>> share_of([{"CPU": 2}], "cpu", 4)
    Share(workers=4, cpus=0.5, gpus=0.0, threads=1)
    """
    if device not in ("auto", "cpu", "cuda"):
        raise OptionError(
            f"with Ray, which gives out the GPUs, device is auto, cpu or cuda, not {device!r}"
        )
    cpus = sum(node.get("CPU", 0) for node in nodes)
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if cpus <= 0 or (device == "cuda" and not gpus):
        raise DeviceError(f"Ray's cluster has {cpus:g} CPUs and {gpus} GPUs; give it more")
    on_gpus = device != "cpu" and gpus > 0
    count = workers or (gpus if on_gpus else max(1, int(cpus) // 4))
    part = cpus / count
    threads = max(1, int(part))
    if on_gpus:
        each = -(-count // gpus)
        # its own share of one CPU at most: others' work on the cluster needs some, too
        return Share(count, 1 if part >= 1 else _hundredths(part), _hundredths(1 / each), threads)
    if part < 1:
        return Share(count, _hundredths(part), 0.0, 1)
    while threads > 1 and sum(node.get("CPU", 0) // threads for node in nodes) < count:
        threads -= 1  # a worker lies on one machine
    return Share(count, threads, 0.0, threads)


def _hundredths(part: float) -> float:
    if part < 0.01:
        raise OptionError("that many workers are more than a hundred for each CPU or GPU")
    return int(part * 100) / 100


def need_ray() -> Any:
    """Return the module, or say how to get it.

    Raises
    ------
    OptionError
        If it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise OptionError(
            f"Ray is not installed; install it with: pip install 'enhancekit[ray]' ({error})"
        ) from error
    return ray


@dataclass(slots=True, eq=False)
class _Hand:
    """A worker and what it has in hand."""

    actor: Any
    opening: Any
    """Tells that it is ready; ``None`` once it is."""
    where: str = ""
    jobs: dict[Path, Job] = field(default_factory=dict)
    new: list[Job] = field(default_factory=list)
    """Those of them that it hasn't been told of yet."""
    call: Any = None
    """Tells of the next job that ends."""
    alone: bool = False
    """Whether it is to do one job by itself, which may have taken another worker down."""


class RayCrew:
    """Works on files like `enhancekit.batch.crew.Crew`, in processes of Ray.

    Nothing but this process puts outputs in their places. A worker that was taken for lost may
    thus still be writing: its unfinished file has a name that is never looked at again.

    Parameters
    ----------
    where : Ray
        Which cluster, and how many workers.
    plan : Plan
        How files are made; pinned, so that it comes to the same everywhere.
    settings : Settings
        What it comes to here.
    staging : Path
        Folder of unfinished files, absolute.
    jobs, time_limit
        As for `enhancekit.batch.enhance_folder`; `jobs` for each worker.

    Raises
    ------
    DeviceError
        If the cluster cannot be reached, or holds no such workers.
    """

    def __init__(
        self,
        where: Ray,
        plan: Plan,
        settings: Settings,
        staging: Path,
        *,
        jobs: int,
        time_limit: float | None,
    ) -> None:
        self._ray = need_ray()
        self._jobs = jobs
        self._hands: list[_Hand] = []
        self._again: deque[Job] = deque()
        self._given_up: deque[tuple[Job, ImageError]] = deque()
        self._taken_down: Counter[Path] = Counter()
        self._false_starts = 0
        self._broken: Exception | None = None
        self._own = self._connect(where.address)
        try:
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            share = share_of(nodes, plan.device, where.workers)
            self._actor = self._ray.remote(num_cpus=share.cpus, num_gpus=share.gpus)(Worker)
            self._given = (plan, settings, staging, jobs, time_limit, share.threads)
            for _ in range(share.workers):
                self._hire()
        except BaseException:
            self.close()
            raise
        self._allowed = 3 * share.workers

    def _connect(self, address: str) -> bool:
        """Connect to Ray; return whether the connection is ours to end."""
        ray = self._ray
        if ray.is_initialized():
            return False
        self._on_sigterm = signal.getsignal(signal.SIGTERM)
        given: dict[str, Any] = {}
        if address == "local":
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
            given = {"object_store_memory": _STORE, "include_dashboard": False}
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                configure_logging=False,
                logging_level=logging.ERROR,
                **given,
            )
        except Exception as error:  # it raises ConnectionError, RuntimeError, ValueError ...
            raise DeviceError(
                f"Ray cannot be reached at {address!r} ({type(error).__name__}: {error}); use an "
                "address of a running cluster, or 'local'"
            ) from error
        return True

    def __len__(self) -> int:
        """Count the jobs in hand."""
        return len(self._again) + len(self._given_up) + sum(len(h.jobs) for h in self._hands)

    def room(self) -> int:
        """Count the jobs that may be begun now; waits for a first worker.

        Raises
        ------
        EnhanceKitError
            If no worker can start.
        """
        begun, told = time.monotonic(), False
        while not any(hand.opening is None for hand in self._hands):
            self._wait([hand.opening for hand in self._hands])
            if not told and time.monotonic() - begun > _PATIENCE:
                told = True
                warnings.warn(
                    f"Ray has started none of {len(self._hands)} workers in {_PATIENCE:.0f} s; "
                    "perhaps others use the cluster. Still waiting",
                    stacklevel=2,
                )
        if self._again or self._given_up:  # first, so that a bad picture is found out soon
            return 0
        return sum(self._free(hand) for hand in self._hands)

    def start(self, job: Job) -> None:
        """Begin a job."""
        self._give(max(self._hands, key=self._free), job)

    def next(self) -> tuple[Job, BaseException | None]:
        """Wait until a job ends; return it as it was filled, with its error if it failed.

        Raises
        ------
        EnhanceKitError
            If no worker is left and none can start.
        """
        while True:
            if self._given_up:
                return self._given_up.popleft()
            for hand in self._hands:
                if self._again and hand.opening is None and not hand.jobs:
                    hand.alone = True
                    self._give(hand, self._again.popleft())
                if hand.jobs and hand.call is None:
                    hand.call, hand.new = hand.actor.step.remote(hand.new), []
            for ref in self._wait(
                [h.opening or h.call for h in self._hands if h.opening or h.call]
            ):
                for hand in [h for h in self._hands if h.call is ref]:
                    if (ended := self._ended(hand)) is not None:
                        return ended

    def close(self) -> None:
        """End the workers, and Ray if it was started for them."""
        for hand in self._hands:
            self._kill(hand)
        if self._own:
            self._ray.shutdown()
            with contextlib.suppress(ValueError):  # in a thread, where Ray sets none either
                signal.signal(signal.SIGTERM, self._on_sigterm)  # Ray has put its own there

    def _hire(self) -> None:
        actor = self._actor.remote()
        self._hands.append(_Hand(actor, actor.open.remote(*self._given)))

    def _free(self, hand: _Hand) -> int:
        return 0 if hand.opening is not None or hand.alone else self._jobs - len(hand.jobs)

    def _give(self, hand: _Hand, job: Job) -> None:
        hand.jobs[job.staged] = job
        hand.new.append(job)

    def _wait(self, refs: list[Any]) -> list[Any]:
        """Wait a moment; take note of workers that are ready, and return what else is."""
        if not self._hands:
            raise self._broken or DeviceError("Ray has no workers")
        done, _ = self._ray.wait(refs, num_returns=1, timeout=1.0)
        for hand in [h for h in self._hands if h.opening in done]:
            self._opened(hand)
        return list(done)

    def _opened(self, hand: _Hand) -> None:
        try:
            said = self._ray.get(hand.opening)
        except self._ray.exceptions.RayError as error:
            self._false_starts += 1
            said = DeviceError(f"a worker of Ray could not start: {_short(error)}")
            if self._false_starts < self._allowed:
                self._dismiss(hand)
                self._hire()
                return
        if isinstance(said, Exception):
            self._dismiss(hand)
            if self._hands:
                warnings.warn(f"{said}; the other workers go on", stacklevel=2)
            self._broken = said
            return
        hand.opening, hand.where = None, said
        logger.info("a worker of Ray is ready: %s", said)

    def _ended(self, hand: _Hand) -> tuple[Job, BaseException | None] | None:
        """Take over the job that a worker has ended, or what it had in hand when it was lost."""
        try:
            ended: Ended = self._ray.get(hand.call)
        except self._ray.exceptions.RayError as error:
            self._lost(hand, error)
            return None
        hand.call, hand.alone, self._false_starts = None, False, 0
        del hand.jobs[ended.job.staged]
        for text, category in ended.warned:
            warnings.warn(text, category, stacklevel=2)
        return ended.job, ended.error

    def _lost(self, hand: _Hand, error: Exception) -> None:
        self._dismiss(hand)
        self._hire()
        logger.warning(
            "a worker of Ray was lost (%s: %s); %d pictures are made again by another",
            hand.where,
            _short(error),
            len(hand.jobs),
        )
        for job in hand.jobs.values():
            self._taken_down[job.source] += 1
            times = self._taken_down[job.source]
            if times < _ATTEMPTS:
                name = f"{job.staged.stem}-{times}{job.staged.suffix}"
                self._again.append(replace(job, staged=job.staged.with_name(name)))
            else:
                said = f"{job.source}: {times} workers of Ray ended while they made it"
                self._given_up.append((job, ImageError(f"{said}; the last: {_short(error)}")))

    def _dismiss(self, hand: _Hand) -> None:
        self._hands.remove(hand)
        self._kill(hand)

    def _kill(self, hand: _Hand) -> None:
        with contextlib.suppress(Exception):  # it is gone already
            self._ray.kill(hand.actor)


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300] if lines else ''}"
