"""Weights as integer codes at a step size, with the biases that go with them."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.graph.placement.targets import Target
from onnx_lapq.graph.writing.encodings import BiasEncoding, WeightEncoding, scale_by_weight
from onnx_lapq.method.quantizer import nearest_codes
from onnx_lapq.method.rounding.bias_correction import mean_of_codes
from onnx_lapq.network.layers import Layer

__all__ = ["Encoder", "FixedCodes"]

_BIAS_CODES = 2**31 - 2**8
"""The largest bias code, with room for the rounding of float32."""

_UINT8_ZERO = 128

_REMEMBERED = 4
"""Encodings kept per weight: the point the search stands on and the trials around it."""


@dataclass(frozen=True, eq=False)
class FixedCodes:
    """Codes that a scale does not change any more.

    Attributes:
        codes: int8, the tensor's shape.
        wanted: Mean output of the float layer without its bias, float64 [output channels].
        given: Mean of codes times inputs in the quantized network, float64 [output channels], or
            [output channels, blocks].
    """

    codes: npt.NDArray[np.int8]
    wanted: FloatArray
    given: FloatArray


_Key = tuple[FixedCodes | None, bytes, float]
"""Fixed codes, themselves by identity; scale and input scale."""


class Encoder:
    """Turns a weight and its step size into codes and a bias to go with them; remembers the last few.

    Args:
        layers: Weights, by initializer name.
        target: The runtime that they are written for.
    """

    def __init__(self, layers: Mapping[str, Layer], target: Target) -> None:
        self._layers = layers
        self._target = target
        self._known: dict[str, OrderedDict[_Key, WeightEncoding]] = {name: OrderedDict() for name in layers}

    def encode(
        self, name: str, scale: FloatArray, input_scale: float | None, fixed: FixedCodes | None = None
    ) -> WeightEncoding:
        """Encode a weight.

        Args:
            name: Initializer name.
            scale: Step size, a scalar array, [output channels] or [output channels, blocks].
            input_scale: Step size of the layer's input; None where that is float.
            fixed: Codes to keep at every scale; None rounds to nearest.
        """
        exact = np.asarray(scale, dtype=np.float32)
        known = self._known[name]
        key = (fixed, exact.tobytes(), float(np.float32(input_scale or 0)))
        if key not in known:
            known[key] = self._encode(self._layers[name], exact, input_scale, fixed)
            if len(known) > _REMEMBERED:
                known.popitem(last=False)
        known.move_to_end(key)
        return known[key]

    def _encode(
        self, layer: Layer, scale: Float32Array, input_scale: float | None, fixed: FixedCodes | None
    ) -> WeightEncoding:
        if layer.bias is None or not layer.bias.inside:
            input_scale = None
        if layer.bias is not None and input_scale is not None:
            scale = _room_for_bias(scale, layer.bias.values, input_scale)
        codes = _nearest_codes(layer, scale) if fixed is None else fixed.codes
        zero_point = self._zero_point(layer, scale)
        encoding = WeightEncoding(codes, scale, layer.site.axis, {}, zero_point, layer.site.block)
        if layer.bias is None:
            return encoding
        values = layer.bias.values.astype(np.float64) + _mean_shift(layer, codes, scale, fixed)
        bias = _encode_bias(values, layer.channel_scale(scale), input_scale)
        if not self._target.integer_bias:
            bias = BiasEncoding(bias.values)
        return replace(encoding, biases={layer.bias.name: bias})

    def _zero_point(self, layer: Layer, scale: Float32Array) -> int:
        """Of the codes as they are written."""
        target = self._target
        if not layer.grid.signed:
            return -(1 << (layer.grid.bits - 1))
        if layer.site.bits < 8 or layer.site.in_float or not target.offset_weights:
            return 0
        by_channel = target.offset_per_channel and layer.kind.multiplies
        return _UINT8_ZERO if not scale.ndim or by_channel else 0


def _mean_shift(
    layer: Layer, codes: npt.NDArray[np.int8], scale: Float32Array, fixed: FixedCodes | None
) -> FloatArray | float:
    """What the bias takes up: mean output of the float layer less that of the codes, [output channels]."""
    if layer.bias is None or layer.bias.windows is None:
        return 0.0
    if fixed is not None:
        wanted, mean = fixed.wanted, fixed.given
    else:
        wanted = layer.mean_output
        mean = mean_of_codes(layer.rows(codes), layer.bias.windows, layer.site.block)
    given = layer.channel_scale(scale) * mean
    return wanted - (given.sum(axis=1) if layer.site.block else given)


def _nearest_codes(layer: Layer, scale: Float32Array) -> npt.NDArray[np.int8]:
    site = layer.site
    steps = scale_by_weight(scale, site.axis, site.block, layer.values.shape)
    if not layer.grid.apart:
        return nearest_codes(layer.values, steps, layer.grid).astype(np.int8)
    rows, steps = (
        layer.rows(values) for values in (layer.values, np.broadcast_to(steps, layer.values.shape))
    )
    return layer.kind.from_rows(nearest_codes(rows, steps, layer.grid)).astype(np.int8)


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
