"""What would fail on a GPU, found without one: tensors that stay on the CPU and meet others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from enhancekit.errors import ConformanceError
from enhancekit.registry import Entry

__all__ = ["require_one_device"]

ACROSS = (
    *("to", "type_as", "copy_", "expand_as", "view_as", "reshape_as", "tensor_split"),
    *("__getitem__", "__setitem__", "index_put_"),
)
"""What takes tensors of two devices."""


def require_one_device(entry: Entry[Any], module: nn.Module, compute: Callable[[], object]) -> None:
    """Require that all that a module computes with goes where it and its input go.

    Parameters
    ----------
    entry : Entry
        Named in the error.
    module : torch.nn.Module
        Whose parameters and buffers can be moved.
    compute : callable
        Uses the module.

    Raises
    ------
    ConformanceError
        If another tensor that it keeps, or makes in forward, meets those of the module's device.
    """
    watch = _Watch(module)
    with torch.no_grad(), watch:
        compute()
    if watch.met:
        raise ConformanceError(
            f"{entry} would fail on a GPU: {watch.met} is given a tensor that stays on the CPU "
            f"({', '.join(watch.kept) or 'made in forward'}); keep constants by register_buffer, "
            "and make tensors in forward with device=x.device"
        )


class _Watch(TorchFunctionMode):
    """Follows the tensors that would stay on the CPU, and notes the first function that fails."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        moved = {id(t) for t in (*module.parameters(), *module.buffers())}
        self.met = ""
        self.kept: list[str] = []
        self.staying: dict[int, Tensor] = {}  # held, so that no other tensor gets the same id
        for place, part in module.named_modules():
            for name, value in vars(part).items():
                plain = [t for t in _tensors((value,)) if id(t) not in moved]
                self.staying.update((id(t), t) for t in plain)
                if plain:
                    self.kept.append(f"{place}.{name}".removeprefix("."))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        done = func(*args, **given)
        name = getattr(func, "__name__", "a function")
        tensors = list(_tensors((*args, *given.values())))
        stay = [t for t in tensors if id(t) in self.staying]
        if self._moves(name, (*args[1:], *given.values())):
            return done.view_as(done)  # which is another tensor, even where nothing had to move
        if name in ACROSS:
            stays = any(id(t) in self.staying for t in tensors[:1])
        else:
            stays = len(stay) == len(tensors) and given.get("device") is None
            # single numbers of the CPU go with tensors of any device
            if len(stay) < len(tensors) and any(t.dim() for t in stay):
                self.met = self.met or name
        if stays:
            self.staying.update((id(t), t) for t in _tensors((done,)))
        return done

    def _moves(self, name: str, to: Iterable[object]) -> bool:
        return name == "cuda" or (
            name in ("to", "type_as")
            and any(
                isinstance(value, torch.device | str)
                or (isinstance(value, torch.Tensor) and id(value) not in self.staying)
                for value in to
            )
        )


def _tensors(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())
