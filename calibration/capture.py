"""Run the float network over the calibration set once: histograms, means and reference outputs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_lapq.calibration.histogram import StreamingHistogram
from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.errors import CalibrationError

__all__ = ["Capture", "capture"]


@dataclass(frozen=True)
class Capture:
    """What one pass over the calibration set leaves behind; its size does not grow with the set.

    Attributes:
        histograms: Distribution of every observed activation, by value name.
        means: Mean over the first axis (the samples) of every observed layer input, float64.
        outputs: The float network's outputs on all samples by name, in graph order, each [samples, ...].
    """

    histograms: dict[str, StreamingHistogram]
    means: dict[str, FloatArray]
    outputs: dict[str, np.ndarray]


def capture(
    runs: Iterable[tuple[slice, Mapping[str, np.ndarray]]],
    *,
    histograms: Sequence[str],
    means: Sequence[str],
    outputs: Sequence[str],
    on_batch: Callable[[int], None],
) -> Capture:
    """Accumulate the statistics of a stream of batches.

    Args:
        runs: Pairs (which samples, values by name), in sample order.
        histograms: Values whose distribution is wanted.
        means: Values whose mean over the samples is wanted.
        outputs: The graph's outputs that have a row for each sample.
        on_batch: Called with the number of samples done so far.

    Raises:
        CalibrationError: A value is NaN or infinite.
    """
    found = {name: StreamingHistogram() for name in histograms}
    sums: dict[str, FloatArray] = {}
    rows: dict[str, int] = {}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
    for where, values in runs:
        for name, histogram in found.items():
            _update(histogram, values[name], name)
        for name in means:
            total = values[name].sum(axis=0, dtype=np.float64)
            sums[name] = sums[name] + total if name in sums else total
            rows[name] = rows.get(name, 0) + values[name].shape[0]
        for name in outputs:
            _require_finite(values[name], name)
            parts[name].append(values[name])
        on_batch(where.stop)
    return Capture(
        found,
        {name: total / rows[name] for name, total in sums.items()},
        {name: np.concatenate(parts[name]) for name in outputs},
    )


def _update(histogram: StreamingHistogram, values: np.ndarray, name: str) -> None:
    try:
        histogram.update(values)
    except ValueError as error:
        raise _not_finite(name) from error


def _require_finite(values: np.ndarray, name: str) -> None:
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        raise _not_finite(name)


def _not_finite(name: str) -> CalibrationError:
    return CalibrationError(
        f"the float model computes NaN or infinity in tensor {name!r}; check the preprocessing of the "
        "calibration samples and the model itself"
    )
