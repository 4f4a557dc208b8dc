"""Networks whose forward runs in another engine, in the place of the torch module."""

from __future__ import annotations

import torch
from numpy import ascontiguousarray
from torch import Tensor, nn

from enhancekit.inference.engines import Compiled
from enhancekit.specs import SizeRequirements

__all__ = ["CompiledFile", "CompiledForward"]


def _run(compiled: Compiled, inputs: dict[str, Tensor]) -> Tensor:
    arrays = {name: ascontiguousarray(x.cpu().numpy()) for name, x in inputs.items()}
    return torch.from_numpy(compiled(arrays))


class CompiledForward(nn.Module):
    """A network whose tiles go through an engine; what is decided once per picture stays in torch.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    compiled : callable
        Its `enhancekit.inference.graph.tile_graph` in an engine.
    least : int
        Least side that graph was made for; smaller pictures stay in torch, where they are quick.
    """

    def __init__(self, module: nn.Module, compiled: Compiled, least: int) -> None:
        super().__init__()
        self.module, self.compiled, self.least = module, compiled, least
        self.size_requirements = module.size_requirements
        self.context_grid = getattr(module, "context_grid", None)

    @property
    def in_torch(self) -> nn.Module:
        """The network as it was before."""
        return self.module

    def context(self, whole: Tensor, **controls: Tensor) -> Tensor | None:
        """Decide what depends on the whole picture."""
        found: Tensor | None = self.module.context(whole, **controls)  # type: ignore[operator]
        return found

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map (N, 3, H, W) to the same, each side times the scale."""
        arguments = {} if context is None else {"context": context}
        if min(x.shape[2:]) < self.least:
            return self.module(x, *arguments.values())  # type: ignore[no-any-return]
        return _run(self.compiled, {"pictures": x, **arguments})


class CompiledFile(nn.Module):
    """A network of which only an ONNX file is left.

    Parameters
    ----------
    compiled : callable
        Its `enhancekit.inference.graph.whole_graph` in an engine.
    needs : SizeRequirements
        As the file states them.
    controls : tuple of str or None
        What its context can be told; ``None`` if it has no context.
    origin : str
        What errors should name.
    grid : int or None
        See `enhancekit.specs.BackboneSpec` on ``context_grid``.
    """

    enhancekit_origin: str
    bytes_per_pixel = 1000
    """Taken for granted, since nothing tells; networks as small as ours need about as much."""

    def __init__(
        self,
        compiled: Compiled,
        needs: SizeRequirements,
        controls: tuple[str, ...] | None,
        origin: str,
        grid: int | None,
    ) -> None:
        super().__init__()
        self.enhancekit_origin = origin
        self.compiled, self.controls, self.size_requirements = compiled, controls, needs
        self.context_grid = grid

    def context(self, whole: Tensor, **controls: Tensor) -> dict[str, Tensor]:
        """Collect what the graph takes besides the pictures; NaN stands for a control not given."""
        free = torch.full((len(whole),), torch.nan, dtype=torch.float32, device="cpu")
        return {"whole": whole, **{n: controls.get(n, free) for n in self.controls or ()}}

    def forward(self, x: Tensor, context: dict[str, Tensor] | None = None) -> Tensor:
        """Map (N, 3, H, W) to the same, each side times the scale."""
        return _run(self.compiled, {"pictures": x, **(context or {})})
