"""The quantized weights of the network, with their biases, read from the graph."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnx_lapq.calibration.capture import Means
from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.errors import ModelError
from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.layer_kinds import LayerKind, kinds_of
from onnx_lapq.graph.placement.layer_bits import SAFE_BITS
from onnx_lapq.graph.placement.sites import WeightSite
from onnx_lapq.method.pairs import PAIR_STEPS, pair_sums
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.rounding.bias_correction import mean_output

__all__ = ["Layer", "read_layers", "with_means"]


@dataclass(frozen=True)
class Bias:
    """The bias of a layer.

    Attributes:
        name: Initializer name.
        values: float32, [output channels].
        windows: Calibration mean of the layer's input over its real windows, float64 [groups, inputs of a
            channel] (docs/method.md, "Bias correction"); None without bias correction.
        inside: Whether the layer's own node adds it.
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

    @cached_property
    def grouped(self) -> Float32Array:
        """The values as [groups, output channels of a group, inputs of a channel]."""
        rows, groups = self.rows(self.values), self.kind.groups
        return rows.reshape(groups, rows.shape[0] // groups, rows.shape[1])

    @cached_property
    def mean_output(self) -> FloatArray:
        """Mean output without its bias over the calibration set, [output channels]; the bias has windows."""
        assert self.bias is not None
        assert self.bias.windows is not None
        return mean_output(self.rows(self.values), self.bias.windows)

    def least_step(self) -> FloatArray:
        """The smallest step sizes at which no two codes that share 16 bits are cut off; 0 where none do."""
        if not self.grid.apart:
            return np.zeros(())
        sums = pair_sums(self.rows(self.values), self.grid.apart)
        return np.asarray(sums if self.site.per_channel else sums.max(), np.float64) / PAIR_STEPS

    def channel_scale(self, scale: Float32Array) -> Float32Array:
        """A scale as a single value, or one per output channel of the layer."""
        return self.kind.scale_of_rows(scale)


def read_layers(model: ir.Model, sites: tuple[WeightSite, ...], *, shifts: bool = False) -> dict[str, Layer]:
    """Read the weights to quantize from a prepared model.

    Args:
        model: The prepared float model.
        sites: Its weight quantizers.
        shifts: Whether 8-bit weights that are never below zero, in a MatMul, have 7 bits above it.

    Raises:
        ModelError: A weight is not finite.
    """
    nodes = {node.name: node for node in model.graph}
    layers = {}
    for site in sites:
        weight = model.graph.initializers[site.name]
        kind = next(kind for kind in kinds_of(nodes[site.layers[0]]) if kind.weight is weight)
        tensor = constant(weight)
        assert tensor is not None
        bias = _bias(kind) if len(site.layers) == 1 else None
        values = np.ascontiguousarray(tensor.numpy(), dtype=np.float32).reshape(kind.stored_shape)
        if not np.isfinite(values).all():
            raise ModelError(f"weight {site.name!r} holds NaN or infinity; export the model again")
        in_16_bits = site.bits == SAFE_BITS or site.apart > 0
        shifted = shifts and in_16_bits and not site.in_float and _is_positive_factor(kind, values)
        grid = Grid(SAFE_BITS, signed=False) if shifted else Grid(site.bits, signed=True, apart=site.apart)
        layers[site.name] = Layer(site, kind, values, grid, bias)
    return layers


def with_means(layers: Mapping[str, Layer], means: Mapping[str, Means]) -> dict[str, Layer]:
    """The layers with the means of what they read, for the correction of their biases.

    Args:
        layers: By initializer name.
        means: Calibration means of layer inputs by value name.
    """
    return {name: _with_means(layer, means) for name, layer in layers.items()}


def _with_means(layer: Layer, means: Mapping[str, Means]) -> Layer:
    source = layer.kind.node.inputs[0]
    if layer.bias is None or source is None:
        return layer
    windows = _windows(layer.kind, means.get(source.name or "", ()))
    return replace(layer, bias=replace(layer.bias, windows=windows))


def _is_positive_factor(kind: LayerKind, values: Float32Array) -> bool:
    """Whether it is what a MatMul multiplies by and holds no value below zero, such as keys or an average."""
    return kind.node.op_type == "MatMul" and bool(values.size) and bool(values.min() >= 0)


def _bias(layer: LayerKind) -> Bias | None:
    edge = layer.bias_edge()
    if edge is None or not layer.is_plain or len(edge[0].inputs) <= edge[1]:
        return None
    bias = edge[0].inputs[edge[1]]
    tensor = constant(bias)
    if bias is None or bias.name is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    if tensor.shape.numpy() != (layer.output_channels,):
        return None
    return Bias(bias.name, tensor.numpy(), None, inside=edge[0] is layer.node)


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
