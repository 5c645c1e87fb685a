"""Make the inputs of layers easy to quantize: outlier channels move into the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.graph.layer_kinds import LayerKind
from onnx_lapq.graph.placement.sites import Placement, WeightSite
from onnx_lapq.graph.rewriting.activation_scales import Product, divide, products
from onnx_lapq.method.activation_scales import Matrix, best_divisors
from onnx_lapq.stages.rewriting.observing import (
    HELD_OUT,
    LEAST_ROWS,
    Candidate,
    chosen,
    held_out,
    observed_samples,
)

__all__ = ["inputs_of_layers", "matrix_of", "rows_per_sample"]

_ROWS = 256
"""Rows that the outputs are compared on."""
_GAIN, _GAIN_OF_A_NODE = 0.9, 0.5
"""Shares of the error that divisors have to leave at most: without cost, and where they take a Mul."""


def inputs_of_layers(model: ir.Model, placement: Placement, samples: Samples) -> list[Candidate]:
    """The values that layers read, whose channels may be divided and the weights multiplied.

    Args:
        model: A prepared model.
        placement: Its quantizers.
        samples: The calibration set.
    """
    per_sample = rows_per_sample(model, samples, _ROWS)
    return [_Input(product, per_sample) for product in products(model, placement)]


def rows_per_sample(model: ir.Model, samples: Samples, rows: int) -> int:
    """Rows to take of a sample that judges, for so many in all."""
    return -(-rows * HELD_OUT // len(observed_samples(model, samples)))


@dataclass
class _Input:
    """A value that layers read, and what was seen of it.

    Attributes:
        product: Where it stands.
        per_sample: Rows to take of a sample that judges.
        ranges: Largest absolute value of every channel, [channels], of the others.
        rows: What meets the weights, [groups, n, channels] each.
    """

    product: Product
    per_sample: int
    ranges: FloatArray = field(default_factory=lambda: np.zeros(()))
    rows: list[Float32Array] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [self.product.value.name or ""]

    def look(self, values: Mapping[str, np.ndarray], at: slice) -> None:
        """Take in a batch of samples; one that has no row of its own says nothing."""
        (batch,), judges = (values[name] for name in self.names), held_out(at)
        if batch.shape[:1] != judges.shape:
            return
        if not judges.all():
            channels = np.moveaxis(batch[~judges], self.product.axis, 0)
            seen = np.abs(channels.reshape(len(channels), -1)).max(axis=1).astype(np.float64)
            self.ranges = np.maximum(self.ranges, seen)
        if judges.any():
            self.rows.append(self.product.layers[0].inputs(batch[judges], at.start, self.per_sample))

    def scale(self, graph: ir.Graph) -> bool:
        product = self.product
        if not self.ranges.ndim or sum(part.shape[1] for part in self.rows) < LEAST_ROWS:
            return False
        rows = np.concatenate(self.rows, axis=1)
        matrices = [matrix_of(*pair) for pair in zip(product.layers, product.weights, strict=True)]
        if any(matrix.values.shape[-2] != rows.shape[-1] for matrix in matrices):
            return False  # the layer does not fit its input, and onnxruntime does not load the model
        divisors = chosen(
            (self.ranges, rows),
            lambda: best_divisors(rows, self.ranges, matrices, product.bits),
            _GAIN if product.writers else _GAIN_OF_A_NODE,
        )
        if divisors is not None:
            divide(graph, product, divisors)
        return divisors is not None


def matrix_of(layer: LayerKind, site: WeightSite | None) -> Matrix:
    """The weight of a layer as its inputs meet it."""
    assert layer.weight is not None
    assert layer.weight.const_value is not None
    rows = layer.rows(layer.weight.const_value.numpy().astype(np.float32))
    values = rows.reshape(layer.groups, -1, rows.shape[1]).transpose(0, 2, 1)
    return Matrix(values, None if site is None else site.bits, site is not None and site.per_channel)
