"""The distribution of a tensor's values, small enough to be searched over many times."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.errors import InputError

__all__ = ["EXACT_LIMIT", "Distribution", "condense", "distribution_of"]


EXACT_LIMIT = 16384
"""The largest number of values that is kept as it is."""

_BINS_PER_SIGN = 2048
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class Distribution:
    """Weighted values of one tensor.

    Attributes:
        values: float64 [n], finite, in any order.
        counts: float64 [n], >= 0: how often each value occurs.

    Raises:
        InputError: The shapes differ, or a value or count is not finite or a count is negative.
    """

    values: FloatArray
    counts: FloatArray

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or self.values.shape != self.counts.shape:
            raise InputError(
                f"{self.values.shape} values came with {self.counts.shape} counts; give one for each"
            )
        if not (np.isfinite(self.values).all() and np.isfinite(self.counts).all()):
            raise InputError(
                "a tensor to quantize holds NaN or infinite values; repair the model or the samples"
            )
        if (self.counts < 0).any():
            raise InputError(
                "the distribution of a tensor's values holds negative counts; give counts of 0 or more"
            )


def distribution_of(array: npt.NDArray[np.floating]) -> Distribution:
    """The distribution of an array's values.

    Up to :data:`EXACT_LIMIT` values are kept exactly; more are condensed by :func:`condense`.

    Args:
        array: Values, any float dtype and shape.

    Returns:
        The distribution; its counts sum to ``array.size``.

    Raises:
        InputError: A value is NaN or infinite.
    """
    flat = array.reshape(-1)
    if flat.size <= EXACT_LIMIT:
        return Distribution(flat.astype(np.float64), np.ones(flat.size))
    values, counts = condense(flat)
    used = counts > 0
    return Distribution(values[used], counts[used])


def condense(flat: npt.NDArray[np.floating]) -> tuple[FloatArray, FloatArray]:
    """Condense values into a fixed number of bins, each represented by the mean of its values.

    The bins are even in ``sign(x) * sqrt(|x| / max|x|)``, so they are finest near zero, where most values lie
    and where a clipped grid is finest too. Exact zeros have a bin of their own.

    Args:
        flat: Values, any float dtype, [n].

    Returns:
        Bin means (0 for an empty bin) and counts, both float64 [2 * 2048 + 1], ascending.

    Raises:
        InputError: A value is NaN or infinite.
    """
    bins = 2 * _BINS_PER_SIGN + 1
    counts, sums = np.zeros(bins), np.zeros(bins)
    peak = float(max(flat.max(initial=0.0), -flat.min(initial=0.0)))
    if not np.isfinite(peak):
        raise InputError("a tensor to quantize holds NaN or infinite values; repair the model or the samples")
    for begin in range(0, flat.size, _CHUNK):
        chunk = flat[begin : begin + _CHUNK].astype(np.float64)
        place = np.sqrt(np.abs(chunk) / (peak or 1.0))
        place *= _BINS_PER_SIGN
        np.minimum(np.ceil(place, out=place), _BINS_PER_SIGN, out=place)
        index = (np.copysign(place, chunk) + _BINS_PER_SIGN).astype(np.intp)
        counts += np.bincount(index, minlength=bins)
        sums += np.bincount(index, weights=chunk, minlength=bins)
    return np.divide(sums, counts, out=np.zeros(bins), where=counts > 0), counts
