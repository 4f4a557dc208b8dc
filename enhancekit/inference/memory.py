"""How much memory is free, and how much of it a network takes for each pixel."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["free_memory", "peak_bytes"]

_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Tell how many bytes can still be had on a device.

    Parameters
    ----------
    device : torch.device
        For the CPU, what the system can give without swapping, within the limit of the container.

    Examples
    --------
    >>> free_memory(torch.device("cpu")) > 0
    True
    """
    if device.type == "cuda":
        # what torch keeps for itself can be used again
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (
            int((_CGROUP / name).read_text(encoding="ascii"))
            for name in ("memory.max", "memory.current")
        )
        lines = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        known = {name: int(value) for name, value in map(str.split, lines)}
    except (OSError, ValueError):  # no container, or one without a limit
        return free
    cached = known.get("inactive_file", 0) + known.get("active_file", 0)
    return max(0, min(free, limit - used + cached))


class _Live(TorchDispatchMode):
    """Notes how many bytes the tensors made under it hold at most at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tensors: dict[int, int] = {}
        self._now = 0
        self.peak = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for found in tree_leaves(made):
            if isinstance(found, Tensor):
                self._note(found)
        return made

    def _note(self, made: Tensor) -> None:
        try:
            storage = made.untyped_storage()
        except RuntimeError:  # sparse, or another library's: it shows no storage
            return
        place, size = storage.data_ptr(), storage.nbytes()
        if place not in self._tensors:  # else a view
            self._now += size
            self.peak = max(self.peak, self._now)
        self._tensors[place] = self._tensors.get(place, 0) + 1
        weakref.finalize(made, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self._tensors[place] -= 1
        if not self._tensors[place]:
            del self._tensors[place]
            self._now -= size


def peak_bytes(compute: Callable[[], object]) -> int:
    """Measure how many bytes the tensors that a function makes hold at most at once.

    What a convolution needs for itself while it runs is not seen.

    Parameters
    ----------
    compute : callable
        Computes with torch; called once.

    Examples
    --------
    >>> x = torch.zeros(1024)
    >>> peak_bytes(lambda: (x + 1).sum())
    4100
    """
    live = _Live()
    with live:
        compute()
    return live.peak
