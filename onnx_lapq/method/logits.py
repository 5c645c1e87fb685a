"""From probabilities to logits and back."""

from collections.abc import Callable

import numpy as np

from onnx_lapq.common.arrays import AnyArray, FloatArray

__all__ = ["binary_entropy", "sigmoid", "to_logits"]

_SMALLEST_PROBABILITY = 1e-12


def to_logits(
    reference: AnyArray, axis: int | None, smallest: float = _SMALLEST_PROBABILITY
) -> Callable[[AnyArray], FloatArray]:
    """How outputs like the reference become logits: as they are, or by the logarithm of probabilities."""
    bounded = bool(reference.size) and bool(reference.min() >= 0 and reference.max() <= 1 + 1e-3)
    if axis is None and bounded:
        return lambda output: _logit(output, smallest)
    if axis is not None and bounded:
        sums = reference.sum(axis=axis, dtype=np.float64)
        if np.allclose(sums, 1.0, rtol=0.0, atol=1e-3):
            return _log
    return lambda output: output.astype(np.float64)


def sigmoid(logits: FloatArray) -> FloatArray:
    """Probabilities of single logits, without overflow."""
    probabilities: FloatArray = np.exp(-np.logaddexp(0.0, -logits))
    return probabilities


def binary_entropy(scores: FloatArray) -> float:
    """Mean entropy of Bernoulli distributions, in nats."""
    inside = np.clip(scores, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    return float(np.mean(-inside * np.log(inside) - (1 - inside) * np.log1p(-inside)))


def _log(probabilities: AnyArray) -> FloatArray:
    """Logarithms of probabilities; 0 gives a large negative number."""
    return np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST_PROBABILITY))


def _logit(probabilities: AnyArray, smallest: float) -> FloatArray:
    """Logits of probabilities; 0 and 1 give large numbers."""
    inside = np.clip(probabilities.astype(np.float64), smallest, 1 - smallest)
    return np.log(inside) - np.log1p(-inside)
