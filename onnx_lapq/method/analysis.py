"""The shape of the loss around a point: gradient, Hessian, curvature, surface (METHOD.md section 8).

Paper section 3 and appendix A. Points are vectors u of normalised step sizes, ``u_i = Δ_i / Δ*_i``, so that
the point looked at is all ones and one distance fits all coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "Bends",
    "Curvature",
    "bends",
    "curvature",
    "hessian",
    "most_coupled",
    "off_diagonal_mass",
    "off_diagonal_share",
    "surface",
]

FloatArray = npt.NDArray[np.float64]
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
        """Second central differences, the Hessian's diagonal, float64 [n]."""
        return (self.ahead - 2 * self.centre + self.behind) / self.distance**2

    def of(self, coordinates: npt.NDArray[np.intp]) -> "Bends":
        """Those of some coordinates."""
        return Bends(self.distance, self.centre, self.ahead[coordinates], self.behind[coordinates])


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


def hessian(loss: Loss, point: FloatArray, known: Bends, coordinates: npt.NDArray[np.intp]) -> FloatArray:
    """Second derivatives by central finite differences; k (k - 1) evaluations.

    A mixed derivative takes the two corners (+, +) and (-, -); the axes give the rest of its stencil. It is
    exact for polynomials of degree 3.

    Args:
        loss: Of a vector float64 [n].
        point: float64 [n].
        known: The walks along the coordinates from this point.
        coordinates: Which k coordinates to take.

    Returns:
        float64 [k, k], symmetric.
    """
    near = known.of(coordinates)
    units = known.distance * np.eye(point.size)[coordinates]
    axes = near.ahead + near.behind
    result = np.diag(near.curvature)
    for i, j in zip(*np.triu_indices(len(coordinates), 1), strict=True):
        corners = loss(point + units[i] + units[j]) + loss(point - units[i] - units[j])
        mixed = corners + 2 * near.centre - axes[i] - axes[j]
        result[i, j] = result[j, i] = mixed / (2 * known.distance**2)
    return result


def off_diagonal_mass(matrix: FloatArray) -> float:
    """Sum of the absolute values off the diagonal of a square matrix."""
    return float(np.abs(matrix - np.diag(np.diag(matrix))).sum())


def off_diagonal_share(matrix: FloatArray) -> float:
    """Share of the absolute mass of a square matrix that lies off its diagonal, 0 to 1.

    0 says that the coordinates do not know of each other. A zero matrix has 0.
    """
    total = float(np.abs(matrix).sum())
    return off_diagonal_mass(matrix) / total if total else 0.0


def curvature(matrix: FloatArray, gradient: FloatArray) -> Curvature:
    """Gaussian curvature from a Hessian [n, n] and the gradient [n] at the same point."""
    sign, log_determinant = np.linalg.slogdet(matrix)
    log = log_determinant - 2 * np.log1p(float(gradient @ gradient))
    return Curvature(int(sign), float(log / np.log(10)))


def most_coupled(matrix: FloatArray) -> tuple[int, int]:
    """The two coordinates with the largest mixed derivative, of a symmetric matrix of 2 or more."""
    upper = np.triu(np.abs(matrix), 1)
    first, second = np.unravel_index(int(upper.argmax()), upper.shape)
    return (int(first), int(second)) if first != second else (0, 1)


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
