"""Weights of the network as numbers: read them from the graph, encode them at a step size."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.graph.attributes import constant, integer
from onnx_lapq.graph.geometry import is_plain_product, output_rows
from onnx_lapq.graph.placement.sites import WeightSite
from onnx_lapq.graph.placement.targets import Target
from onnx_lapq.graph.simplify.biases import bias_edge
from onnx_lapq.graph.writing.encodings import BiasEncoding, WeightEncoding
from onnx_lapq.method.quantizer import Grid, quantize
from onnx_lapq.method.rounding.bias_correction import mean_output
from onnx_lapq.network.input_means import input_windows

__all__ = ["Encoder", "FixedCodes", "Layer", "read_layers"]


_BIAS_CODES = 2**31 - 2**8
"""The largest bias code, with room for the rounding of float32."""

_REMEMBERED = 4
"""Encodings kept per weight: the point the search stands on and the trials around it."""


@dataclass(frozen=True)
class Bias:
    """The bias of a layer.

    Attributes:
        name: Initializer name.
        values: float32, [output channels].
        windows: Calibration mean of the layer's input over its real windows, float64 [groups, inputs of a
            channel] (METHOD.md section 5); None without bias correction.
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
        node: The first node that reads it.
        values: float32, the tensor's shape.
        grid: Its integer codes.
        bias: Its bias, where it is a constant of its own.
    """

    site: WeightSite
    node: ir.Node
    values: Float32Array
    grid: Grid
    bias: Bias | None

    def rows(self, values: np.ndarray) -> np.ndarray:
        """A tensor of the weight's shape as [output channels, inputs of a channel]."""
        return output_rows(self.node, values)

    def channel_scale(self, scale: Float32Array) -> Float32Array:
        """A scale as a single value, or one per output channel of the layer."""
        grouped = scale.ndim > 0 and self.node.op_type == "ConvTranspose"
        return np.tile(scale, integer(self.node, "group", 1)) if grouped else scale


def read_layers(
    model: ir.Model, sites: tuple[WeightSite, ...], means: Mapping[str, FloatArray]
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
        bias = _bias(readers[0], means) if len(readers) == 1 else None
        values = np.ascontiguousarray(tensor.numpy(), dtype=np.float32)
        layers[site.name] = Layer(site, readers[0], values, Grid(bits=site.bits, signed=True), bias)
    return layers


@dataclass(frozen=True, eq=False)
class FixedCodes:
    """Codes that a scale does not change any more.

    Attributes:
        codes: int8, the tensor's shape.
        wanted: Mean output of the float layer without its bias, float64 [output channels].
        given: Mean of codes times inputs in the quantized network, float64 [output channels].
    """

    codes: npt.NDArray[np.int8]
    wanted: FloatArray
    given: FloatArray


class Encoder:
    """Turns a weight and its step size into codes and a bias to go with them, remembering the last few."""

    def __init__(self, layers: Mapping[str, Layer], target: Target) -> None:
        self._layers = layers
        self._target = target
        self._fixed: dict[str, FixedCodes] = {}
        self._known: dict[str, OrderedDict[bytes, WeightEncoding]] = {name: OrderedDict() for name in layers}

    def encode(self, name: str, scale: FloatArray, input_scale: float | None) -> WeightEncoding:
        """Encode a weight.

        Args:
            name: Initializer name.
            scale: Step size, a scalar array or [output channels].
            input_scale: Step size of the layer's input; None where that is float.
        """
        exact = np.asarray(scale, dtype=np.float32)
        known = self._known[name]
        key = exact.tobytes() + np.float32(input_scale or 0).tobytes()
        if key not in known:
            known[key] = self._encode(name, exact, input_scale)
            if len(known) > _REMEMBERED:
                known.popitem(last=False)
        known.move_to_end(key)
        return known[key]

    @property
    def fixed(self) -> Mapping[str, FixedCodes]:
        """The weights whose codes no longer change."""
        return dict(self._fixed)

    def fix(self, name: str, codes: FixedCodes) -> None:
        """From now on encode a weight with the same codes at every scale."""
        self._fixed[name] = codes
        self._known[name].clear()

    def release(self) -> None:
        """From now on round all weights to nearest again."""
        self._fixed.clear()
        for known in self._known.values():
            known.clear()

    def _encode(self, name: str, scale: Float32Array, input_scale: float | None) -> WeightEncoding:
        layer, fixed = self._layers[name], self._fixed.get(name)
        if layer.bias is None or not layer.bias.inside:
            input_scale = None
        if layer.bias is not None and input_scale is not None:
            scale = _room_for_bias(scale, layer.bias.values, input_scale)
        codes = _nearest_codes(layer, scale) if fixed is None else fixed.codes
        encoding = WeightEncoding(codes, scale, layer.site.axis, {}, self._is_offset(layer, scale))
        if layer.bias is None:
            return encoding
        shift: FloatArray | float
        if layer.bias.windows is None:
            shift = 0.0
        elif fixed is not None:
            shift = fixed.wanted - layer.channel_scale(scale) * fixed.given
        else:
            error = layer.rows(layer.values.astype(np.float64) - encoding.values)
            shift = mean_output(error, layer.bias.windows)
        values = layer.bias.values.astype(np.float64) + shift
        bias = _encode_bias(values, layer.channel_scale(scale), input_scale)
        if not self._target.integer_bias:
            bias = BiasEncoding(bias.values)
        return replace(encoding, biases={layer.bias.name: bias})

    def _is_offset(self, layer: Layer, scale: Float32Array) -> bool:
        target = self._target
        return (
            layer.site.bits == 8 and target.offset_weights and (not scale.ndim or target.offset_per_channel)
        )


def _nearest_codes(layer: Layer, scale: Float32Array) -> npt.NDArray[np.int8]:
    shape = [1] * layer.values.ndim
    if scale.ndim:
        shape[layer.site.axis] = -1
    return quantize(layer.values, scale.reshape(shape), layer.grid).astype(np.int8)


def _room_for_bias(scale: Float32Array, bias: Float32Array, input_scale: float) -> Float32Array:
    """Raise a scale so tiny that the bias would not fit int32 codes; weights that small do not matter."""
    least = (2 * np.abs(bias) / (input_scale * _BIAS_CODES)).astype(np.float32)
    return np.maximum(scale, least if scale.shape == least.shape else least.max()).astype(np.float32)


def _encode_bias(values: FloatArray, scale: Float32Array, input_scale: float | None) -> BiasEncoding:
    """Integer kernels add a bias in steps of input scale times weight scale; so does the simulation.

    Onnxruntime rounds a bias that is stored as float to these steps wherever an integer kernel takes it.
    """
    if input_scale is not None:
        step = np.float32(input_scale) * scale
        codes = np.clip(np.rint(values / step), -_BIAS_CODES, _BIAS_CODES).astype(np.int32)
        return BiasEncoding(codes.astype(np.float32) * step, codes, np.asarray(step))
    return BiasEncoding(values.astype(np.float32))


def _bias(node: ir.Node, means: Mapping[str, FloatArray]) -> Bias | None:
    edge = bias_edge(node)
    if edge is None or not is_plain_product(node) or len(edge[0].inputs) <= edge[1]:
        return None
    bias, source, weight = edge[0].inputs[edge[1]], node.inputs[0], constant(node.inputs[1])
    tensor = constant(bias)
    if bias is None or bias.name is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    channels = len(output_rows(node, np.empty(weight.shape.numpy()))) if weight is not None else 0
    if tensor.shape.numpy() != (channels,):
        return None
    mean = means.get(source.name or "") if source is not None else None
    windows = None if mean is None else input_windows(node, mean)
    return Bias(bias.name, tensor.numpy(), windows, inside=edge[0] is node)
