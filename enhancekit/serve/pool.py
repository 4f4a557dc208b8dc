"""Threads with a bounded queue in front: what does not fit is refused at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["BusyError", "GivenUpError", "Job", "Pool"]

Value = TypeVar("Value")


class BusyError(Exception):
    """There is as much to do as may be waiting."""


class GivenUpError(Exception):
    """Nobody waits for the job any more."""


class Job(Generic[Value]):
    """Something to be done, and whether anybody still waits for it."""

    def __init__(self, work: Callable[[Job[Value]], Value]) -> None:
        self.future: Future[Value] = Future()
        self.given_up = False
        self._work = work

    def give_up(self) -> None:
        """Leave it out if it has not begun; else it ends at its next step."""
        self.given_up = True
        self.future.cancel()

    def check(self) -> None:
        """End the job here if nobody waits for it.

        Raises
        ------
        GivenUpError
            If so.
        """
        if self.given_up:
            raise GivenUpError

    def do(self) -> None:
        """Do it, in the thread that calls."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            value = self._work(self)
        except BaseException as error:  # noqa: BLE001 it is handed over, whatever it is
            self.future.set_exception(error)
        else:
            self.future.set_result(value)


class Pool:
    """A few threads that do jobs in their order.

    Parameters
    ----------
    threads : int
        How many jobs are worked on at once.
    most : int
        How many may be in hand or waiting.

    Examples
    --------
    >>> pool = Pool(threads=1, most=4)
    >>> pool.submit(lambda job: 6 * 7).future.result()
    42
    >>> pool.close()
    """

    def __init__(self, threads: int, most: int) -> None:
        self._most = most
        self._held = 0
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Job[object] | None] = queue.SimpleQueue()
        self._threads = threads
        for _ in range(threads):
            # daemons: code of a plugin that hangs must not keep the process from ending
            threading.Thread(target=self._go_on, daemon=True).start()

    def __len__(self) -> int:
        """Count the jobs in hand or waiting."""
        return self._held

    def check_room(self) -> None:
        """Refuse now what would be refused anyway.

        Raises
        ------
        BusyError
            If the queue is full.
        """
        if self._held >= self._most:
            raise BusyError

    def submit(self, work: Callable[[Job[Value]], Value]) -> Job[Value]:
        """Put a job in the queue.

        Raises
        ------
        BusyError
            If it is full.
        """
        with self._lock:
            self.check_room()
            self._held += 1
        job = Job(work)
        self._jobs.put(job)  # type: ignore[arg-type]
        return job

    def close(self) -> None:
        """Let the threads end after what is waiting."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _go_on(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.do()
            finally:
                del job  # its result shall not live until the next one comes
                with self._lock:
                    self._held -= 1
