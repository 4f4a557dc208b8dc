"""One thread that computes for all requests, small pictures of equal size together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from enhancekit.inference.enhancer import Enhancer

__all__ = ["LARGEST", "MOST", "Computer"]

LARGEST = 64 * 64
"""Pixels up to which pictures are computed together; on larger ones a CPU gains nothing by it."""
MOST = 16
"""Pictures computed together."""


@dataclass(slots=True, eq=False)
class _Call:
    enhancer: Enhancer
    pictures: Tensor
    controls: dict[str, float]
    wanted: Callable[[], bool]
    future: Future[Tensor] = field(default_factory=Future)

    def goes_with(self, other: _Call) -> bool:
        return (
            self.enhancer is other.enhancer
            and self.pictures.shape == other.pictures.shape
            and self.controls == other.controls
        )

    @property
    def small(self) -> bool:
        """Whether it may be computed together with others; functions gain nothing by that."""
        height, width = self.pictures.shape[2:]
        return self.enhancer.module is not None and height * width <= LARGEST


class Computer:
    """One thread for all computing of a device.

    A network uses every core by itself, its memory should not be needed several times, and a
    plugin's code need not be ready for threads.

    Examples
    --------
    >>> import enhancekit
    >>> computer = Computer()
    >>> computer.run(enhancekit.load("gamma", gamma=1), torch.ones(1, 3, 1, 1), {}).flatten()
    tensor([1., 1., 1.])
    >>> computer.close()
    """

    def __init__(self) -> None:
        self._calls: deque[_Call | None] = deque()
        self._some = threading.Condition()
        self._since: float | None = None
        self.batches = 0
        """How many times several pictures were computed together."""
        threading.Thread(target=self._go_on, daemon=True).start()

    def run(
        self,
        enhancer: Enhancer,
        pictures: Tensor,
        controls: Mapping[str, float],
        wanted: Callable[[], bool] = lambda: True,
    ) -> Tensor:
        """Do what `Enhancer.run` does, when it is its turn; wait for it.

        Parameters
        ----------
        enhancer, pictures, controls
            As there.
        wanted : callable
            Asked when its turn has come; if it gives false, nothing is computed and `pictures`
            come back.
        """
        call = _Call(enhancer, pictures, dict(controls), wanted)
        with self._some:
            self._calls.append(call)
            self._some.notify()
        return call.future.result()

    def seconds(self) -> float:
        """Tell for how long the present computation has been going on."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> None:
        """Let the thread end after what is waiting."""
        with self._some:
            self._calls.append(None)
            self._some.notify()

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
            if first.small:
                rest = [c for c in self._calls if c is not None and c.goes_with(first)]
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
                call.future.set_result(call.pictures)
        if len(waiting) > 1 and self._compute_together(waiting):
            return
        for call in waiting:
            try:
                call.future.set_result(call.enhancer.run(call.pictures, **call.controls))
            except BaseException as error:  # noqa: BLE001 it is handed over, whatever it is
                call.future.set_exception(error)

    def _compute_together(self, calls: list[_Call]) -> bool:
        first = calls[0]
        try:
            done = first.enhancer.run(torch.cat([c.pictures for c in calls]), **first.controls)
        except Exception:  # noqa: BLE001 whose fault it is shows when each is computed alone
            return False
        self.batches += 1
        for call, result in zip(calls, done.split(1), strict=True):
            call.future.set_result(result)
        return True
