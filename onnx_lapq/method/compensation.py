"""Error-compensated rounding in closed form (METHOD.md section 10).

Of a layer, X are the inputs in the float network and X' those in the network quantized so far. The codes
are to make W X = Q X' + const as nearly as codes can; the constant goes into the bias, so all moments are
taken about the mean. First the real-valued optimum, drawn back towards W by a ridge; then rounding column
by column, each error pushed onto the columns not yet rounded (GPTQ, Frantar et al. 2022; asymmetric
calibration as in GPTAQ, Li et al. 2025).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular  # type: ignore[import-untyped]

from onnx_lapq.method.quantizer import Grid

__all__ = ["Moments", "compensated_codes", "output_error", "ridge_target"]

FloatArray = npt.NDArray[np.float64]
_BLOCK = 64
"""Columns whose errors are pushed on together."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over input windows, for G groups of J inputs.

    Attributes:
        count: Number of windows.
        x: Sum of the float network's inputs, [G, J].
        q: Sum of the quantized network's inputs, [G, J].
        xq: Sum of x q^T, [G, J, J].
        qq: Sum of q q^T, [G, J, J].
    """

    count: int
    x: FloatArray
    q: FloatArray
    xq: FloatArray
    qq: FloatArray

    @classmethod
    def of(cls, x: npt.NDArray[np.float32], q: npt.NDArray[np.float32]) -> "Moments":
        """Moments of matching windows of both networks, [G, n, J] each."""
        turned = np.swapaxes(x, 1, 2)
        return cls(
            count=x.shape[1],
            x=x.sum(axis=1, dtype=np.float64),
            q=q.sum(axis=1, dtype=np.float64),
            xq=(turned @ q).astype(np.float64),
            qq=(np.swapaxes(q, 1, 2) @ q).astype(np.float64),
        )

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count,
            self.x + other.x,
            self.q + other.q,
            self.xq + other.xq,
            self.qq + other.qq,
        )

    @property
    def mean_x(self) -> FloatArray:
        """Mean input of the float network, [G, J]."""
        return self.x / self.count

    @property
    def mean_q(self) -> FloatArray:
        """Mean input of the quantized network, [G, J]."""
        return self.q / self.count

    @cached_property
    def covariance(self) -> FloatArray:
        """H: covariance of the quantized network's inputs, [G, J, J]."""
        return self.qq / self.count - self.mean_q[:, :, None] * self.mean_q[:, None, :]

    @cached_property
    def cross(self) -> FloatArray:
        """C: covariance of the float network's inputs with the quantized network's, [G, J, J]."""
        return self.xq / self.count - self.mean_x[:, :, None] * self.mean_q[:, None, :]


def ridge_target(weights: FloatArray, moments: Moments, ridge: float) -> FloatArray:
    """Real-valued weights that make up for what earlier layers got wrong: W (C + r) (H + r)^-1.

    Args:
        weights: W, [G, K, J].
        moments: Of the layer's inputs.
        ridge: r, how strongly the optimum is drawn back to W, as a share of the mean input variance;
            infinity leaves W as it is.
    """
    if not np.isfinite(ridge):
        return weights
    covariance = moments.covariance
    damping = ridge * _mean_variance(covariance) * np.eye(covariance.shape[-1])
    wanted = weights @ (moments.cross + damping)
    return np.swapaxes(np.linalg.solve(covariance + damping, np.swapaxes(wanted, 1, 2)), 1, 2)


def compensated_codes(
    target: FloatArray, scale: FloatArray, grid: Grid, moments: Moments, damping: float
) -> FloatArray:
    """Round weights column by column, each error pushed onto the columns not yet rounded.

    Args:
        target: Real-valued weights, [G, K, J].
        scale: Step sizes, broadcastable to [G, K, 1].
        grid: Signed codes.
        moments: Of the layer's inputs.
        damping: Added to the variances, as a share of their mean, > 0.

    Returns:
        Integer-valued codes, float64 [G, K, J].
    """
    covariance = moments.covariance
    order = np.argsort(-np.einsum("gjj->gj", covariance), axis=1, kind="stable")
    ordered = np.take_along_axis(np.take_along_axis(covariance, order[:, :, None], 1), order[:, None, :], 2)
    factor = _upper_factor(ordered + damping * _mean_variance(covariance) * np.eye(covariance.shape[-1]))
    codes = _round_columns(np.take_along_axis(target, order[:, None, :], 2), scale, grid, factor)
    result = np.empty_like(codes)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], codes.shape), codes, 2)
    return result


def output_error(weights: FloatArray, rounded: FloatArray, moments: Moments) -> float:
    """Mean squared output error about its mean, up to a constant that does not depend on ``rounded``.

    Args:
        weights: W, [G, K, J].
        rounded: Q, [G, K, J].
        moments: Of any windows, held-out ones for instance.
    """
    quadratic = np.einsum("gkj,gkj->", rounded @ moments.covariance, rounded)
    mixed = np.einsum("gkj,gkj->", weights @ moments.cross, rounded)
    return float(quadratic - 2 * mixed)


def _mean_variance(covariance: FloatArray) -> FloatArray:
    """Mean of the diagonal of every group, [G, 1, 1]; 1 for inputs that never change."""
    mean = np.einsum("gjj->g", covariance) / covariance.shape[-1]
    floor = max(float(mean.max(initial=0.0)) * 1e-6, np.finfo(np.float64).tiny)
    return np.where(mean > floor, mean, max(floor, 1e-30))[:, None, None]


def _upper_factor(matrix: FloatArray) -> FloatArray:
    """U with U^T U = matrix^-1, by Cholesky from the far corner; the damping grows until it succeeds."""
    extra, unit = 0.0, np.abs(matrix).max(axis=(1, 2), keepdims=True)
    while True:
        try:
            turned = (matrix + extra * unit * np.eye(matrix.shape[-1]))[:, ::-1, ::-1]
            roots = np.linalg.cholesky(turned)[:, ::-1, ::-1]
        except np.linalg.LinAlgError:
            extra = max(10 * extra, 1e-6)
            continue
        return np.stack([solve_triangular(root, np.eye(len(root))) for root in roots])


def _round_columns(target: FloatArray, scale: FloatArray, grid: Grid, factor: FloatArray) -> FloatArray:
    left = target.copy()
    codes = np.empty_like(left)
    step = np.broadcast_to(scale, (*left.shape[:2], 1))[:, :, 0]
    width = left.shape[2]
    for first in range(0, width, _BLOCK):
        last = min(first + _BLOCK, width)
        errors = np.empty((*left.shape[:2], last - first))
        for column in range(first, last):
            codes[:, :, column] = np.clip(np.rint(left[:, :, column] / step), grid.qmin, grid.qmax)
            missed = left[:, :, column] - codes[:, :, column] * step
            error = missed / factor[:, column, column][:, None]
            errors[:, :, column - first] = error
            left[:, :, column:last] -= error[:, :, None] * factor[:, None, column, column:last]
        left[:, :, last:] -= errors @ factor[:, first:last, last:]
    return codes
