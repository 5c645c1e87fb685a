"""A histogram of a stream of values: one pass, fixed memory, no range known beforehand."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import Float32Array, FloatArray

__all__ = ["StreamingHistogram"]

_CHUNK = 1 << 15  # elements per step; the scratch arrays of one step (800 KB) stay in the L2 cache
_COUNT_UNIT = float(1 << 16)  # above _CHUNK, so that a count and a sum of fractions share one float64
_FLOAT32_DIGITS = 24
_SMALLEST_EXPONENT = -126


@dataclass(frozen=True)
class _Grid:
    """Bin ``i`` covers ``[first + i, first + i + 1) * 2**exponent``."""

    exponent: int
    first: int


class StreamingHistogram:
    """Bins of one width over the range of the data seen so far.

    The width is a power of two and the edges are its multiples, so halving the resolution merges
    exactly two neighbours into one and no value is ever split. The width is the smallest with
    which the range fits into ``bins`` bins: a function of the smallest and the largest value
    alone. Hence counts, edges, extremes and zeros do not depend on how the data was cut into
    batches or in which order it came; bin means do, by rounding (about 1e-5 of a bin). One
    exception: a negative value 2**149 times smaller than a bin may be counted right of zero.

    Between half and all of the bins span the range, except for data with fewer than that many
    distinct float32 values (bins narrower than the spacing of float32 make no sense).

    Exact zeros, which dominate what a ReLU leaves, are counted apart and are in no bin.

    Attributes:
        bins: Number of bins, fixed.
        count: Number of values seen, zeros included.
        zeros: Number of values equal to zero (of either sign).
        minimum: Smallest value seen; ``inf`` before the first.
        maximum: Largest value seen; ``-inf`` before the first.
    """

    def __init__(self, bins: int = 4096) -> None:
        """Make an empty histogram.

        Args:
            bins: Number of bins, at least 2; 24 bytes of memory each.

        Raises:
            ValueError: ``bins`` is below 2.
        """
        if bins < 2:
            raise ValueError(f"a histogram needs at least 2 bins, not {bins}")
        self.bins = bins
        self.count = 0
        self.zeros = 0
        self.minimum = math.inf
        self.maximum = -math.inf
        self._grid: _Grid | None = None
        self._counts = np.zeros(bins, np.int64)
        self._fractions = np.zeros(bins, np.float64)  # per bin: sum of (value - lower edge) / width

    @property
    def width(self) -> float:
        """Width of a bin in units of the data; 0 before the first value."""
        return 0.0 if self._grid is None else math.ldexp(1.0, self._grid.exponent)

    def update(self, array: npt.ArrayLike, every: int = 1, first: int = 0) -> None:
        """Add the elements of an array, or some of them; smallest and largest value are those of all.

        Args:
            array: Any shape; float32 goes in without a copy if contiguous, other dtypes are cast.
            every: Distance of the elements that are counted, in C order.
            first: The first one that is counted, modulo the distance.

        Raises:
            ValueError: The array holds NaN or infinity; the histogram is then left as it was.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            values = np.ascontiguousarray(array, np.float32).reshape(-1)
            if values.size == 0:
                return
            lowest, highest = float(values.min()), float(values.max())
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            raise ValueError("the values include NaN or infinity")
        grid = self._cover(lowest, highest)
        values = values[first % every :: every]
        scratch = _Scratch(min(values.size, _CHUNK))
        for start in range(0, values.size, _CHUNK):
            self._add_chunk(values[start : start + _CHUNK], grid, scratch)
        self.count += values.size

    def points(self) -> tuple[FloatArray, FloatArray]:
        """The non-empty bins as weighted points, in ascending order.

        Returns:
            ``(values, counts)``, float64 [n] each: the mean of each bin's values, and 0.0 for the
            exact zeros; the counts sum to ``count``.
        """
        if self._grid is None:
            return np.empty(0), np.empty(0)
        used = np.flatnonzero(self._counts)
        counts = self._counts[used].astype(np.float64)
        lower = (used + self._grid.first).astype(np.float64)
        means = np.ldexp(lower + self._fractions[used] / counts, self._grid.exponent)
        means = np.clip(means, self.minimum, self.maximum)
        if self.zeros:
            at = int(np.searchsorted(lower, 0.0))  # bin 0 starts at zero: its values are above
            means, counts = np.insert(means, at, 0.0), np.insert(counts, at, float(self.zeros))
        return means, counts

    def quantile(self, q: float) -> float:
        """The smallest value such that a share ``q`` of the data is not above it.

        Args:
            q: Share in [0, 1].

        Returns:
            The exact extreme for 0 and 1, else the mean of the bin that holds the quantile: off by
            less than one bin width.

        Raises:
            ValueError: ``q`` is outside [0, 1] or nothing has been seen.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile needs a share between 0 and 1, not {q}")
        if self.count == 0:
            raise ValueError("an empty histogram has no quantiles")
        if q in (0.0, 1.0):
            return self.minimum if q == 0.0 else self.maximum
        values, counts = self.points()
        rank = min(max(math.ceil(q * self.count), 1), self.count)
        return float(values[np.searchsorted(np.cumsum(counts), rank)])

    def _cover(self, lowest: float, highest: float) -> _Grid:
        """Widen range and grid to include [lowest, highest]; return the grid."""
        self.minimum, self.maximum = min(self.minimum, lowest), max(self.maximum, highest)
        grid = _grid_for(self.minimum, self.maximum, self.bins)
        if self._grid is not None and grid != self._grid:
            self._counts, self._fractions = _regrid(self._counts, self._fractions, self._grid, grid)
        self._grid = grid
        return grid

    def _add_chunk(self, chunk: Float32Array, grid: _Grid, scratch: "_Scratch") -> None:
        """Bin at most _CHUNK values that the grid covers; one weighted bincount finds counts and sums."""
        size = chunk.size
        position, lower = scratch.position[:size], scratch.lower[:size]
        index, weight = scratch.index[:size], scratch.weight[:size]
        np.multiply(chunk, np.float32(math.ldexp(1.0, -grid.exponent)), out=position)
        np.floor(position, out=lower)
        if self.maximum < 0.0:
            np.minimum(lower, np.float32(-1.0), out=lower)  # the product may underflow to -0
        np.subtract(position, lower, out=position)
        np.subtract(lower, np.float32(grid.first), out=lower)
        np.copyto(scratch.short[:size], lower, casting="unsafe")  # by way of int32, which is twice as fast
        np.copyto(index, scratch.short[:size])
        np.copyto(weight, position)
        weight += _COUNT_UNIT
        # Each value weighs _COUNT_UNIT plus a fraction of at most 1, and there are fewer values than
        # _COUNT_UNIT: of the sum of a bin the whole units are the count, and the rest is the sum of the
        # fractions.
        sums = np.bincount(index, weights=weight, minlength=self.bins)
        counts = np.floor(sums / _COUNT_UNIT)
        self._fractions += sums - counts * _COUNT_UNIT
        self._counts += counts.astype(np.int64)
        zeros = int(np.count_nonzero(np.equal(chunk, 0.0, out=scratch.is_zero[:size])))
        if zeros:
            self._counts[-grid.first] -= zeros  # the bin that begins at 0
            self.zeros += zeros


class _Scratch:
    """Buffers that the chunks of one update share."""

    def __init__(self, size: int) -> None:
        self.position = np.empty(size, np.float32)
        self.lower = np.empty(size, np.float32)
        self.short = np.empty(size, np.int32)
        self.index = np.empty(size, np.intp)
        self.weight = np.empty(size, np.float64)
        self.is_zero = np.empty(size, np.bool_)


def _grid_for(lowest: float, highest: float, bins: int) -> _Grid:
    """The finest grid of ``bins`` power-of-two bins that covers [lowest, highest]."""
    magnitude = math.frexp(max(abs(lowest), abs(highest)))[1]
    exponent = max(magnitude - _FLOAT32_DIGITS, _SMALLEST_EXPONENT)
    if highest > lowest:
        exponent = max(exponent, math.frexp((highest - lowest) / bins)[1] - 1)
    while _floor(highest, exponent) - _floor(lowest, exponent) >= bins:
        exponent += 1
    return _Grid(exponent, _floor(lowest, exponent))


def _floor(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))


def _regrid(
    counts: npt.NDArray[np.int64], fractions: FloatArray, old: _Grid, new: _Grid
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Move bins to a grid that covers them and is no finer."""
    # An old bin at position p, in units of its width, lies in the new bin p // 2^shift, which begins p mod
    # 2^shift old widths before it: what its values' fractions grow by, before they are put in new widths.
    shift = min(new.exponent - old.exponent, 62)  # beyond, all falls into bins -1 and 0 anyway
    used = np.flatnonzero(counts)
    positions = used + old.first
    targets = positions >> shift
    within = (positions - (targets << shift)).astype(np.float64)
    moved = (fractions[used] + within * counts[used]) * math.ldexp(1.0, -shift)
    new_counts, new_fractions = np.zeros_like(counts), np.zeros_like(fractions)
    np.add.at(new_counts, targets - new.first, counts[used])
    np.add.at(new_fractions, targets - new.first, moved)
    return new_counts, new_fractions
