"""What quantization does to each tensor: how much it loses, and what the network's loss makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.evaluation.runner import Point
from onnx_lapq.method.landscape import bends
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.step_sizes.distribution import Distribution
from onnx_lapq.network.bench import Workbench
from onnx_lapq.network.network import Objective
from onnx_lapq.network.step_sizes import Steps
from onnx_lapq.progress import Ticker

__all__ = ["Fidelity", "Histogram", "fidelities", "histograms", "sensitivities"]


_BINS = 60
_DISTANCE = 0.1
"""How far a step size is moved to see what the loss makes of it, as a share."""


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


def fidelities(bench: Workbench, steps: Steps, point: Point) -> dict[str, Fidelity]:
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


def histograms(bench: Workbench, found: Mapping[str, Fidelity]) -> tuple[Histogram, ...]:
    """The values of every tensor.

    Args:
        bench: The network.
        found: What quantization leaves of them.
    """
    return tuple(
        Histogram(name, *_histogram(bench.layerwise.distribution(name)[0], fidelity.clip))
        for name, fidelity in found.items()
    )


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


def _clip(grid: Grid, scale: float) -> tuple[float, float]:
    return grid.lowest * scale, grid.highest * scale


def _activation_snr(distribution: Distribution, grid: Grid, scale: float) -> float | None:
    x, counts = distribution.values, distribution.counts
    error = np.clip(np.rint(x / scale), grid.lowest, grid.highest) * scale - x
    return _decibels(float(counts @ (x * x)), float(counts @ (error * error)))


def _weight_snr(values: Float32Array, written: Float32Array) -> float | None:
    return _decibels(_power(values), _power(values - written))


def _power(values: Float32Array) -> float:
    return float(np.square(values, dtype=np.float64).sum())


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
