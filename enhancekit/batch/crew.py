"""Threads that work on several files at once, compute one at a time, and give up late ones."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

__all__ = ["GIVEN_UP", "Crew", "LateError"]

Job = TypeVar("Job")
Made = TypeVar("Made")
Value = TypeVar("Value")

GIVEN_UP = "enhancekit, given up"
"""Name of threads that go on with what nobody waits for. While one of them is in torch, Python
cannot end as it should; ``os._exit`` can."""
_POLL = 0.2  # seconds between looks at the clock; also lets Ctrl-C through on every system


class LateError(Exception):
    """A job took longer than it may, and was given up."""


class _Task(Generic[Job]):
    """A job and the time spent on it, without that spent waiting for its turn to compute."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.given_up = False
        self.thread: threading.Thread
        self._lock = threading.Lock()
        self._spent = 0.0
        self._since: float | None = time.monotonic()

    def pause(self) -> None:
        with self._lock:
            self._spent, self._since = self._now(), None

    def resume(self) -> None:
        with self._lock:
            self._since = time.monotonic()

    def seconds(self) -> float:
        with self._lock:
            return self._now()

    def _now(self) -> float:
        return self._spent + (0.0 if self._since is None else time.monotonic() - self._since)


class Crew(Generic[Job, Made]):
    """Works on several jobs at once, each in a thread; what is computed goes through one more.

    One thread for all computing, because a network uses every core by itself, its memory should
    not be needed several times, and a plugin's code need not be ready for threads.

    Parameters
    ----------
    work : callable
        Does a job; called in a thread.
    size : int
        How many jobs are in hand at once.
    limit : float, optional
        Seconds for each job, waiting for its turn to compute not counted. Python cannot stop a
        thread, so a job that is given up goes on until the call it is in returns; the others
        don't wait for it, and the threads don't keep the process alive.

    Examples
    --------
    >>> crew = Crew(lambda job: crew.compute(lambda: job * 2), size=3)
    >>> crew.start(21)
    >>> crew.room()
    2
    >>> crew.next()
    (21, 42)
    >>> crew.close()
    """

    def __init__(self, work: Callable[[Job], Made], size: int, limit: float | None = None) -> None:
        self._work = work
        self._size = size
        self._limit = limit
        self._tasks: list[_Task[Job]] = []
        self._ended: queue.SimpleQueue[tuple[_Task[Job], Made | BaseException]]
        self._ended = queue.SimpleQueue()
        self._own = threading.local()
        self._calls: queue.SimpleQueue[tuple[_Task[Job], Callable[[], Any], Future[Any]] | None]
        self._calls = queue.SimpleQueue()
        self._turn = threading.Lock()
        self._computed: _Task[Job] | None = None
        self._computer = self._hire()

    def __len__(self) -> int:
        """Count the jobs in hand."""
        return len(self._tasks)

    def room(self) -> int:
        """Count the jobs that may be begun now."""
        return self._size - len(self._tasks)

    def start(self, job: Job) -> None:
        """Begin a job."""
        task = _Task(job)
        self._tasks.append(task)
        task.thread = threading.Thread(target=self._do, args=(task,), daemon=True)
        task.thread.start()

    def next(self) -> tuple[Job, Made | BaseException]:
        """Wait until a job ends; return it with what it made, or what it raised.

        A job beyond the limit gives a `LateError`.
        """
        while True:
            for task in self._tasks:
                if self._limit is not None and task.seconds() > self._limit:
                    self._give_up(task)
                    return task.job, LateError(f"took longer than {self._limit:g} s")
            try:
                task, made = self._ended.get(timeout=_POLL)
            except queue.Empty:
                continue
            if not task.given_up:
                self._tasks.remove(task)
                return task.job, made

    def compute(self, call: Callable[[], Value]) -> Value:
        """Call from a job: run `call` in the thread that computes, when it is its turn."""
        task: _Task[Job] = self._own.task
        future: Future[Value] = Future()
        task.pause()
        self._calls.put((task, call, future))
        try:
            return future.result()
        finally:
            task.resume()

    def close(self) -> None:
        """Let the thread that computes end; no job is in hand any more."""
        self._calls.put(None)

    def _hire(self) -> threading.Thread:
        thread = threading.Thread(target=self._compute, daemon=True)
        thread.start()
        return thread

    def _give_up(self, task: _Task[Job]) -> None:
        with self._turn:
            task.given_up = True
            task.thread.name = GIVEN_UP
            self._tasks.remove(task)
            if self._computed is task:  # the others shall not wait for it
                self._computed = None
                self._computer.name = GIVEN_UP
                self._computer = self._hire()

    def _do(self, task: _Task[Job]) -> None:
        self._own.task = task
        try:
            made: Made | BaseException = self._work(task.job)
        except BaseException as error:  # noqa: BLE001 it is handed over, whatever it is
            made = error
        task.pause()  # what waits to be asked for is not late
        self._ended.put((task, made))

    def _compute(self) -> None:
        while (next_call := self._calls.get()) is not None:
            task, call, future = next_call
            with self._turn:
                if task.given_up:
                    future.cancel()
                    continue
                self._computed = task
            task.resume()
            try:
                value = call()
            except BaseException as error:  # noqa: BLE001 it is handed over, whatever it is
                task.pause()
                future.set_exception(error)
            else:
                task.pause()
                future.set_result(value)
            with self._turn:
                if task.given_up:  # another thread has taken over
                    return
                self._computed = None
