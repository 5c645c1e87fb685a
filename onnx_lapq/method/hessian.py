"""How step sizes depend on each other: the Hessian of the loss, and what of it lies off its diagonal.

docs/method.md, "Landscape"; paper section 3 and appendix A. Points are vectors u of normalised step sizes, as
in `onnx_lapq.method.landscape`.
"""

from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.landscape import Loss

__all__ = ["Coupling", "Hessian", "coupling", "evaluations", "hessian", "most_coupled"]

_JITTER = 0.25
"""Of the distance; wide against the stairs of a quantized network's loss."""

_POINTS = 9
"""Along a coordinate, for its second derivative: a third behind the point, at it and ahead."""


@dataclass(frozen=True, eq=False)
class Hessian:
    """Second derivatives of the loss over k coordinates, and how well they are known.

    Attributes:
        values: Mean of two estimates, float64 [k, k], symmetric.
        errors: Half their distance, float64 [k, k]; its square is on average that of the standard error.
        gradient: First derivatives, float64 [k].
    """

    values: FloatArray
    errors: FloatArray
    gradient: FloatArray


@dataclass(frozen=True)
class Coupling:
    """What lies off the diagonal of a Hessian, in squares, without the share of the noise.

    Attributes:
        norm: Root of the sum of its squares.
        share: Of all squares; 0 says that the coordinates do not know of each other.
        error: Standard error of the share; infinite where nothing rises above the noise.
    """

    norm: float
    share: float
    error: float

    @property
    def is_known(self) -> bool:
        """Whether the share says anything: its error is small, and it is one."""
        return self.error <= 0.5 and -0.1 <= self.share <= 1.1

    @property
    def text(self) -> str:
        """The share and its standard error, such as ``38.1 ± 4.2 %``, or ``noise``."""
        return f"{100 * self.share:.1f} ± {100 * self.error:.1f} %" if self.is_known else "noise"


def evaluations(size: int) -> int:
    """What `hessian` costs for k coordinates."""
    return 4 * size * (size - 1) + 2 * _POINTS * size


def hessian(loss: Loss, point: FloatArray, distance: float, coordinates: npt.NDArray[np.intp]) -> Hessian:
    """Second derivatives of the smoothed loss, estimated twice.

    The loss of a quantized network is a staircase: nearby points differ almost at random. A second derivative
    is that of a parabola through several points, a mixed one the difference of four corners. All points are
    jittered, so that the noise of the two estimates is independent.

    Args:
        loss: Of a vector float64 [n].
        point: float64 [n].
        distance: Of the corners from the point in each coordinate, give or take a quarter.
        coordinates: Which k coordinates to take.
    """
    generator = np.random.default_rng(0)
    first, second = (_estimate(loss, point, distance, coordinates, generator) for _ in range(2))
    (values, gradient), (others, other) = first, second
    return Hessian((values + others) / 2, np.abs(values - others) / 2, (gradient + other) / 2)


def _estimate(
    loss: Loss,
    point: FloatArray,
    distance: float,
    coordinates: npt.NDArray[np.intp],
    generator: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """One estimate of the second derivatives, float64 [k, k], and of the first, float64 [k]."""
    units = np.eye(point.size)[coordinates]
    k = len(units)
    values, gradient = np.zeros((k, k)), np.zeros(k)
    for i, unit in enumerate(units):
        levels = np.resize([-1.0, 0.0, 1.0], _POINTS) + generator.uniform(-_JITTER, _JITTER, _POINTS)
        losses = [loss(point + distance * level * unit) for level in levels]
        bend, gradient[i], _ = np.polyfit(distance * levels, losses, 2)
        values[i, i] = 2 * bend
    for i, j in combinations(range(k), 2):
        # d2L / du_i du_j = (L(-,-) - L(-,+) - L(+,-) + L(+,+)) / (width in i times width in j). Row 0 of
        # `sides` holds the lower corner in i and j, row 1 the upper; jitter makes them unequal.
        sides = distance * np.array([[-1.0], [1.0]]) * (1 + generator.uniform(-_JITTER, _JITTER, (2, 2)))
        corners = [loss(point + a * units[i] + b * units[j]) for a, b in product(*sides.T)]
        mixed = np.dot([1, -1, -1, 1], corners) / np.prod(sides[1] - sides[0])
        values[i, j] = values[j, i] = mixed
    return values, gradient


def coupling(found: Hessian) -> Coupling:
    """How much of a Hessian lies off its diagonal.

    The squares are products of the two estimates: noise adds nothing to them on average, where it would add
    to the square or the absolute value of one. They may come out a little below 0.
    """
    # Of two estimates a and b with mean v and half distance e, v^2 - e^2 = a b, and the error of a b is about
    # 2 v e. `spread` carries these errors over to off / (on + off), to first order.
    squares = found.values**2 - found.errors**2
    variances = 4 * found.values**2 * found.errors**2
    upper = np.triu_indices(len(squares), 1)
    on, off = np.trace(squares), 2 * squares[upper].sum()
    if on + off <= 0:
        return Coupling(0.0, 0.0, np.inf if found.errors.any() else 0.0)
    spread = np.sqrt(on**2 * 4 * variances[upper].sum() + off**2 * np.trace(variances))
    return Coupling(float(np.sqrt(max(off, 0.0))), float(off / (on + off)), float(spread / (on + off) ** 2))


def most_coupled(matrix: FloatArray) -> tuple[int, int]:
    """The two coordinates with the largest mixed derivative, of a symmetric matrix of 2 or more."""
    upper = np.triu(np.abs(matrix), 1)
    first, second = np.unravel_index(int(upper.argmax()), upper.shape)
    return (int(first), int(second)) if first != second else (0, 1)
