"""What quantization does to each tensor: how much it loses, and what the network's loss makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_lapq.evaluation.runner import Point
from onnx_lapq.method.analysis import bends
from onnx_lapq.method.distribution import Distribution
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.network import Objective
from onnx_lapq.progress import Ticker
from onnx_lapq.start import Steps
from onnx_lapq.workbench import Workbench

__all__ = ["TensorView", "sensitivities", "view_tensors"]

FloatArray = npt.NDArray[np.float64]

_BINS = 60
_DISTANCE = 0.1
"""How far a step size is moved to see what the loss makes of it, as a share."""


@dataclass(frozen=True, eq=False)
class TensorView:
    """One quantized tensor.

    Attributes:
        name: Initializer or activation.
        clip: The lowest and the highest value that survive, at the median scale of per-channel weights.
        snr: Power of the values over that of their quantization error, in dB; None without an error.
        sensitivity: Mean rise of the loss when this step size alone is 10 % larger or smaller; None for a
            quantizer that is not searched.
        edges: Of the histogram's bins, float64 [bins + 1]; they reach to the clip values and beyond.
        counts: Values in each bin, float64 [bins].
    """

    name: str
    clip: tuple[float, float]
    snr: float | None
    sensitivity: float | None
    edges: FloatArray
    counts: FloatArray


def view_tensors(
    bench: Workbench, steps: Steps, point: Point, sensitivity: Mapping[str, float]
) -> tuple[TensorView, ...]:
    """Look at every quantized tensor, activations first.

    Args:
        bench: The network.
        steps: Step sizes of all quantizers.
        point: The candidate network at these step sizes.
        sensitivity: Of the searched ones, from `sensitivities`.
    """
    views = []
    for name in bench.layerwise.names:
        distribution, grid = bench.layerwise.distribution(name)
        scale = float(np.median(steps[name]))
        if name in point.weights:
            values = bench.network.layers[name].values.astype(np.float64)
            snr = _decibels(np.square(values).sum(), np.square(values - point.weights[name].values).sum())
        else:
            snr = _snr(distribution, grid, scale)
        clip = grid.lowest * scale, grid.highest * scale
        edges, counts = _histogram(distribution, clip)
        views.append(TensorView(name, clip, snr, sensitivity.get(name), edges, counts))
    return tuple(views)


def sensitivities(
    bench: Workbench, order: Sequence[str], steps: Steps, guard: npt.NDArray[np.intp], tick: Ticker
) -> dict[str, float]:
    """Mean rise of the loss when one step size alone is 10 % larger or smaller.

    Args:
        bench: The network.
        order: The n searched quantizers.
        steps: Step sizes of all quantizers.
        guard: Positions of the samples that do not count.
        tick: Told after every evaluation; there are 2 n + 1.
    """
    limits = np.array([bench.layerwise.limit(name) for name in order])
    objective = Objective(bench.network, bench.evaluator, steps, order, limits, guard)
    done = 0

    def loss(u: FloatArray) -> float:
        nonlocal done
        done += 1
        tick(done)
        return objective(u * objective.start)

    near = bends(loss, np.ones(len(order)), _DISTANCE)
    rises = (near.ahead + near.behind) / 2 - near.centre
    return dict(zip(order, rises.tolist(), strict=True))


def _snr(distribution: Distribution, grid: Grid, scale: float) -> float | None:
    x, counts = distribution.values, distribution.counts
    error = np.clip(np.rint(x / scale), grid.lowest, grid.highest) * scale - x
    return _decibels(float(counts @ (x * x)), float(counts @ (error * error)))


def _decibels(signal: float, noise: float) -> float | None:
    return float(10 * np.log10(signal / noise)) if signal > 0 and noise > 0 else None


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
