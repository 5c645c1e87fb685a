"""The quantized weights of the network, with their biases, read from the graph."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_lapq.calibration.capture import Means
from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.layer_kinds import LayerKind, kinds_of
from onnx_lapq.graph.placement.layer_bits import SAFE_BITS
from onnx_lapq.graph.placement.sites import WeightSite
from onnx_lapq.method.pairs import PAIR_STEPS, pair_sums
from onnx_lapq.method.quantizer import Grid

__all__ = ["Layer", "read_layers"]


@dataclass(frozen=True)
class Bias:
    """The bias of a layer.

    Attributes:
        name: Initializer name.
        values: float32, [output channels].
        windows: Calibration mean of the layer's input over its real windows, float64 [groups, inputs of a
            channel] (docs/method.md, "Bias correction"); None without bias correction.
    """

    name: str
    values: Float32Array
    windows: FloatArray | None
    inside: bool


@dataclass(frozen=True)
class Layer:
    """A quantized weight of the network.

    Attributes:
        site: Where it sits.
        kind: The first node that reads it.
        values: float32, in the shape that its codes are stored in.
        grid: Its integer codes.
        bias: Its bias, where it is a constant of its own.
    """

    site: WeightSite
    kind: LayerKind
    values: Float32Array
    grid: Grid
    bias: Bias | None

    def rows(self, values: np.ndarray) -> np.ndarray:
        """A tensor of the weight's shape as [output channels, inputs of a channel]."""
        return self.kind.rows(values)

    def least_step(self) -> FloatArray:
        """The smallest step sizes at which no two codes that share 16 bits are cut off; 0 where none do."""
        if not self.grid.apart:
            return np.zeros(())
        sums = pair_sums(self.rows(self.values), self.grid.apart)
        return np.asarray(sums if self.site.per_channel else sums.max(), np.float64) / PAIR_STEPS

    def channel_scale(self, scale: Float32Array) -> Float32Array:
        """A scale as a single value, or one per output channel of the layer."""
        return self.kind.scale_of_rows(scale)


def read_layers(
    model: ir.Model, sites: tuple[WeightSite, ...], means: Mapping[str, Means], *, shifts: bool = False
) -> dict[str, Layer]:
    """Read the weights to quantize from a prepared model.

    Args:
        model: The prepared float model.
        sites: Its weight quantizers.
        means: Calibration means of layer inputs by value name; layers whose input has one get bias
            correction.
        shifts: Whether 8-bit weights that are never below zero, in a MatMul, have 7 bits above it.
    """
    nodes = {node.name: node for node in model.graph}
    layers = {}
    for site in sites:
        weight = model.graph.initializers[site.name]
        kind = next(kind for kind in kinds_of(nodes[site.layers[0]]) if kind.weight is weight)
        tensor = constant(weight)
        assert tensor is not None
        bias = _bias(kind, means) if len(site.layers) == 1 else None
        values = np.ascontiguousarray(tensor.numpy(), dtype=np.float32).reshape(kind.stored_shape)
        in_16_bits = site.bits == SAFE_BITS or site.apart > 0
        shifted = shifts and in_16_bits and not site.in_float and _is_positive_factor(kind, values)
        grid = Grid(SAFE_BITS, signed=False) if shifted else Grid(site.bits, signed=True, apart=site.apart)
        layers[site.name] = Layer(site, kind, values, grid, bias)
    return layers


def _is_positive_factor(kind: LayerKind, values: Float32Array) -> bool:
    """Whether it is what a MatMul multiplies by and holds no value below zero, such as keys or an average."""
    return kind.node.op_type == "MatMul" and bool(values.size) and bool(values.min() >= 0)


def _bias(layer: LayerKind, means: Mapping[str, Means]) -> Bias | None:
    edge = layer.bias_edge()
    if edge is None or not layer.is_plain or len(edge[0].inputs) <= edge[1]:
        return None
    bias, source = edge[0].inputs[edge[1]], layer.node.inputs[0]
    tensor = constant(bias)
    if bias is None or bias.name is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    if tensor.shape.numpy() != (layer.output_channels,):
        return None
    of_shapes = means.get(source.name or "", ()) if source is not None else ()
    return Bias(bias.name, tensor.numpy(), _windows(layer, of_shapes), inside=edge[0] is layer.node)


def _windows(layer: LayerKind, means: Means) -> FloatArray | None:
    """Mean of the layer's inputs over samples of all shapes, each row of equal weight."""
    found = [(rows, layer.mean_inputs(mean)) for rows, mean in means]
    known = [(rows, windows) for rows, windows in found if windows is not None]
    if not known or len(known) < len(found):
        return None
    if len(known) == 1:
        return known[0][1]
    total: FloatArray = np.sum([rows * windows for rows, windows in known], axis=0)
    return total / sum(rows for rows, _ in known)
