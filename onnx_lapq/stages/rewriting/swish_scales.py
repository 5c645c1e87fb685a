"""Make what HardSwish or SiLU hands to depthwise convolutions easy to quantize: a scale for every channel."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.rewriting.swishes import Swish, divide_swish, swishes
from onnx_lapq.method.activation_scales import best_swish_divisors
from onnx_lapq.stages.rewriting.activation_scales import matrix_of, rows_per_sample
from onnx_lapq.stages.rewriting.observing import LEAST_ROWS, Candidate, chosen, held_out, peaks

__all__ = ["values_of_swishes"]

_WINDOWS = 64
"""Windows that the outputs of each channel are compared on."""

_GAIN = 0.5
"""Share of the error that divisors have to leave at most: the gate is computed in float then."""


def values_of_swishes(model: ir.Model, placement: Placement, samples: Samples) -> list[Candidate]:
    """What convolutions write for a HardSwish or SiLU in front of depthwise convolutions.

    Args:
        model: A prepared model.
        placement: Its quantizers.
        samples: The calibration set.
    """
    per_sample = rows_per_sample(model, samples, _WINDOWS)
    return [_Gated(swish, per_sample, np.zeros(swish.channels)) for swish in swishes(model, placement)]


@dataclass
class _Gated:
    """A value, and what was seen of it, but for what its gate does not tell apart.

    Attributes:
        swish: Where it stands.
        per_sample: Windows to take of a sample that judges.
        ranges: Largest absolute value of every channel, [channels], of the others.
        rows: What would meet the weights without the function, [groups, n, taps] each.
    """

    swish: Swish
    per_sample: int
    ranges: FloatArray
    rows: list[Float32Array] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [self.swish.product.value.name or ""]

    def look(self, values: Mapping[str, np.ndarray], at: slice) -> None:
        """Take in a batch of samples; one that has no row of its own says nothing."""
        (value,), judges = (values[name] for name in self.names), held_out(at)
        if len(value) != len(judges):
            return
        lowest = np.float32(self.swish.lowest)
        self.ranges = np.maximum(self.ranges, peaks(value, ~judges, self.swish.lowest))
        if judges.any():
            rows = self.swish.product.layers[0].inputs(value[judges], at.start, self.per_sample)
            self.rows.append(np.maximum(rows, lowest))

    def scale(self, graph: ir.Graph) -> bool:
        if sum(part.shape[1] for part in self.rows) < LEAST_ROWS:
            return False
        swish, rows = self.swish, np.concatenate(self.rows, axis=1)
        product = swish.product
        matrices = [matrix_of(*pair) for pair in zip(product.layers, product.weights, strict=True)]
        bits = product.bits, swish.bits
        divisors = chosen(
            (self.ranges, rows),
            lambda: best_swish_divisors(rows, swish.gates, self.ranges, matrices, bits),
            _GAIN,
        )
        if divisors is not None:
            divide_swish(graph, swish, divisors)
        return divisors is not None
