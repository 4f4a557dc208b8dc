"""Smooth a map where weights say so: one sparse linear system, solved without building it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enhancekit.errors import OptionError

__all__ = ["smoothed"]

Array = NDArray[np.float32]

_DAMPING = np.float32(0.7)
_MOST_STEPS = 200
_DENSE = 300
"""A grid of so many values or fewer is solved outright."""


def smoothed(given: Array, down: Array, right: Array, tolerance: float = 1e-3) -> Array:
    """Return the x that minimises |x - given|^2 + sum of weights times squared differences.

    The system is solved by conjugate gradients, preconditioned by a multigrid cycle over squares
    of 2x2 pixels, which keeps the neighbours of a pixel its four at every level; time and memory
    grow with the number of pixels alone.

    Parameters
    ----------
    given : ndarray
        Float32, shape (H, W).
    down, right : ndarray
        Float32, shape (H, W), at least 0: weight of the difference to the pixel below and to the
        right; the last row of `down` and the last column of `right` count as 0.
    tolerance : float
        Of the residual, relative to `given`.

    Returns
    -------
    ndarray
        Float32, shape (H, W).

    Raises
    ------
    OptionError
        If the weights are so uneven that the steps do not suffice.

    References
    ----------
    Koutis, Miller and Tolliver: Combinatorial preconditioners and multilevel solvers for problems
    in computer vision and image processing. Computer Vision and Image Understanding 115(12), 2011.

    Examples
    --------
    >>> step = np.array([[0, 0, 1, 1]], np.float32)
    >>> strong = np.full_like(step, 1e4)
    >>> smoothed(step, strong, strong).round(2)
    array([[0.5, 0.5, 0.5, 0.5]], dtype=float32)
    """
    down, right = down.copy(), right.copy()
    down[-1], right[:, -1] = 0, 0
    system = _Level(np.ones_like(given), down, right)
    x = given.copy()
    residual = given - system.apply(x)
    enough = tolerance * float(np.linalg.norm(given))
    direction, before = np.zeros_like(x), 1.0
    for _ in range(_MOST_STEPS):
        if float(np.linalg.norm(residual)) <= enough:
            break
        z = system.cycle(residual)
        now = float(np.vdot(residual, z))
        direction = z + np.float32(now / before) * direction
        applied = system.apply(direction)
        step = np.float32(now / float(np.vdot(direction, applied)))
        x += step * direction
        residual -= step * applied
        before = now
    else:
        raise OptionError(
            f"the map is not smooth after {_MOST_STEPS} steps: weights up to {down.max():.2g} are "
            "too uneven for 32 bits; use a smaller alpha"
        )
    return x


@dataclass(frozen=True)
class _Level:
    """The system on one grid: how strongly each value is held, and tied to its neighbours."""

    held: NDArray[Any]
    down: NDArray[Any]
    right: NDArray[Any]

    @cached_property
    def diagonal(self) -> Array:
        total: Array = self.held + self.down + self.right
        total[1:] += self.down[:-1]
        total[:, 1:] += self.right[:, :-1]
        return total

    @cached_property
    def coarser(self) -> _Level:
        return _Level(
            _sums(self.held),
            _sums(_only(self.down, axis=0)),
            _sums(_only(self.right, axis=1)),
        )

    def apply(self, x: Array) -> Array:
        # by differences: those of equal neighbours are 0 whatever the weight, in 32 bits too
        done: Array = self.held * x
        below = self.down[:-1] * (x[:-1] - x[1:])
        beside = self.right[:, :-1] * (x[:, :-1] - x[:, 1:])
        done[:-1] += below
        done[1:] -= below
        done[:, :-1] += beside
        done[:, 1:] -= beside
        return done

    @cached_property
    def inverse(self) -> Array:
        wide = _Level(*(x.astype(np.float64) for x in (self.held, self.down, self.right)))
        units = np.eye(self.held.size).reshape(-1, *self.held.shape)
        columns = [wide.apply(unit).ravel() for unit in units]
        inverse: Array = np.linalg.inv(columns).astype(np.float32)
        return inverse

    def cycle(self, residual: Array) -> Array:
        """Solve roughly: damped Jacobi, the coarser grid twice, damped Jacobi."""
        if residual.size <= _DENSE:
            solved: Array = (self.inverse @ residual.ravel()).reshape(residual.shape)
            return solved
        x = _DAMPING * residual / self.diagonal
        coarse = _sums(residual - self.apply(x))
        correction = self.coarser.cycle(coarse)
        correction += self.coarser.cycle(coarse - self.coarser.apply(correction))
        x += np.repeat(np.repeat(correction, 2, 0), 2, 1)[: x.shape[0], : x.shape[1]]
        x += _DAMPING * (residual - self.apply(x)) / self.diagonal
        return x


def _sums(x: Array) -> Array:
    """Sum over squares of 2x2; zeros stand beyond an odd end."""
    height, width = x.shape
    x = np.pad(x, ((0, height % 2), (0, width % 2)))
    done: Array = x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]
    return done


def _only(weights: Array, axis: int) -> Array:
    """Keep the weights between two squares; those within one vanish on the coarser grid."""
    kept = weights.copy()
    kept[(slice(None),) * axis + (slice(None, None, 2),)] = 0
    return kept
