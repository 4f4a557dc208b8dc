"""One thread that computes for all requests, small pictures of equal size together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from enhancekit.inference.enhancer import Enhancer
from enhancekit.serve.pool import GivenUpError

__all__ = ["LARGEST", "MOST", "Computer"]

Value = TypeVar("Value")

LARGEST = 64 * 64
"""Pixels up to which pictures are computed together; on larger ones a CPU gains nothing by it."""
MOST = 16
"""Pictures computed together."""


@dataclass(slots=True, eq=False)
class _Call:
    """Something to be computed."""

    wanted: Callable[[], bool]
    compute: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future, kw_only=True)

    def do(self) -> None:
        try:
            self.future.set_result(self.compute())
        except BaseException as error:  # noqa: BLE001 it is handed over, whatever it is
            self.future.set_exception(error)


@dataclass(slots=True, eq=False)
class _Small(_Call):
    """A small picture for a network, computed together with its like."""

    enhancer: Enhancer
    pictures: Tensor
    controls: dict[str, float]

    def goes_with(self, other: _Call) -> bool:
        return (
            isinstance(other, _Small)
            and self.enhancer is other.enhancer
            and self.pictures.shape == other.pictures.shape
            and self.controls == other.controls
        )


class Computer:
    """One thread for all computing of a device.

    A network uses every core by itself, its memory should not be needed several times, and a
    plugin's code need not be ready for threads.

    Examples
    --------
    >>> computer = Computer()
    >>> computer.call(lambda: 6 * 7)
    42
    >>> computer.close()
    """

    def __init__(self) -> None:
        self._calls: deque[_Call | None] = deque()
        self._some = threading.Condition()
        self._since: float | None = None
        self.batches = 0
        """How many times several pictures were computed together."""
        threading.Thread(target=self._go_on, daemon=True).start()

    def call(
        self, function: Callable[[], Value], wanted: Callable[[], bool] = lambda: True
    ) -> Value:
        """Call a function when it is its turn, and wait for what it gives.

        Parameters
        ----------
        function : callable
            Computes something.
        wanted : callable
            Asked when the turn has come.

        Raises
        ------
        GivenUpError
            If it is not wanted any more.
        """
        return self._done(_Call(wanted, function))  # type: ignore[no-any-return]

    def small(
        self,
        enhancer: Enhancer,
        pictures: Tensor,
        controls: Mapping[str, float],
        wanted: Callable[[], bool] = lambda: True,
    ) -> Tensor:
        """Do what `Enhancer.run` does, together with what waits for the same.

        Parameters
        ----------
        enhancer, pictures, controls
            As there.
        wanted : callable
            As for `call`.

        Raises
        ------
        GivenUpError
            If it is not wanted any more.
        """
        alone = partial(enhancer.run, pictures, mode="exact", **controls)
        call = _Small(wanted, alone, enhancer, pictures, dict(controls))
        return self._done(call)  # type: ignore[no-any-return]

    def seconds(self) -> float:
        """Tell for how long the present computation has been going on."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> None:
        """Let the thread end after what is waiting."""
        with self._some:
            self._calls.append(None)
            self._some.notify()

    def _done(self, call: _Call) -> Any:
        with self._some:
            self._calls.append(call)
            self._some.notify()
        return call.future.result()

    def _go_on(self) -> None:
        while (calls := self._next()) is not None:
            self._since = time.monotonic()
            try:
                self._compute(calls)
            finally:
                self._since = None
            del calls

    def _next(self) -> list[_Call] | None:
        """Wait for a call, and take along what can be computed with it."""
        with self._some:
            while not self._calls:
                self._some.wait()
            first = self._calls.popleft()
            if first is None:
                return None
            found = [first]
            if isinstance(first, _Small):
                rest = [c for c in self._calls if c is not None and first.goes_with(c)]
                for call in rest[: MOST - 1]:
                    self._calls.remove(call)
                    found.append(call)
            return found

    def _compute(self, calls: list[_Call]) -> None:
        waiting = []
        for call in calls:
            if call.wanted():
                waiting.append(call)
            else:
                call.future.set_exception(GivenUpError())
        if len(waiting) > 1 and self._compute_together(
            [c for c in waiting if isinstance(c, _Small)]
        ):
            return
        for call in waiting:
            call.do()

    def _compute_together(self, calls: list[_Small]) -> bool:
        first = calls[0]
        try:
            done = first.enhancer.run(
                torch.cat([c.pictures for c in calls]), mode="exact", **first.controls
            )
        except Exception:  # noqa: BLE001  whose fault it is shows when each is computed alone
            return False
        self.batches += 1
        for call, result in zip(calls, done.split(1), strict=True):
            call.future.set_result(result)
        return True
