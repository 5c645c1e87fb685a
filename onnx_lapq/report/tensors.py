"""What quantization leaves of each tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.evaluation.runner import Point
from onnx_lapq.method.measures import decibels, snr_db
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.step_sizes.distribution import Distribution
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.step_sizes import Steps
from onnx_lapq.report.record import QuantizerRecord

__all__ = ["Fidelity", "Histogram", "fidelities", "histograms"]


_BINS = 60


@dataclass(frozen=True)
class Fidelity:
    """What quantization leaves of one tensor.

    Attributes:
        clip: The lowest and the highest value that survive, at the median scale of per-channel weights.
        snr_db: Power of the values over that of their quantization error, in dB; None without an error.
    """

    clip: tuple[float, float]
    snr_db: float | None


@dataclass(frozen=True, eq=False)
class Histogram:
    """The values of one quantized tensor.

    Attributes:
        name: Initializer or activation.
        edges: Of the bins, float64 [bins + 1]; they reach to the clip values and beyond.
        counts: Values in each bin, float64 [bins].
    """

    name: str
    edges: FloatArray
    counts: FloatArray


def fidelities(bench: Bench, steps: Steps, point: Point) -> dict[str, Fidelity]:
    """What quantization leaves of every tensor, by quantizer; activations first.

    Args:
        bench: The network.
        steps: Step sizes of all quantizers.
        point: The candidate network at these step sizes.
    """
    found = {}
    for name, grid in bench.network.grids.items():
        distribution, _ = bench.layerwise.distribution(name)
        scale = float(steps[name])
        found[name] = Fidelity(_clip(grid, scale), _activation_snr(distribution, grid, scale))
    for name, layer in bench.network.layers.items():
        snr = _weight_snr(layer.values, point.weights[name].values)
        found[name] = Fidelity(_clip(layer.grid, float(np.median(steps[name]))), snr)
    return found


def histograms(bench: Bench, records: Sequence[QuantizerRecord]) -> tuple[Histogram, ...]:
    """The values of every tensor that has a quantizer."""
    return tuple(
        Histogram(record.name, *_histogram(bench.layerwise.distribution(record.name)[0], record.clip))
        for record in records
    )


def _clip(grid: Grid, scale: float) -> tuple[float, float]:
    return grid.lowest * scale, grid.highest * scale


def _activation_snr(distribution: Distribution, grid: Grid, scale: float) -> float | None:
    x, counts = distribution.values, distribution.counts
    error = np.clip(np.rint(x / scale), grid.lowest, grid.highest) * scale - x
    return decibels(float(counts @ (x * x)), float(counts @ (error * error)))


def _weight_snr(values: Float32Array, written: Float32Array) -> float | None:
    return snr_db(written, values)


def _histogram(distribution: Distribution, clip: Sequence[float]) -> tuple[FloatArray, FloatArray]:
    reach = [
        *clip,
        *(float(end(distribution.values)) for end in (np.min, np.max) if distribution.values.size),
    ]
    low, high = min(reach), max(reach)
    counts, edges = np.histogram(
        distribution.values, bins=_BINS, range=(low, high), weights=distribution.counts
    )
    return edges, counts
