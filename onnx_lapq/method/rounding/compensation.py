"""Error-compensated rounding in closed form (docs/method.md, "Compensated rounding").

Of a layer, Y are the outputs in the float network and X' the inputs in the network quantized so far. The
codes are to make Y = Q X' + const as nearly as codes can; the constant goes into the bias, so all moments are
taken about the mean. First a real-valued target between W and the optimum, as far towards it as pays on
held-out windows; then rounding column by column, each error pushed onto the columns not yet rounded (GPTQ,
Frantar et al. 2022; asymmetric calibration as in GPTAQ, Li et al. 2025), at the step sizes that suit the
codes best.

Arithmetic is in float32: the damping keeps the condition of all matrices far below its precision.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.common.cholesky import solve_rows, upper_factor
from onnx_lapq.method.pairs import pair_limits
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.rounding.blocks import by_weight, fitted_blocks
from onnx_lapq.method.rounding.descent import descended
from onnx_lapq.method.rounding.moments import Moments, SplitMoments

__all__ = [
    "Feedback",
    "Pull",
    "RoundedWeights",
    "best_pull",
    "compensated_codes",
    "feedback_of",
    "output_errors",
    "pulled",
    "ridge_target",
    "steps_by_weight",
]


_BLOCK = 64
"""Columns whose errors are pushed on together."""

_MANY, _SMALL = 65, 64
"""Groups from which on, and inputs of a group up to which, their matrices are factored together."""

_TOGETHER = 1 << 21
"""Weights that are rounded together, at several step sizes: more would take memory, and no less time."""


@dataclass(frozen=True, eq=False)
class RoundedWeights:
    """Weights on a grid.

    Attributes:
        codes: Integer values, float32 [G, K, J].
        scale: Step sizes, float64, as many as were given.
    """

    codes: Float32Array
    scale: FloatArray


@dataclass(frozen=True)
class Pull:
    """How far to go from the weights towards those that make up for what earlier layers got wrong.

    Attributes:
        ridge: See `ridge_target`.
        share: Of the way, 0 to 1.
    """

    ridge: float
    share: float


@dataclass(frozen=True, eq=False)
class Feedback:
    """How errors of rounded columns reach those not yet rounded (GPTQ).

    Attributes:
        order: Of the columns, [G, J].
        matrix: M, [G, J, J], in that order, of which what lies below the diagonal is read: column k is
            rounded at w_k + sum over j < k of M_kj (w_j - q_j).
    """

    order: npt.NDArray[np.intp]
    matrix: Float32Array


def ridge_target(weights: Float32Array, moments: Moments, ridge: float) -> Float32Array:
    """Real-valued weights that make up for what earlier layers got wrong: W (C + r) (H + r)^-1.

    Args:
        weights: W, [G, K, J].
        moments: Of the layer's inputs.
        ridge: r, how strongly the optimum is drawn back to W, as a share of the mean input variance, > 0.
    """
    # The normal equations of |W X - T X'|^2 + r |T - W|^2 are T (H + r) = W C + r W, solved group by group.
    damping = ridge * moments.variance
    wanted = moments.cross + damping * weights
    if _are_many(moments.covariance):
        solved = np.linalg.solve(_damped(moments.covariance, damping), np.swapaxes(wanted, 1, 2))
        return np.swapaxes(solved, 1, 2)
    parts = zip(moments.covariance, damping.ravel().tolist(), wanted, strict=True)
    return np.stack([solve_rows(_root(matrix, more), rows) for matrix, more, rows in parts])


def best_pull(
    weights: Float32Array, moments: SplitMoments, ridges: Sequence[float], pool: Executor | None = None
) -> Pull:
    """As far from W towards the optimum as pays on held-out windows.

    Args:
        weights: W, [G, K, J].
        moments: Those held out choose the ridge, and the share of the way. Without, it is all the way with
            the largest ridge. W itself is no target to fall back on: behind it, errors of all layers add up.
        ridges: See `ridge_target`.
        pool: Threads that share the work; None for none.
    """
    search, held_out = moments.search, moments.held_out
    if not held_out.count:
        return Pull(max(ridges), 1.0)
    # On held-out windows the output error of W + s (T - W) is a parabola in the share s of the way:
    # s^2 bend - 2 s gain, up to a constant. Its vertex is gain / bend.
    slope = held_out.cross - weights @ held_out.covariance

    def candidate(ridge: float) -> tuple[float, Pull]:
        move = ridge_target(weights, search, ridge) - weights
        gain, bend = float(np.vdot(slope, move)), float(np.vdot(move @ held_out.covariance, move))
        share = float(np.clip(gain / bend, 0.0, 1.0)) if bend > 0 else 0.0
        return share * (share * bend - 2 * gain), Pull(ridge, share)

    _, best = min((pool.map if pool else map)(candidate, ridges), key=lambda tried: tried[0])
    return best


def pulled(weights: Float32Array, moments: Moments, pull: Pull) -> Float32Array:
    """The real-valued weights to round, [G, K, J]: see `best_pull`; the moments are of all windows."""
    if pull.share == 0.0:
        return weights
    target = ridge_target(weights, moments, pull.ridge)
    return target if pull.share == 1.0 else weights + np.float32(pull.share) * (target - weights)


def feedback_of(moments: Moments, damping: float) -> Feedback:
    """Columns of large variance go first, and their errors are pushed onto the others.

    Args:
        moments: Of the layer's inputs.
        damping: Added to the variances, as a share of their mean, > 0.
    """
    # With H = R^T R, R lower triangular, the output error e H e^T of e = w - q is a sum of squares, of which
    # the k-th holds e_0 to e_k alone. It is zero where e_k = -sum over j < k of e_j R_kj / R_kk: M_kj is that
    # quotient. With H = U^T U Cholesky gives upper triangles, so H is turned round before and U after.
    # (Frantar et al. 2022, section 3.3, factor the inverse of H instead; the diagonal of M is never read.)
    matrices = moments.covariance
    order = np.argsort(-np.einsum("gjj->gj", matrices), axis=1, kind="stable")
    turned = [
        matrix.take(at, axis=0).take(at, axis=1) for matrix, at in zip(matrices, order[:, ::-1], strict=True)
    ]
    lower = _roots(turned, damping * moments.variance)[:, ::-1, ::-1]
    return Feedback(order, np.divide(lower, np.einsum("gjj->gj", lower)[:, :, None], order="C"))


def compensated_codes(
    target: Float32Array,
    scale: FloatArray,
    grid: Grid,
    moments: Moments,
    damping: float,
    factors: Sequence[float],
    block: int = 0,
    sweeps: int = 0,
    pool: Executor | None = None,
    feedback: Feedback | None = None,
) -> RoundedWeights:
    """Round weights column by column, each error pushed onto the columns not yet rounded.

    Every factor on the step sizes is tried; each step size is then fitted to its codes by least squares, and
    takes the codes with the least output error.

    Args:
        target: Real-valued weights, [G, K, J].
        scale: Step sizes [S]; S divides G K, and output channel i has step size i modulo S. Or [K, blocks].
        grid: Signed codes.
        moments: Of the layer's inputs.
        damping: Added to the variances, as a share of their mean, > 0.
        factors: What the step sizes are tried at.
        block: Inputs that share a step size, of the only group; 0 for all.
        sweeps: With blocks, how often codes and step sizes are moved again, each with the others held.
        pool: Threads that share the work; None for none.
        feedback: What `feedback_of` makes of these moments and this damping; None to have it made.
    """
    covariance = moments.covariance
    feedback = feedback_of(moments, damping) if feedback is None else feedback
    scales = [scale * factor for factor in factors]
    some = max(_TOGETHER // target.size, 1)
    tried = [
        codes
        for at in range(0, len(scales), some)
        for codes in _codes_at(target, scales[at : at + some], grid, feedback, block)
    ]

    along = target[0] @ covariance[0] if block else None

    def fit(codes: Float32Array, given: FloatArray) -> tuple[FloatArray, FloatArray]:
        if along is not None:
            return fitted_blocks(codes[0], given, block, along, covariance[0])
        return _fitted(codes, given, target, covariance)

    fits = (pool.map if pool else map)(fit, tried, scales)
    fitted, errors = (np.stack(parts) for parts in zip(*fits, strict=True))
    best = np.where(np.isnan(errors), np.inf, errors).argmin(axis=0)
    found = RoundedWeights(_chosen(tried, best), fitted[best, np.arange(len(best))])
    if block:
        damped = _damped(covariance, damping * moments.variance)[0]
        return _settled(target[0], found, grid, damped, block, sweeps)
    return found


def _codes_at(
    target: Float32Array,
    scales: Sequence[FloatArray],
    grid: Grid,
    feedback: Feedback,
    block: int,
) -> list[Float32Array]:
    """Codes [G, K, J] at each of some step sizes.

    All are rounded together, as more rows: of a small layer a column costs as much as numpy's calls for it.
    """
    steps, order = [steps_by_weight(scale, target.shape, block) for scale in scales], feedback.order
    at = np.concatenate(steps, axis=1)
    limits = _all_codes(grid)
    if grid.apart:
        of_scales = zip(*(_limits(target / step, grid, order) for step in steps), strict=True)
        lowest, highest = (np.concatenate(parts, axis=1) for parts in of_scales)
        limits = lowest, highest
    rounded = _round_columns(
        np.tile(_columns(target, order), (1, len(scales), 1)),
        _columns(at, order) if block else at,
        limits,
        feedback.matrix,
    )
    return np.split(_columns(rounded, np.argsort(order, axis=1)), len(scales), axis=1)


def _chosen(tried: Sequence[Float32Array], best: npt.NDArray[np.intp]) -> Float32Array:
    """Of codes [G, K, J] those that are best for each step size; see `compensated_codes` for their order."""
    groups, outputs, _ = tried[0].shape
    at = np.resize(best, (groups, outputs))
    return np.choose(at[..., None], tried)


def _columns(values: Float32Array, order: npt.NDArray[np.intp]) -> Float32Array:
    """Values [G, K, J] with the columns of every group in an order, [G, J]."""
    return np.stack([part.take(at, axis=1) for part, at in zip(values, order, strict=True)])


def _all_codes(grid: Grid) -> tuple[Float32Array, Float32Array]:
    """Lowest and highest code of all weights, [1, 1, 1]."""
    return np.full((1, 1, 1), grid.qmin, np.float32), np.full((1, 1, 1), grid.qmax, np.float32)


def _limits(
    levels: Float32Array, grid: Grid, order: npt.NDArray[np.intp]
) -> tuple[Float32Array, Float32Array]:
    """Lowest and highest code of every weight that shares 16 bits with another, [G, K, J] in the order."""
    lowest, highest = pair_limits(levels, grid.apart)
    return _columns(lowest, order), _columns(highest, order)


def _settled(
    target: Float32Array,
    found: RoundedWeights,
    grid: Grid,
    damped: Float32Array,
    block: int,
    sweeps: int,
) -> RoundedWeights:
    """Codes and step sizes in blocks after sweeps over both in turn, twice over the codes each time."""
    codes, scale, along = found.codes[0], found.scale, target @ damped
    for _ in range(sweeps):
        steps = by_weight(scale.astype(np.float32), block, codes.shape[1])
        codes = descended(descended(codes, steps, grid, target, damped), steps, grid, target, damped)
        scale, _ = fitted_blocks(codes, scale, block, along, damped)
    return RoundedWeights(codes[None], scale)


def steps_by_weight(scale: FloatArray, shape: tuple[int, ...], block: int = 0) -> Float32Array:
    """Step sizes, as `compensated_codes` takes them, as [G, K, 1], or in blocks as [G, K, J]."""
    if block:
        return by_weight(scale.astype(np.float32), block, shape[2]).reshape(shape)
    return np.resize(scale.astype(np.float32), (*shape[:2], 1))


def output_errors(rounded: Float32Array, moments: Moments) -> FloatArray:
    """Mean squared error of every output about its mean, [G, K], up to a constant that no codes change."""
    quadratic = np.einsum("gkj,gkj->gk", rounded @ moments.covariance, rounded, dtype=np.float64)
    errors: FloatArray = quadratic - 2 * np.einsum("gkj,gkj->gk", moments.cross, rounded, dtype=np.float64)
    return errors


def _fitted(
    codes: Float32Array, scale: FloatArray, target: Float32Array, covariance: Float32Array
) -> tuple[FloatArray, FloatArray]:
    """Step sizes by least squares, at most an eighth off, and the output errors there, up to a constant."""

    def shared(values: FloatArray) -> FloatArray:
        total: FloatArray = values.reshape(-1, scale.size).sum(axis=0)
        return total

    # Of fixed codes q, a target t and a step d, the output error (d q - t) H (d q - t)^T is a parabola in d:
    # d^2 bend - 2 d gain, up to a constant, with bend = q H q^T and gain = t H q^T. Codes were chosen for the
    # step size tried, so the vertex is trusted near it only.
    products = codes @ covariance
    bend = shared(np.einsum("gkj,gkj->gk", products, codes, dtype=np.float64))
    gain = shared(np.einsum("gkj,gkj->gk", products, target, dtype=np.float64))
    best = np.divide(gain, bend, out=scale.copy(), where=bend > 0)
    fitted = np.clip(best, scale * 0.875, scale * 1.125)
    return fitted, fitted * (fitted * bend - 2 * gain)


def _root(matrix: Float32Array, damping: float = 0.0) -> Float32Array:
    """`upper_factor` of a symmetric matrix, damped, and damped further until there is one."""
    extra = 0.0
    while True:
        try:
            return upper_factor(matrix, damping + extra)
        except np.linalg.LinAlgError:
            extra = 10 * extra or 1e-6 * float(np.abs(matrix).max())
            if not np.isfinite(extra):
                raise


def _are_many(matrices: Sequence[Float32Array] | Float32Array) -> bool:
    """Whether there are so many matrices of so few rows that calls cost more than the work."""
    return len(matrices) >= _MANY and len(matrices[0]) <= _SMALL


def _damped(matrices: Sequence[Float32Array] | Float32Array, damping: Float32Array) -> Float32Array:
    """Small matrices, [G, J, J], with damping, [G, 1, 1], on their diagonals."""
    found: Float32Array = np.asarray(matrices) + damping * np.eye(len(matrices[0]), dtype=np.float32)
    return found


def _roots(matrices: Sequence[Float32Array], damping: Float32Array) -> Float32Array:
    """`_root` of matrices, [G, J, J], damped by [G, 1, 1]; of small ones together."""
    if _are_many(matrices):
        with suppress(np.linalg.LinAlgError):
            roots: Float32Array = np.linalg.cholesky(_damped(matrices, damping))
            return np.swapaxes(roots, 1, 2)
    pairs = zip(matrices, damping.ravel().tolist(), strict=True)
    return np.stack([_root(matrix, more) for matrix, more in pairs])


def _round_columns(
    target: Float32Array,
    scale: Float32Array,
    limits: tuple[Float32Array, Float32Array],
    feedback: Float32Array,
) -> Float32Array:
    """Codes of weights [G, K, J] with step sizes [G, K, 1] or [G, K, J], within limits that broadcast."""
    # Errors are counted in the first step size of their row, the others are multiples of that one.
    unit = scale[..., :1]
    steps = np.swapaxes(scale / unit, 1, 2)
    steps = np.ascontiguousarray(np.broadcast_to(steps, (len(steps), target.shape[2], target.shape[1])))
    left = np.ascontiguousarray(np.swapaxes(target / unit, 1, 2))
    lowest, highest = (np.broadcast_to(np.swapaxes(limit, 1, 2), left.shape) for limit in limits)
    errors, codes = np.empty_like(left), np.empty_like(left)
    width = left.shape[1]
    for first in range(0, width, _BLOCK):
        last = min(first + _BLOCK, width)
        wanted = left[:, first:last] + feedback[:, first:last, :first] @ errors[:, :first]
        for column in range(first, last):
            pushed = feedback[:, None, column, first:column] @ errors[:, first:column]
            # Straight into the codes: of narrow layers, numpy's calls take as long as their work.
            code = np.add(pushed[:, 0], wanted[:, column - first], out=codes[:, column])
            code /= steps[:, column]
            np.rint(code, out=code)
            np.maximum(code, lowest[:, column], out=code)
            np.minimum(code, highest[:, column], out=code)
            np.subtract(left[:, column], code * steps[:, column], out=errors[:, column])
    return np.ascontiguousarray(np.swapaxes(codes, 1, 2))
