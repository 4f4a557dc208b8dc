"""A network as an ONNX graph, for pictures of any size and number."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from enhancekit.errors import EnhanceKitError, OptionError, PluginError
from enhancekit.registry import blame
from enhancekit.specs import SizeRequirements

__all__ = ["OPSET", "tile_graph", "whole_graph"]

_ENDLESS = 2**31
"""A length from which on there is no limit in practice."""
OPSET = 18
"""Version of the ONNX operators; the first with all that is used, read by engines since 2023."""


def tile_graph(module: nn.Module, *, global_context: bool, least: int = 1) -> bytes:
    """Translate the ``forward`` of a network; its context stays outside.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode, with `size_requirements`; on the CPU.
    global_context : bool
        Whether the backbone was declared with one.
    least : int
        Least side, in pixels, that it must take; a network may use that some sizes cannot occur.

    Returns
    -------
    bytes
        An ONNX model from ``pictures``, (N, 3, H, W) with sides that meet the requirements, and,
        if the network has one, ``context`` to ``enhanced``.

    Raises
    ------
    OptionError
        If the packages that write ONNX are missing.
    PluginError
        If the network cannot be translated.
    """
    needs: SizeRequirements = module.size_requirements  # type: ignore[assignment]
    batch = torch.export.Dim("batch")
    fewest = max(2, -(-max(needs.minimum, least) // needs.multiple_of))
    sides = {
        2 + i: _multiple(torch.export.Dim(name, min=fewest), needs.multiple_of)
        for i, name in enumerate(("rows", "columns"))
    }
    example = _example(needs, least)
    inputs: dict[str, tuple[Tensor, dict[int, Any]]] = {"pictures": (example, {0: batch, **sides})}
    if global_context and (context := _context(module, example)) is not None:
        inputs["context"] = (context, {0: batch})
    return _translate(module, inputs)


def whole_graph(
    module: nn.Module, *, global_context: bool, controls: Sequence[str]
) -> tuple[bytes, bool]:
    """Translate all of a network: padding, context, forward and cropping.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode, with `size_requirements`; on the CPU.
    global_context : bool
        Whether the backbone was declared with one.
    controls : sequence of str
        What the context can be told.

    Returns
    -------
    model : bytes
        An ONNX model from ``pictures``, (N, 3, H, W) of any size, to ``enhanced``.
    has_context : bool
        Whether it also takes ``whole``, the pictures again (or what they are tiles of), and each
        control, shape (N,), in which NaN means not given.

    Raises
    ------
    OptionError
        If the packages that write ONNX are missing.
    PluginError
        If the network cannot be translated.
    """
    needs: SizeRequirements = module.size_requirements  # type: ignore[assignment]
    batch = torch.export.Dim("batch")
    dims = {name: torch.export.Dim(name, min=2) for name in ("height", "width", "of", "by")}
    example = _example(needs)[:, :, :-1, :-1]
    inputs: dict[str, tuple[Tensor, dict[int, Any]]] = {
        "pictures": (example, {0: batch, 2: dims["height"], 3: dims["width"]})
    }
    has_context = global_context and _context(module, example) is not None
    if has_context:
        picture = example.new_ones(2, 3, 61, 75) / 2
        inputs["whole"] = (picture, {0: batch, 2: dims["of"], 3: dims["by"]})
        inputs |= {name: (example.new_tensor((0.5, torch.nan)), {0: batch}) for name in controls}
    whole = _Whole(module, needs, controls if has_context else None).eval()
    return _translate(whole, inputs), has_context


class _Whole(nn.Module):
    """A network with the pipeline's padding and context inside."""

    def __init__(
        self, module: nn.Module, needs: SizeRequirements, controls: Sequence[str] | None
    ) -> None:
        super().__init__()
        self.module, self.needs, self.controls = module, needs, controls

    def forward(self, pictures: Tensor, *given: Tensor) -> Tensor:
        """Map (N, 3, H, W) to the same, each side times the scale."""
        context = [] if self.controls is None else [self._decide(given[0], given[1:])]
        height, width = pictures.shape[2:]
        rows, columns = (self._mirror(size, pictures.device) for size in (height, width))
        done = self.module(pictures[:, :, rows][:, :, :, columns], *context)
        return done[:, :, : height * self.needs.scale, : width * self.needs.scale]  # type: ignore[no-any-return]

    def _mirror(self, size: int, device: torch.device) -> Tensor:
        """Give the places that `enhancekit.inference.tiling.pad_to` repeats, for any size."""
        multiple, least = self.needs.multiple_of, self.needs.minimum
        fitting = (size + multiple - 1) // multiple  # ONNX rounds towards 0, so nothing negative
        if least > multiple:
            fitting = torch.sym_max(fitting, -(-least // multiple))
        period = torch.full((1,), 2 * (size - 1), device=device).clamp(min=1)
        place = torch.arange(fitting * multiple, device=device) % period
        return torch.minimum(place, period - place)

    def _decide(self, whole: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Give each picture the context of the controls that are given for it."""
        module: Any = self.module
        context: Tensor = module.context(whole)
        named = dict(zip(self.controls or (), values, strict=True))
        for count in range(1, len(named) + 1):
            for names in itertools.combinations(named, count):
                chosen = {name: named[name] for name in names}
                known = torch.stack([~v.isnan() for v in chosen.values()]).all(dim=0)
                told = module.context(whole, **{n: v.nan_to_num() for n, v in chosen.items()})
                context = torch.where(known.view(-1, *[1] * (told.ndim - 1)), told, context)
        return context


def _multiple(dim: Any, of: int) -> Any:
    return of * dim if of > 1 else dim


def _example(needs: SizeRequirements, least: int = 1) -> Tensor:
    """Give two pictures of a size that no layer mistakes for a constant."""
    some = -(-max(needs.minimum, least, 40) // needs.multiple_of) + 1
    size = some * needs.multiple_of, (some + 2) * needs.multiple_of
    return torch.rand(2, 3, *size, dtype=torch.float32, device="cpu")


def _context(module: nn.Module, example: Tensor) -> Tensor | None:
    """Find whether there is a context, by asking for one."""
    with torch.no_grad():
        found = module.context(example)  # type: ignore[operator]
    if found is None:
        return None
    if not isinstance(found, Tensor) or len(found) != len(example):
        raise PluginError(
            f"{_origin(module)} cannot become an ONNX graph: its context is no tensor with one "
            f"entry for each picture, but {type(found).__name__}"
        )
    return found


def _origin(module: nn.Module) -> str:
    return getattr(module, "enhancekit_origin", "the network")


def _translate(module: nn.Module, inputs: Mapping[str, tuple[Tensor, dict[int, Any]]]) -> bytes:
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise OptionError(
                f"writing ONNX needs {package}; install it with: "
                "pip install 'enhancekit[onnxruntime]'"
            )
    shapes: tuple[Any, ...] = tuple(shape for _, shape in inputs.values())
    if isinstance(module, _Whole) and len(shapes) > 1:
        shapes = (shapes[0], shapes[1:])  # its forward collects the rest
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False), _quietly():
            program = torch.onnx.export(
                module,
                tuple(tensor for tensor, _ in inputs.values()),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=["enhanced"],
                dynamic_shapes=shapes,
            )
    except EnhanceKitError:
        raise
    except Exception as error:  # the translator and a plugin's forward may raise anything
        reason = next((line for line in str(error.__cause__ or error).splitlines() if line), "")
        origin = blame(error) or _origin(getattr(module, "module", module))
        raise PluginError(
            f"{origin} cannot become an ONNX graph: {type(error).__name__}: {reason}"
        ) from error
    if program is None:
        raise PluginError(f"{_origin(module)} became no ONNX graph")
    _refuse_fixed_sizes(
        program.exported_program, inputs, _origin(getattr(module, "module", module))
    )
    return bytes(program.model_proto.SerializeToString())


def _refuse_fixed_sizes(
    program: Any, inputs: Mapping[str, tuple[Tensor, dict[int, Any]]], origin: str
) -> None:
    """Refuse a graph that holds for some sizes or numbers of pictures only."""
    shapes = {n.name: n.meta["val"].shape for n in program.graph.nodes if n.op == "placeholder"}
    given = [shapes[name] for name in program.graph_signature.user_inputs]
    for shape, (_, asked) in zip(given, inputs.values(), strict=True):
        for axis in asked:
            ends = [_largest(program, symbol) for symbol in _symbols(shape[axis])]
            if not ends or min(ends) < _ENDLESS:
                raise PluginError(
                    f"{origin} cannot become an ONNX graph: it decides by the "
                    f"{'size' if axis else 'number'} of the pictures, so that the graph would hold "
                    "for some alone; compute all alike"
                )


def _symbols(length: Any) -> list[Any]:
    """Give what a length stands for, or nothing for a fixed one."""
    return [] if isinstance(length, int) else list(length.node.expr.free_symbols)


def _largest(program: Any, symbol: Any) -> float:
    found = program.range_constraints.get(symbol)
    try:
        return math.inf if found is None else float(found.upper)
    except (TypeError, OverflowError):
        return math.inf


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep to ourselves what the translator says about itself and about packages not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
