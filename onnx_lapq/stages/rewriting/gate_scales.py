"""Make what gates multiply easy to quantize: the gates even out channels of different ranges."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
from onnx_lapq.network.float_network import float_runs
from onnx_lapq.stages.rewriting.observing import SAMPLES, held_out

__all__ = ["scale_gated_values"]

_ROWS = 64
"""Of every sample that chooses the divisors."""
_LEAST_ROWS = 16
"""Fewer rows tell nothing."""
_GAIN = 0.9
"""Share of the error that divisors have to leave at most."""


@dataclass
class _Seen:
    """A gated value, and what was seen of it.

    Attributes:
        gated: Where it stands.
        ranges: Largest absolute value of every channel, [channels].
        rows: The value at some positions of other samples, [n, channels] each.
        gates: What each gate is there, [gates, n, channels] each.
    """

    gated: Gated
    ranges: FloatArray
    rows: list[Float32Array] = field(default_factory=list)
    gates: list[Float32Array] = field(default_factory=list)

    def look(self, values: Mapping[str, np.ndarray], at: slice) -> None:
        """Take in a batch of samples; one that has no row of its own in all of them says nothing."""
        value, *gates = (values[name] for name in self.gated.names)
        if any(len(each) != at.stop - at.start for each in (value, *gates)):
            return
        judges = held_out(at)
        channels = np.abs(np.moveaxis(value[~judges], 1, 0)).reshape(len(self.ranges), -1)
        self.ranges = np.maximum(self.ranges, channels.max(axis=1, initial=0.0))
        chosen = value[judges]
        if chosen.size:
            flat = np.moveaxis(chosen, 1, -1).reshape(-1, len(self.ranges))
            positions = len(flat) // len(chosen)
            taken = spread_positions(at.start, len(chosen), positions, _ROWS)
            self.rows.append(flat[taken])
            of_samples = [gate[judges].reshape(len(chosen), -1) for gate in gates]
            self.gates.append(np.stack([gate[taken // positions] for gate in of_samples]))

    def divide(self, graph: ir.Graph) -> bool:
        """Divide its channels, and say so, where that lowers the error of the products."""
        if sum(map(len, self.rows)) < _LEAST_ROWS:
            return False
        rows, gates = np.concatenate(self.rows), np.concatenate(self.gates, axis=1)
        if not all(np.isfinite(each).all() for each in (self.ranges, rows, gates)):
            return False  # the calibration refuses what overflowed
        with np.errstate(over="ignore", invalid="ignore"):  # an error that overflows is no gain
            divisors, left = best_gate_divisors(rows, gates, self.ranges, self.gated.product.bits)
        if not left < _GAIN:
            return False
        divide_gated(graph, self.gated, divisors)
        return True


def scale_gated_values(
    model: ir.Model, placement: Placement, samples: Samples, config: QuantizationConfig
) -> int:
    """Divide the wide channels of what gates multiply where that lowers the error of the products.

    What the float network computes stays the same.

    Args:
        model: A prepared model; changed in place.
        placement: Its quantizers.
        samples: The calibration set.
        config: Options of the run.

    Returns:
        The number of values whose channels were divided.
    """
    found = [_Seen(gated, np.zeros(gated.channels)) for gated in gated_values(model, placement)]
    if not found:
        return 0
    few = some_samples(model, samples, SAMPLES)
    runs = float_runs(model, few, small_batch(model, few), config.threads, config.provider)
    for where, values in runs(list(dict.fromkeys(name for seen in found for name in seen.gated.names))):
        for seen in found:
            seen.look(values, where)
    return sum(seen.divide(model.graph) for seen in found)
