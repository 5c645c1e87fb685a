"""From probabilities to logits and back."""

from collections.abc import Callable

import numpy as np

from onnx_lapq.common.arrays import AnyArray, FloatArray

__all__ = ["above_zero", "are_probabilities", "binary_entropy", "to_logits", "to_scores"]

_SMALLEST_PROBABILITY = 1e-12
_SMALLEST_SCORE = 1e-3
"""Of scores that do not exclude each other: what 8 bits cannot tell from zero is zero."""


def are_probabilities(values: AnyArray, axis: int | None) -> bool:
    """Whether values are class probabilities that sum to 1 along an axis; without an axis, within 0 to 1."""
    bounded = bool(values.size) and bool(values.min() >= 0 and values.max() <= 1 + 1e-3)
    if axis is None or not bounded:
        return bounded
    return bool(np.allclose(values.sum(axis=axis, dtype=np.float64), 1.0, rtol=0.0, atol=1e-3))


def to_logits(axis: int | None, probabilities: bool) -> Callable[[AnyArray], FloatArray]:
    """How outputs become logits: as they are, or by the logarithm where they are probabilities."""
    if not probabilities:
        return lambda output: output.astype(np.float64)
    return _logit if axis is None else lambda output: np.log(above_zero(output))


def to_scores(probabilities: bool) -> Callable[[AnyArray], FloatArray]:
    """How outputs become probabilities, each on its own, none of them 0 or 1."""
    if probabilities:
        return lambda output: np.clip(output.astype(np.float64), _SMALLEST_SCORE, 1 - _SMALLEST_SCORE)
    return lambda output: np.clip(_sigmoid(output), _SMALLEST_SCORE, 1 - _SMALLEST_SCORE)


def above_zero(probabilities: AnyArray) -> FloatArray:
    """Probabilities whose logarithm can be taken; that of 0 is then a large negative number."""
    above: FloatArray = probabilities.astype(np.float64)
    return np.maximum(above, _SMALLEST_PROBABILITY, out=above)


def binary_entropy(scores: FloatArray) -> float:
    """Mean entropy of Bernoulli distributions, in nats; no score is 0 or 1."""
    return float(np.mean(-scores * np.log(scores) - (1 - scores) * np.log1p(-scores)))


def _logit(probabilities: AnyArray) -> FloatArray:
    """Logits of probabilities; 0 and 1 give large numbers."""
    inside = np.clip(probabilities.astype(np.float64), _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    return np.log(inside) - np.log1p(-inside)


def _sigmoid(logits: AnyArray) -> FloatArray:
    probabilities: FloatArray = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return probabilities
