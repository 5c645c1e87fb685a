"""Make what gates multiply easy to quantize: the gates even out channels of different ranges."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.rewriting.gates import Gated, divide_gated, gated_values
from onnx_lapq.method.activation_scales import best_gate_divisors
from onnx_lapq.method.rounding.windows import spread_positions
from onnx_lapq.network.batching import small_batch, some_samples
from onnx_lapq.network.float_network import FloatRuns, float_runs

__all__ = ["scale_gated_values"]

_SAMPLES = 64
_ROWS = 64
"""Of every sample that chooses the divisors."""
_HELD_OUT = 4
"""One sample in so many chooses the divisors; the others give the ranges."""
_GAIN = 0.9
"""Share of the error that divisors have to leave at most."""

_Rows = tuple[Float32Array, Float32Array]
"""Values and gates, [n, channels] each."""


def scale_gated_values(
    model: ir.Model, placement: Placement, samples: Samples, config: QuantizationConfig
) -> int:
    """Divide the wide channels of what gates multiply where that lowers the error of the product.

    What the float network computes stays the same.

    Args:
        model: A prepared model; changed in place.
        placement: Its quantizers.
        samples: The calibration set.
        config: Options of the run.

    Returns:
        The number of values whose channels were divided.
    """
    found = gated_values(model, placement)
    if not found:
        return 0
    few = some_samples(model, samples, _SAMPLES)
    runs = float_runs(model, few, small_batch(model, few), config.threads, config.provider)
    ranges, rows = _observed(found, runs)
    moved = 0
    for gated, widest, (values, gates) in zip(found, ranges, rows, strict=True):
        if not len(values) or not np.isfinite(widest).all():
            continue
        with np.errstate(over="ignore", invalid="ignore"):  # an error that overflows is no gain
            divisors, left = best_gate_divisors(values, gates, widest, gated.product.bits)
        if left < _GAIN:
            divide_gated(model.graph, gated, divisors)
            moved += 1
    return moved


def _observed(found: Sequence[Gated], run_float: FloatRuns) -> tuple[list[FloatArray], list[_Rows]]:
    """Largest absolute value of every channel, and some rows of samples that had no part in it."""
    ranges: list[FloatArray] = [np.zeros(gated.channels) for gated in found]
    rows: list[list[_Rows]] = [[] for _ in found]
    names = dict.fromkeys(value.name or "" for gated in found for value in (gated.product.value, gated.gate))
    for where, values in run_float(list(names)):
        held_out = np.arange(where.start, where.stop) % _HELD_OUT == _HELD_OUT - 1
        for index, gated in enumerate(found):
            value, gate = values[gated.product.value.name or ""], values[gated.gate.name or ""]
            channels = np.abs(np.moveaxis(value[~held_out], 1, 0)).reshape(gated.channels, -1)
            ranges[index] = np.maximum(ranges[index], channels.max(axis=1, initial=0.0))
            rows[index].append(_rows(value[held_out], gate[held_out], where.start))
    parts = [tuple(np.concatenate(part) for part in zip(*pairs, strict=True)) for pairs in rows]
    return ranges, [(values, gates) for values, gates in parts]


def _rows(values: np.ndarray, gates: np.ndarray, first: int) -> _Rows:
    """Values [N, C, *spatial] at some positions, and the gates [N, C, 1, ...] there."""
    samples, channels = values.shape[:2]
    if not values.size:
        return np.empty((0, channels), np.float32), np.empty((0, channels), np.float32)
    flat = np.moveaxis(values, 1, -1).reshape(-1, channels)
    positions = len(flat) // samples
    at = spread_positions(first, samples, positions, _ROWS)
    return flat[at], gates.reshape(samples, channels)[at // positions]
