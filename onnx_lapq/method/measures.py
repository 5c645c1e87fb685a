"""How close outputs are to others, and how often they are right."""

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import AnyFloatArray

__all__ = ["decibels", "snr_db", "top_shares"]

NumberArray = npt.NDArray[np.number]

_TOP = 5

_CACHED = 1 << 16
"""Values that are worked on at a time."""


def decibels(signal: float, noise: float) -> float | None:
    """The ratio of two powers in dB; None where one of them is zero."""
    return float(10 * np.log10(signal / noise)) if signal > 0 and noise > 0 else None


def snr_db(values: NumberArray, wanted: NumberArray) -> float | None:
    """Power of the wanted values over that of the difference, in dB; None without a difference."""
    values, wanted = values.reshape(-1), wanted.reshape(-1)
    power = noise = 0.0
    for at in range(0, wanted.size, _CACHED):
        exact = wanted[at : at + _CACHED].astype(np.float64)
        missed = values[at : at + _CACHED] - exact
        power, noise = power + float(exact @ exact), noise + float(missed @ missed)
    return decibels(power, noise)


def top_shares(scores: AnyFloatArray, labels: NumberArray) -> tuple[float, float | None]:
    """Shares of labels that are the best class and among the best five.

    Args:
        scores: Class scores [n, classes], or one logit for each sample.
        labels: Class numbers [n]; 0 or 1 for a logit, which has no best five.
    """
    if scores.size == len(scores):
        return float(((scores.reshape(-1) > 0) == (labels > 0)).mean()), None
    ranked = np.argsort(-scores, axis=1, kind="stable") == labels[:, np.newaxis]
    return float(ranked[:, :1].any(1).mean()), float(ranked[:, :_TOP].any(1).mean())
