"""Multiply or shift behind a layer: a change of its weight and bias.

Exporters leave such steps: a bias as an Add of [1, C, 1, 1] behind Conv (Paddle), a learned scale, the
constants of a batch norm.

1. ``Conv(x) + c``, ``ConvTranspose(x) + c``, ``Gemm(x) + c``: the bias becomes ``bias + c``.
2. ``Conv(x) * c`` and so on, ``MatMul(x, W) * c``: weight and bias are multiplied by ``c``, by channel.
3. Sub and Div in the same way, where they are one of the two.
4. All of them behind a Squeeze, Transpose and the like (`onnx_lapq.graph.simplify.idioms.moved_steps`).
"""

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import constant, float_values
from onnx_lapq.graph.layer_kinds import LayerKind, kind_of
from onnx_lapq.graph.simplify.idioms.affine_steps import AffineStep, affine_step, per_channel, read_by_one
from onnx_lapq.graph.simplify.idioms.changing import replace_constant, take_place_of
from onnx_lapq.graph.simplify.idioms.moved_steps import undo_moves

__all__ = ["merge_steps_behind_layers", "set_bias", "set_weight", "values_of"]


def merge_steps_behind_layers(model: ir.Model) -> bool:
    """Apply the rules, in place.

    Args:
        model: Its constants are initializers.

    Returns:
        Whether anything changed.
    """
    merged = [_merge(model.graph, step) for step in map(affine_step, list(model.graph)) if step is not None]
    return any(merged)


def _merge(graph: ir.Graph, step: AffineStep) -> bool:
    source, constants = undo_moves(step.source, (step.factor, step.offset))
    node, last = source.producer(), step.source.producer()
    layer = None if node is None or node.graph is not graph else kind_of(node)
    if layer is None or last is None or not read_by_one(source) or not _is_fit(layer):
        return False
    factor, offset = (_by_output_channel(layer, values) for values in constants)
    if factor is None or offset is None or (layer.bias_index is None and _is_bias(factor, offset)):
        return False
    _scale(graph, layer, factor)
    _shift(graph, layer, factor, offset)
    take_place_of(last, step.node)
    return True


def _is_bias(factor: FloatArray, offset: FloatArray) -> bool:
    """Whether an Add behind a MatMul stays: its bias, also where that is zero so far."""
    return bool(offset.any() or (factor == 1).all())


def _is_fit(layer: LayerKind) -> bool:
    """Whether weight and bias are constants that can be changed."""
    if layer.weight is None or not layer.multiplies or not layer.is_plain or layer.weight_index != 1:
        return False
    bias = None if layer.bias_index is None or len(layer.node.inputs) < 3 else layer.node.inputs[2]
    return bias is None or constant(bias) is not None


def _by_output_channel(layer: LayerKind, values: FloatArray) -> FloatArray | None:
    channels = layer.output_channels
    if layer.node.op_type in ("Conv", "ConvTranspose"):
        return per_channel(values, channels, 1, len(layer.shape))
    if layer.node.op_type == "Gemm":
        return per_channel(values, channels, 1, 2)
    return per_channel(values, channels, 0, 1) if len(layer.shape) == 2 else None


def _scale(graph: ir.Graph, layer: LayerKind, factor: FloatArray) -> None:
    if (factor == 1).all():
        return
    split, ones = layer.channel_shapes(layer.axis)
    weight = values_of(layer.weight)
    set_weight(graph, layer, (weight.reshape(split) * factor.reshape(ones)).reshape(layer.shape))


def _shift(graph: ir.Graph, layer: LayerKind, factor: FloatArray, offset: FloatArray) -> None:
    bias = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
    if bias is None and not offset.any():
        return
    set_bias(graph, layer, values_of(bias) * factor + offset)


def values_of(value: ir.Value | None) -> FloatArray:
    """A constant; zero where there is none."""
    return np.zeros(()) if constant(value) is None else float_values(value)


def set_weight(graph: ir.Graph, layer: LayerKind, values: FloatArray) -> None:
    """Give a layer another weight."""
    replace_constant(graph, layer.node, layer.weight_index, values, "weight")


def set_bias(graph: ir.Graph, layer: LayerKind, values: FloatArray) -> None:
    """Give a layer of Conv, ConvTranspose or Gemm a bias, [output channels]."""
    layer.node.resize_inputs(3)
    row = values.reshape(-1) if len(values.shape) == 2 and len(values) == 1 else values
    full = np.broadcast_to(row, (layer.output_channels,))
    replace_constant(graph, layer.node, 2, full, "bias")
