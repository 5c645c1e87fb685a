"""The shape of the loss around a point: gradient, curvature, surface (docs/method.md, "Landscape").

Paper section 3 and appendix A. Points are vectors u of normalised step sizes, ``u_i = Δ_i / Δ*_i``, so that
the point looked at is all ones and one distance fits all coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnx_lapq.common.arrays import FloatArray

__all__ = [
    "Bends",
    "Curvature",
    "bends",
    "curvature",
    "surface",
]

Loss = Callable[[FloatArray], float]


@dataclass(frozen=True, eq=False)
class Bends:
    """The loss at a point and one distance ahead and behind along every coordinate.

    Attributes:
        distance: How far, the same for all coordinates.
        centre: Loss at the point.
        ahead: Loss at ``u_i + distance``, float64 [n].
        behind: Loss at ``u_i - distance``, float64 [n].
    """

    distance: float
    centre: float
    ahead: FloatArray
    behind: FloatArray

    @property
    def gradient(self) -> FloatArray:
        """First central differences, float64 [n]."""
        return (self.ahead - self.behind) / (2 * self.distance)

    @property
    def curvature(self) -> FloatArray:
        """Second central differences, float64 [n]."""
        return (self.ahead - 2 * self.centre + self.behind) / self.distance**2


@dataclass(frozen=True)
class Curvature:
    """Gaussian curvature of the loss surface, ``K = det(H) / (|grad|^2 + 1)^2`` (Eq. 9).

    Attributes:
        sign: Of K: 1, -1, or 0 for a flat surface.
        log10: Logarithm of |K|; minus infinity for a flat surface. K itself overflows in many dimensions.
    """

    sign: int
    log10: float


def bends(loss: Loss, point: FloatArray, distance: float) -> Bends:
    """Walk ahead and behind along every coordinate; 2 n + 1 evaluations.

    Args:
        loss: Of a vector float64 [n].
        point: float64 [n].
        distance: > 0.
    """
    units = distance * np.eye(point.size)
    centre = loss(point)
    pairs = np.array([(loss(point + unit), loss(point - unit)) for unit in units]).reshape(-1, 2)
    return Bends(distance, centre, pairs[:, 0], pairs[:, 1])


def curvature(matrix: FloatArray, gradient: FloatArray) -> Curvature:
    """Gaussian curvature from a Hessian [n, n] and the gradient [n] at the same point."""
    sign, log_determinant = np.linalg.slogdet(matrix)
    log = log_determinant - 2 * np.log1p(float(gradient @ gradient))
    return Curvature(int(sign), float(log / np.log(10)))


def surface(
    loss: Loss, point: FloatArray, pair: tuple[int, int], rows: FloatArray, columns: FloatArray
) -> FloatArray:
    """The loss over two coordinates, the others fixed.

    Args:
        loss: Of a vector float64 [n].
        point: float64 [n].
        pair: Coordinates that vary along the rows and the columns of the result.
        rows: Values of the first, float64 [r].
        columns: Values of the second, float64 [c].

    Returns:
        float64 [r, c].
    """
    result = np.empty((rows.size, columns.size))
    for index, _ in np.ndenumerate(result):
        at = point.copy()
        at[list(pair)] = rows[index[0]], columns[index[1]]
        result[index] = loss(at)
    return result
