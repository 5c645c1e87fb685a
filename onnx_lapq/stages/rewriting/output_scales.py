"""Make what convolutions write for activation functions easy to quantize: a scale for every channel."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.rewriting.written_values import Written, divide_written, written_values
from onnx_lapq.method.activation_scales import best_output_divisors
from onnx_lapq.stages.rewriting.observing import (
    LEAST_ROWS,
    Candidate,
    chosen,
    held_out,
    peaks,
    rows_of_images,
)

__all__ = ["outputs_of_layers"]

_GAIN = 0.5
"""Share of the error that divisors have to leave at most: they take a Mul as large as the value."""


def outputs_of_layers(model: ir.Model, placement: Placement) -> list[Candidate]:
    """What convolutions write for activation functions: its channels may be divided and multiplied again.

    Args:
        model: A prepared model.
        placement: Its quantizers.
    """
    return [_Output(written, np.zeros(written.channels)) for written in written_values(model, placement)]


@dataclass
class _Output:
    """What a convolution writes, and what was seen of it, but for what its readers do not tell apart.

    Attributes:
        written: Where it stands.
        ranges: Largest absolute value of every channel, [channels].
        rows: The value at some positions of other samples, [n, channels] each.
    """

    written: Written
    ranges: FloatArray
    rows: list[Float32Array] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [self.written.product.value.name or ""]

    def look(self, values: Mapping[str, np.ndarray], at: slice) -> None:
        """Take in a batch of samples; one that has no row of its own says nothing."""
        (value,), judges, curve = (values[name] for name in self.names), held_out(at), self.written.curve
        if len(value) != len(judges):
            return
        ends = curve.lowest, curve.highest
        self.ranges = np.maximum(self.ranges, peaks(value, ~judges, *ends))
        if (judging := value[judges]).size:
            self.rows.append(np.clip(rows_of_images(judging, at.start)[0], *ends))

    def scale(self, graph: ir.Graph) -> bool:
        if sum(map(len, self.rows)) < LEAST_ROWS:
            return False
        rows = np.concatenate(self.rows)
        ranges, bits = self.ranges, self.written.product.bits
        divisors = chosen((ranges, rows), lambda: best_output_divisors(rows, ranges, bits), _GAIN)
        if divisors is not None:
            divide_written(graph, self.written, divisors)
        return divisors is not None
