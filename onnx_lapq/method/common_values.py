"""What an output of the float network has in common on samples of all shapes: its kind and its power."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from onnx_lapq.common.arrays import AnyArray, FloatArray
from onnx_lapq.method.parts import Part
from onnx_lapq.method.probabilities import are_probabilities, binary_entropy, to_scores

__all__ = ["Common", "as_float", "common_of", "pooled"]

_DEAD = 1e-3
"""Rows whose power is a smaller share of that of the row in the middle count as if they had this one."""


@dataclass(frozen=True, eq=False)
class Common:
    """What an output has in common on samples of all shapes.

    Attributes:
        probabilities: Whether its values are probabilities.
        scale: What its squared errors are measured by, of each row or of all; or the information of scores.
    """

    probabilities: bool
    scale: float | FloatArray


def pooled(references: Sequence[AnyArray], means: Sequence[FloatArray | np.floating]) -> FloatArray:
    """The mean over samples of several shapes, from that of each shape."""
    total = sum(map(len, references))
    parts = [len(one) / total * mean for one, mean in zip(references, means, strict=True)]
    mean: FloatArray = np.sum(parts, axis=0, dtype=np.float64)
    return mean


def as_float(values: AnyArray) -> AnyArray:
    """Values that may be integers, as numbers to compute with."""
    return values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)


def common_of(part: Part, references: Sequence[AnyArray]) -> Common:
    """What samples of all shapes have in common, of the rows that count."""
    filled = [one for one in references if one.size]
    axis = None if part.loss == "binary-kl" else part.axis
    squared = part.loss in ("mse", "row-mse", "direction")
    probabilities = not squared and bool(filled) and all(are_probabilities(one, axis) for one in filled)
    scale: float | FloatArray = 1.0
    if filled and part.loss == "mse":
        scale = _power(filled)
    elif filled and part.loss == "row-mse":
        scale = _row_power(filled, part.axis)
    elif filled and part.loss == "binary-kl":
        scale = _information(map(to_scores(probabilities), chain.from_iterable(filled)), part.axis)
    return Common(probabilities, scale)


def _power(references: Sequence[AnyArray]) -> float:
    """Mean square over the samples."""
    means = [np.mean(np.square(as_float(one).reshape(-1), dtype=np.float64)) for one in references]
    return float(pooled(references, means)) or 1.0


def _row_power(references: Sequence[AnyArray], axis: int | None) -> FloatArray:
    """Power of each row about its mean over the samples; about zero if it never changes."""
    others = tuple(other for other in range(references[0].ndim) if other != axis)
    values = [as_float(one) for one in references]
    means = [np.asarray(one.mean(axis=others, keepdims=True, dtype=np.float64)) for one in values]
    variances = [np.asarray(one.var(axis=others, keepdims=True, dtype=np.float64)) for one in values]
    squares = [np.square(one, dtype=np.float64).mean(axis=others, keepdims=True) for one in values]
    mean = pooled(references, means)
    between = [variance + np.square(one - mean) for variance, one in zip(variances, means, strict=True)]
    power, about_zero = pooled(references, between), pooled(references, squares)
    power = np.where(power > _DEAD**2 * about_zero, power, about_zero)
    alive = power[power > 0]
    return np.maximum(power, _DEAD * np.median(alive)) if alive.size else np.ones_like(power)


def _information(scores: Iterable[FloatArray], axis: int | None) -> float:
    """Mean divergence of scores from their mean in each row, over samples and positions; 1 if none varies."""
    means, entropies = [], []
    for one in scores:
        others = tuple(other for other in range(one.ndim) if axis is None or other != axis - 1)
        means.append(one.mean(axis=others))
        entropies.append(binary_entropy(one))
    information = binary_entropy(np.mean(means, axis=0)) - float(np.mean(entropies))
    return information if information > 0 else 1.0
