"""How close outputs are to others, and how often they are right."""

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import AnyFloatArray

__all__ = ["decibels", "snr_db", "top_shares"]

NumberArray = npt.NDArray[np.number]

_TOP = 5


def decibels(signal: float, noise: float) -> float | None:
    """The ratio of two powers in dB; None where one of them is zero."""
    return float(10 * np.log10(signal / noise)) if signal > 0 and noise > 0 else None


def snr_db(values: NumberArray, wanted: NumberArray) -> float | None:
    """Power of the wanted values over that of the difference, in dB; None without a difference."""
    exact = wanted.astype(np.float64)
    return decibels(float(np.square(exact).sum()), float(np.square(values - exact).sum()))


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
