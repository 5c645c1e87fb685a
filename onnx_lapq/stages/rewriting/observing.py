"""One look at the float network for all rewritings that scale channels by what they see of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.method.rounding.windows import spread_positions
from onnx_lapq.network.batching import some_samples
from onnx_lapq.network.float_network import float_runs

__all__ = [
    "HELD_OUT",
    "LEAST_ROWS",
    "Candidate",
    "chosen",
    "held_out",
    "observed_samples",
    "peaks",
    "rows_of_images",
    "scale_channels",
]

_SAMPLES = 64
HELD_OUT = 4
"""One sample in so many judges."""
LEAST_ROWS = 16
"""Fewer rows tell nothing: what suits them cuts off what others hold."""
_ROWS_OF_IMAGE = 64


class Candidate(Protocol):
    """A value whose channels may be scaled, and what was seen of it."""

    @property
    def names(self) -> Sequence[str]:
        """Values of the float network to look at."""
        ...

    def look(self, values: Mapping[str, np.ndarray], at: slice) -> None:
        """Take in these values on a batch of samples."""
        ...

    def scale(self, graph: ir.Graph) -> bool:
        """Scale the channels in place, and say so, where that brings what reads them nearer to float."""
        ...


def scale_channels(
    model: ir.Model, samples: Samples, config: QuantizationConfig, candidates: Sequence[Candidate]
) -> int:
    """Scale the channels of all candidates that gain by it; what the float network computes stays the same.

    Args:
        model: The prepared model that the candidates are of; changed in place.
        samples: The calibration set.
        config: Options of the run.
        candidates: In the order in which they are scaled.

    Returns:
        The number of values whose channels were scaled.
    """
    if not candidates:
        return 0
    few = observed_samples(model, samples)
    runs = float_runs(model, few, None, config.threads, config.provider)
    for where, values in runs(list(dict.fromkeys(name for each in candidates for name in each.names))):
        with np.errstate(over="ignore", invalid="ignore"):  # the calibration refuses what overflowed
            for candidate in candidates:
                candidate.look(values, where)
    return sum(candidate.scale(model.graph) for candidate in candidates)


def observed_samples(model: ir.Model, samples: Samples) -> Samples:
    """Those of the calibration set that are looked at."""
    return some_samples(model, samples, _SAMPLES)


def held_out(at: slice) -> npt.NDArray[np.bool_]:
    """Which samples of a batch judge."""
    judges: npt.NDArray[np.bool_] = np.arange(at.start, at.stop) % HELD_OUT == HELD_OUT - 1
    return judges


def chosen(
    seen: Sequence[np.ndarray], choose: Callable[[], tuple[FloatArray, float]], gain: float
) -> FloatArray | None:
    """Divisors, where they pay.

    Args:
        seen: All that they are chosen by.
        choose: Gives divisors and the share of the error that they leave.
        gain: What share they have to stay below.

    Returns:
        The divisors, float64 [channels]; None where they leave more, or something that was seen overflowed.
    """
    if not all(np.isfinite(each).all() for each in seen):
        return None  # the calibration refuses what overflowed
    with np.errstate(over="ignore", invalid="ignore"):  # an error that overflows is no gain
        divisors, left = choose()
    return divisors if left < gain else None


def peaks(
    images: np.ndarray, among: npt.NDArray[np.bool_], lowest: float = -np.inf, highest: float = np.inf
) -> FloatArray:
    """Largest absolute value of every channel of some images, cut off at two ends; 0 where there are none.

    Args:
        images: [N, C, *spatial].
        among: Which of them, [N].
        lowest: What lies below counts as this.
        highest: What lies above counts as this.

    Returns:
        float64 [C].
    """
    inner = tuple(range(2, images.ndim))
    if not images.size:
        return np.zeros(images.shape[1])
    high = images.max(inner)[among].clip(lowest, highest)
    low = images.min(inner)[among].clip(lowest, highest)
    largest: FloatArray = np.maximum(high, -low).max(axis=0, initial=0.0)
    return largest.astype(np.float64)


def rows_of_images(images: np.ndarray, first: int) -> tuple[Float32Array, npt.NDArray[np.intp]]:
    """Some positions of images, [N, C, *spatial], N > 0.

    Args:
        images: Of the samples that judge in a batch.
        first: Number of the first sample of the batch.

    Returns:
        Rows, [n, C], and the image of each.
    """
    rows = np.moveaxis(images, 1, -1).reshape(-1, images.shape[1])
    positions = len(rows) // len(images)
    taken = spread_positions(first, len(images), positions, _ROWS_OF_IMAGE)
    return rows[taken], taken // positions
