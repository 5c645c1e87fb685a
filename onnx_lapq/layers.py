"""Weights of the network as numbers: read them from the graph, encode them at a step size."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, integer
from onnx_lapq.graph.encodings import WeightEncoding
from onnx_lapq.graph.geometry import convolution_windows, output_rows
from onnx_lapq.graph.placement import WeightSite
from onnx_lapq.method.correction import mean_shift, window_mean
from onnx_lapq.method.quantizer import Grid, quantize

__all__ = ["Encoder", "FixedCodes", "Layer", "read_layers"]

_REMEMBERED = 4
"""Encodings kept per weight: the point the search stands on and the trials around it."""


@dataclass(frozen=True)
class Bias:
    """A bias that bias correction moves.

    Attributes:
        values: float32, [output channels].
        windows: Calibration mean of the layer's input over its real windows, float64 [groups, inputs of a
            channel] (METHOD.md section 5).
    """

    values: npt.NDArray[np.float32]
    windows: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """A quantized weight of the network.

    Attributes:
        site: Where it sits.
        node: The first node that reads it.
        values: float32, the tensor's shape.
        grid: Its integer codes.
        biases: Biases to correct, by initializer name; empty without bias correction.
    """

    site: WeightSite
    node: ir.Node
    values: npt.NDArray[np.float32]
    grid: Grid
    biases: Mapping[str, Bias]

    def rows(self, values: np.ndarray) -> np.ndarray:
        """A tensor of the weight's shape as [output channels, inputs of a channel]."""
        return output_rows(self.node, values)

    def channel_scale(self, scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """A scale as one value per output channel, or a single one."""
        return scale.astype(np.float64)


def read_layers(
    model: ir.Model, sites: tuple[WeightSite, ...], means: Mapping[str, npt.NDArray[np.float64]]
) -> dict[str, Layer]:
    """Read the weights to quantize from a prepared model.

    Args:
        model: The prepared float model.
        sites: Its weight quantizers.
        means: Calibration mean of layer inputs by value name; layers whose input has one get bias
            correction.
    """
    nodes = {node.name: node for node in model.graph}
    layers = {}
    for site in sites:
        readers = [nodes[name] for name in site.layers]
        tensor = constant(model.graph.initializers[site.name])
        assert tensor is not None
        biases = _biases(readers[0], means) if len(readers) == 1 else {}
        values = np.ascontiguousarray(tensor.numpy(), dtype=np.float32)
        layers[site.name] = Layer(site, readers[0], values, Grid(bits=site.bits, signed=True), biases)
    return layers


@dataclass(frozen=True, eq=False)
class FixedCodes:
    """Codes that a scale does not change any more.

    Attributes:
        codes: int8, the tensor's shape.
        bias: Name of the bias that keeps the mean output, or None.
        wanted: Mean output of the float layer without its bias, float64 [output channels].
        given: Mean of codes times inputs in the quantized network, float64 [output channels].
    """

    codes: npt.NDArray[np.int8]
    bias: str | None
    wanted: npt.NDArray[np.float64]
    given: npt.NDArray[np.float64]


class Encoder:
    """Turns a weight and a step size into codes and corrected biases, remembering the last few."""

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self._layers = layers
        self._fixed: dict[str, FixedCodes] = {}
        self._known: dict[str, OrderedDict[bytes, WeightEncoding]] = {name: OrderedDict() for name in layers}

    def encode(self, name: str, scale: npt.NDArray[np.float64]) -> WeightEncoding:
        """Encode a weight.

        Args:
            name: Initializer name.
            scale: Step size, a scalar array or [output channels].
        """
        exact = np.asarray(scale, dtype=np.float32)
        known = self._known[name]
        key = exact.tobytes()
        if key not in known:
            known[key] = self._encode(name, exact)
            if len(known) > _REMEMBERED:
                known.popitem(last=False)
        known.move_to_end(key)
        return known[key]

    def fix(self, name: str, codes: FixedCodes) -> None:
        """From now on encode a weight with the same codes at every scale."""
        self._fixed[name] = codes
        self._known[name].clear()

    def _encode(self, name: str, scale: npt.NDArray[np.float32]) -> WeightEncoding:
        layer = self._layers[name]
        if name not in self._fixed:
            return encode(layer, scale)
        fixed = self._fixed[name]
        biases = {}
        if fixed.bias is not None:
            given = layer.channel_scale(scale) * fixed.given
            biases = {fixed.bias: (layer.biases[fixed.bias].values + fixed.wanted - given).astype(np.float32)}
        return WeightEncoding(fixed.codes, scale, layer.site.axis, layer.site.bits, biases)


def encode(layer: Layer, scale: npt.NDArray[np.float32]) -> WeightEncoding:
    """Round a weight to nearest and correct its biases (METHOD.md sections 1 and 5)."""
    shape = [1] * layer.values.ndim
    if scale.ndim:
        shape[layer.site.axis] = -1
    codes = quantize(layer.values, scale.reshape(shape), layer.grid).astype(np.int8)
    plain = WeightEncoding(codes, scale, layer.site.axis, layer.site.bits, {})
    if not layer.biases:
        return plain
    error = layer.rows(layer.values.astype(np.float64) - plain.values)
    biases = {
        name: (bias.values + mean_shift(error, bias.windows)).astype(np.float32)
        for name, bias in layer.biases.items()
    }
    return WeightEncoding(codes, scale, layer.site.axis, layer.site.bits, biases)


def _biases(node: ir.Node, means: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, Bias]:
    source = node.inputs[0]
    if source is None or source.name is None or source.name not in means or len(node.inputs) < 3:
        return {}
    bias = node.inputs[2]
    tensor = constant(bias)
    if bias is None or bias.name is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return {}
    values = np.ravel(tensor.numpy())
    windows = _input_windows(node, means[source.name])
    return {bias.name: Bias(values, windows)} if windows is not None and len(values) > 1 else {}


def _input_windows(node: ir.Node, mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Mean input of every weight of a channel, [groups, inputs of a channel]; None where not known."""
    if node.op_type == "Gemm":
        plain = not integer(node, "transA", 0) and node.attributes.get_float("alpha", 1.0) == 1.0
        return mean.reshape(1, -1) if plain and node.attributes.get_float("beta", 1.0) == 1.0 else None
    if node.op_type != "Conv":
        return None
    windows = convolution_windows(node, mean.shape[1:])
    groups = np.split(mean, windows.groups)
    return np.stack(
        [
            window_mean(group, windows.kernel, windows.strides, windows.pads, windows.dilations)
            for group in groups
        ]
    )
