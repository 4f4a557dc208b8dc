"""Weighted sums of registered losses, written as text: ``"0.5*l1 + 0.7*vgg"``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from enhancekit.errors import OptionError

__all__ = ["CompositeLoss", "parse"]

_TERM = re.compile(r"\s*(?:(?P<weight>[0-9.eE+-]+?)\s*\*\s*)?(?P<name>[a-z][\w.:-]*)\s*")


def parse(text: str) -> list[tuple[float, str]]:
    """Read a sum of weighted loss names.

    Raises
    ------
    OptionError
        If the text is not such a sum, a weight is not a positive number, or a loss stands twice.

    Examples
    --------
    >>> parse("l1 + 0.1*ssim")
    [(1.0, 'l1'), (0.1, 'ssim')]
    """
    terms: list[tuple[float, str]] = []
    # a plus sign inside a number such as 1e+2 is no separator
    for part in re.split(r"(?<![0-9.][eE])\+|\+(?![0-9])", text):
        match = _TERM.fullmatch(part)
        if match is None:
            raise OptionError(
                f"cannot read {part.strip()!r} in the loss {text!r}; write weighted names, "
                "e.g. '0.5*l1 + 0.1*ssim', and a name that begins with a digit behind its plugin's"
            )
        try:
            weight = float(match["weight"] or 1)
        except ValueError:
            weight = math.nan
        if not (0 < weight < math.inf):
            raise OptionError(
                f"the weight {match['weight']!r} in the loss {text!r} is not a positive number"
            )
        if match["name"] in (name for _, name in terms):
            raise OptionError(f"{match['name']!r} stands twice in the loss {text!r}")
        terms.append((weight, match["name"]))
    return terms


class CompositeLoss(nn.Module):
    """A weighted sum of losses that remembers each term's value.

    Parameters
    ----------
    text : str
        E.g. ``"0.5*l1 + 0.7*vgg + 0.5*ms_ssim"``.
    create : callable
        ``create(name, **options)`` makes one loss.
    options : mapping of str to mapping, optional
        Options for single losses, by name.

    Attributes
    ----------
    values : dict of str to float
        Each term's unweighted value at the last call.
    last : dict of str to Tensor
        The same as the losses gave it.

    Examples
    --------
    >>> import enhancekit, torch
    >>> loss = enhancekit.losses.create("2*l1 + grad")
    >>> float(loss(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)))
    2.0
    >>> loss.values
    {'l1': 1.0, 'grad': 0.0}
    """

    def __init__(
        self,
        text: str,
        create: Callable[..., Any],
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        terms = parse(text)
        given = options or {}
        names = [name for _, name in terms]
        if unknown := sorted(set(given) - set(names)):
            raise OptionError(f"options for {unknown}, which do not stand in the loss {text!r}")
        self.text = text
        self.names = names
        self.weights = [weight for weight, _ in terms]
        self.losses = nn.ModuleList(create(name, **given.get(name, {})) for name in names)
        self.last: dict[str, Tensor] = {}

    @property
    def values(self) -> dict[str, float]:
        """Each term's unweighted value at the last call."""
        return {name: float(value.mean()) for name, value in self.last.items()}

    def forward(self, output: Tensor, reference: Tensor) -> Tensor:
        """Compare two batches of shape (N, C, H, W)."""
        values = [loss(output, reference) for loss in self.losses]
        self.last = {n: v.detach() for n, v in zip(self.names, values, strict=True)}
        total: Tensor = sum(w * v for w, v in zip(self.weights, values, strict=True))
        return total

    def extra_repr(self) -> str:
        """Show the text."""
        return repr(self.text)
