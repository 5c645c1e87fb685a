"""Multiply or shift before a layer: a change of its weight and bias.

1. ``Conv(c * x)``, ``ConvTranspose(c * x)``, ``Gemm(c * x)``, ``MatMul(c * x, W)``: the weight is multiplied
   by ``c`` along its input channels. Padding stays zero.
2. ``Conv(x + c)`` without padding, ``Gemm(x + c)``: the weight times ``c`` is added to the bias.
3. Sub and Div in the same way, where they are one of the two.

A step behind a product of two activations stays, for it is the end of a layer normalisation or of a GELU,
which onnxruntime fuses as a whole; behind a gate of HardSigmoid it goes.
"""

import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.layer_kinds import LayerKind, kind_of
from onnx_lapq.graph.simplify.idioms.affine_steps import AffineStep, affine_step, per_channel, read_by_one
from onnx_lapq.graph.simplify.idioms.steps_behind_layers import set_bias, set_weight, values_of

__all__ = ["ends_a_fusion", "merge_steps_before_layers"]


def merge_steps_before_layers(model: ir.Model) -> bool:
    """Apply the rules, in place.

    Args:
        model: Its constants are initializers.

    Returns:
        Whether anything changed.
    """
    merged = [_merge(model.graph, layer) for layer in filter(None, map(kind_of, list(model.graph)))]
    return any(merged)


def _merge(graph: ir.Graph, layer: LayerKind) -> bool:
    value = layer.node.inputs[0]
    node = None if value is None else value.producer()
    step = None if node is None or node.graph is not graph else affine_step(node)
    if step is None or value is None or not read_by_one(value) or not _is_fit(layer):
        return False
    if ends_a_fusion(step):
        return False
    factor, offset = (_by_input_channel(layer, values) for values in (step.factor, step.offset))
    if factor is None or offset is None or (offset.any() and not _takes_offset(layer)):
        return False
    _change(graph, layer, factor, offset)
    _skip(graph, layer.node, step)
    return True


def ends_a_fusion(step: AffineStep) -> bool:
    """Whether a step is the last of an activation function, such as GELU, which onnxruntime fuses."""
    node = step.source.producer()
    before = None if node is None else affine_step(node)
    if before is not None:
        return ends_a_fusion(before)
    if node is None or node.op_type not in ("Mul", "Div"):
        return False
    factors = [None if value is None else value.producer() for value in node.inputs]
    return not any(factor is not None and factor.op_type == "HardSigmoid" for factor in factors)


def _is_fit(layer: LayerKind) -> bool:
    plain = layer.weight is not None and layer.multiplies and layer.is_plain and layer.weight_index == 1
    return plain and (layer.node.op_type in ("Conv", "ConvTranspose") or len(layer.shape) == 2)


def _takes_offset(layer: LayerKind) -> bool:
    if layer.node.op_type not in ("Conv", "Gemm") or layer.sees_padding:
        return False
    bias = _bias(layer)
    return bias is None or constant(bias) is not None


def _bias(layer: LayerKind) -> ir.Value | None:
    return layer.node.inputs[2] if len(layer.node.inputs) > 2 else None


def _by_input_channel(layer: LayerKind, values: FloatArray) -> FloatArray | None:
    channels = layer.shape[1 - layer.axis]
    if layer.node.op_type == "Conv":
        return per_channel(values, channels * layer.groups, 1, len(layer.shape))
    if layer.node.op_type == "ConvTranspose":
        return per_channel(values, channels, 1, len(layer.shape))
    return per_channel(values, channels, 0, 1)


def _change(graph: ir.Graph, layer: LayerKind, factor: FloatArray, offset: FloatArray) -> None:
    """Multiply the weight by the factor, and add what it makes of the offset to the bias."""
    split, ones = layer.channel_shapes(1 - layer.axis)
    weight = values_of(layer.weight)
    if offset.any():
        shifts = (weight.reshape(split) * offset.reshape(ones)).reshape(layer.shape)
        set_bias(graph, layer, values_of(_bias(layer)) + layer.rows(shifts).sum(axis=1))
    if (factor != 1).any():
        set_weight(graph, layer, (weight.reshape(split) * factor.reshape(ones)).reshape(layer.shape))


def _skip(graph: ir.Graph, layer: ir.Node, step: AffineStep) -> None:
    layer.replace_input_with(0, step.source)
    graph.remove(step.node, safe=True)
