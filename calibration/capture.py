"""Run the float network over the calibration set once: histograms, means and reference outputs."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_lapq.calibration.histogram import StreamingHistogram
from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.errors import CalibrationError

__all__ = ["Block", "Capture", "Means", "as_given", "by_sample", "capture", "stacked"]


Means = tuple[tuple[int, FloatArray], ...]
"""Means over the first axis, float64, each with the number of rows; one for each shape that the rows have."""

_COUNTED, _OF_SAMPLE = 1 << 21, (1 << 12, 1 << 16)
"""Values, about, that a histogram counts in all, and of a sample at least and at most; of larger maps a part
that is spread evenly."""

_AVERAGED = 1 << 22
"""Values of a layer's input, about, that a mean is taken of."""


@dataclass(frozen=True)
class Block:
    """Outputs of consecutive samples, where all of them have one shape.

    Attributes:
        at: The samples.
        outputs: By name, in graph order, each [samples, ...].
    """

    at: slice
    outputs: dict[str, np.ndarray]


@dataclass(frozen=True)
class Capture:
    """What one pass over the calibration set leaves behind; only the outputs grow with the set.

    Attributes:
        histograms: Distribution of every observed activation, by value name.
        means: Means of every observed layer input, by value name.
        blocks: The float network's outputs on all samples; one block where all have one shape.
        axes: Axis of the samples in each output, by name; None where a run of one sample has none.
    """

    histograms: dict[str, StreamingHistogram]
    means: dict[str, Means]
    blocks: tuple[Block, ...]
    axes: Mapping[str, int | None]

    @property
    def largest(self) -> Block:
        """The block with the most samples."""
        return max(self.blocks, key=lambda block: block.at.stop - block.at.start)

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        return list(self.axes)


def capture(
    runs: Iterable[tuple[slice, Mapping[str, np.ndarray]]],
    *,
    histograms: Sequence[str],
    means: Sequence[str],
    outputs: Mapping[str, int | None],
    samples: int,
    on_batch: Callable[[int], None],
    inputs: Collection[str] = (),
) -> Capture:
    """Accumulate the statistics of a stream of batches.

    Args:
        runs: Pairs (which samples, values by name), in sample order.
        histograms: Values whose distribution is wanted.
        means: Values whose mean over the samples is wanted.
        outputs: The graph's outputs with a row for each sample, and along which axis.
        samples: How many there are.
        on_batch: Called with the number of samples done so far.
        inputs: Values that are fed, for messages.

    Raises:
        CalibrationError: A value whose distribution is wanted is NaN or infinite; or an output is NaN,
            infinite, or all minus infinity.
    """
    found = {name: StreamingHistogram() for name in histograms}
    sums = {name: _Means(samples) for name in means}
    kept = _Outputs(samples)
    counted = int(np.clip(_COUNTED // samples, *_OF_SAMPLE))
    for where, values in runs:
        for name, histogram in found.items():
            try:
                histogram.update(values[name], _distance(values[name], where, counted), where.start)
            except ValueError as error:
                raise _not_finite(name, where, fed=name in inputs) from error
        for name in means:
            sums[name].add(where, values[name])
        for name in outputs:
            if not _holds_numbers(values[name]):
                raise _not_finite(name, where, fed=name in inputs)
        kept.add(where, {name: by_sample(values[name], axis) for name, axis in outputs.items()})
        del values  # before the next batch is awaited
        on_batch(where.stop)
    return Capture(
        found,
        {name: found.means for name, found in sums.items()},
        kept.blocks(),
        outputs,
    )


def by_sample(values: np.ndarray, axis: int | None) -> np.ndarray:
    """An output with the samples along its first axis; one of a single sample gets that axis."""
    if axis is None:
        return values[None]
    return np.moveaxis(values, axis, 0) if axis else values


def as_given(values: np.ndarray, axis: int | None) -> np.ndarray:
    """The inverse of `by_sample`."""
    if axis is None:
        return values.reshape(values.shape[1:])
    return np.moveaxis(values, 0, axis) if axis else values


def stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Outputs on all samples, [samples, ...].

    Where samples differ in some axes, all their values along these lie behind each other in the first of
    them, and the samples' own axis has length 1: [2, 7, 5] and [1, 9, 5] become [1, 23, 5].
    """
    tails = {values.shape[1:] for values in parts}
    if len(tails) == 1:
        return np.concatenate(parts)
    differ = [axis for axis, sizes in enumerate(zip(*tails, strict=True), 1) if len(set(sizes)) > 1]
    first = differ[0]
    rows = []
    for values in parts:
        front = np.moveaxis(values, [0, *differ], range(len(differ) + 1))
        merged = np.moveaxis(front.reshape(-1, *front.shape[len(differ) + 1 :]), 0, first - 1)
        rows.append(np.expand_dims(merged, [0, *differ[1:]]))
    return np.concatenate(rows, axis=first)


def _distance(values: np.ndarray, where: slice, counted: int) -> int:
    """Of the values that a histogram counts of a batch, about so many of each sample.

    It has no divisor in common with any axis, so that they come from all columns and all channels.
    """
    every: int = max(math.ceil(values.size / (where.stop - where.start) / counted), 1)
    while math.gcd(every, values.size) > 1:
        every += 1
    return every


class _Means:
    """Means over the first axis; of large values over some batches, spread evenly, and the first of a shape.

    Args:
        samples: How many there are in all.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._seen: dict[tuple[int, ...], int] = {}
        self._sums: dict[tuple[int, ...], tuple[int, FloatArray]] = {}

    def add(self, where: slice, values: np.ndarray) -> None:
        """Take in a batch of samples."""
        shape = values.shape[1:]
        self._seen[shape] = self._seen.get(shape, 0) + len(values)
        batch = where.stop - where.start
        every = max(values.size // batch * self._samples // _AVERAGED, 1)
        if shape in self._sums and -where.start % every >= batch:
            return
        rows, total = self._sums.get(shape, (0, np.zeros(shape)))
        with np.errstate(over="ignore", invalid="ignore"):  # a product is ten times as fast as a sum
            batch_total = np.ones(len(values), np.float32) @ values.reshape(len(values), math.prod(shape))
        if not np.isfinite(batch_total).all():
            batch_total = values.sum(axis=0, dtype=np.float64)
        total += batch_total.reshape(shape)
        self._sums[shape] = rows + len(values), total

    @property
    def means(self) -> Means:
        """For each shape, with the number of all rows that have it."""
        return tuple((self._seen[shape], total / max(rows, 1)) for shape, (rows, total) in self._sums.items())


class _Outputs:
    """Outputs by blocks, which samples are added to.

    A block has room for all samples that are left, and gives back what it does not need. The system gives
    memory only to what is filled, so that the outputs, which may be large, are never held twice.

    Args:
        samples: How many samples there are in all.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._blocks: list[Block] = []

    def add(self, at: slice, rows: Mapping[str, np.ndarray]) -> None:
        """Add the outputs of the samples that come next, by name, each [n, ...]."""
        if not self._blocks or _shapes(self._blocks[-1].outputs) != _shapes(rows):
            self._end_block()
            left = self._samples - at.start
            room = {name: np.empty((left, *part.shape[1:]), part.dtype) for name, part in rows.items()}
            self._blocks.append(Block(slice(at.start, at.start), room))
        block = self._blocks[-1]
        for name, part in rows.items():
            block.outputs[name][at.start - block.at.start : at.stop - block.at.start] = part
        self._blocks[-1] = Block(slice(block.at.start, at.stop), block.outputs)

    def blocks(self) -> tuple[Block, ...]:
        """All that was added."""
        self._end_block()
        return tuple(self._blocks)

    def _end_block(self) -> None:
        for block in self._blocks[-1:]:
            for values in block.outputs.values():
                values.resize((block.at.stop - block.at.start, *values.shape[1:]), refcheck=False)


def _shapes(outputs: Mapping[str, np.ndarray]) -> list[tuple[int, ...]]:
    return [values.shape[1:] for values in outputs.values()]


def _holds_numbers(values: np.ndarray) -> bool:
    """Whether there is neither NaN nor infinity; minus infinity may be what a mask leaves, beside numbers."""
    return values.dtype.kind != "f" or not values.size or bool(np.isfinite(values.max()))


def _not_finite(name: str, samples: slice, *, fed: bool) -> CalibrationError:
    where = f"one of the calibration samples {samples.start} to {samples.stop - 1}"
    if fed:
        return CalibrationError(
            f"input {name!r} is quantized, and holds infinity in {where}; correct or remove the sample"
        )
    return CalibrationError(
        f"the float model computes NaN or infinity in tensor {name!r} on {where}; check the preprocessing of "
        "the samples and the model itself"
    )
