"""Make what gates multiply easy to quantize: the gates even out channels of different ranges."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.rewriting.gates import Gated, divide_gated, gated_values
from onnx_lapq.method.activation_scales import best_gate_divisors
from onnx_lapq.stages.rewriting.observing import (
    LEAST_ROWS,
    Candidate,
    chosen,
    held_out,
    peaks,
    rows_of_images,
)

__all__ = ["values_of_gates"]

_GAIN = 0.9
"""Share of the error that divisors have to leave at most."""


def values_of_gates(model: ir.Model, placement: Placement) -> list[Candidate]:
    """The values that gates multiply, whose channels may be divided and the gates multiplied.

    Args:
        model: A prepared model.
        placement: Its quantizers.
    """
    return [_Multiplied(gated, np.zeros(gated.channels)) for gated in gated_values(model, placement)]


@dataclass
class _Multiplied:
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

    @property
    def names(self) -> list[str]:
        return self.gated.names

    def look(self, values: Mapping[str, np.ndarray], at: slice) -> None:
        """Take in a batch of samples; one that has no row of its own in all of them says nothing."""
        value, *gates = (values[name] for name in self.names)
        if any(len(each) != at.stop - at.start for each in (value, *gates)):
            return
        judges = held_out(at)
        self.ranges = np.maximum(self.ranges, peaks(value, ~judges))
        if value[judges].size:
            rows, images = rows_of_images(value[judges], at.start)
            self.rows.append(rows)
            self.gates.append(np.stack([gate[judges].reshape(judges.sum(), -1)[images] for gate in gates]))

    def scale(self, graph: ir.Graph) -> bool:
        if sum(map(len, self.rows)) < LEAST_ROWS:
            return False
        rows, gates = np.concatenate(self.rows), np.concatenate(self.gates, axis=1)
        ranges, bits = self.ranges, self.gated.product.bits
        divisors = chosen((ranges, rows, gates), lambda: best_gate_divisors(rows, gates, ranges, bits), _GAIN)
        if divisors is not None:
            divide_gated(graph, self.gated, divisors)
        return divisors is not None
