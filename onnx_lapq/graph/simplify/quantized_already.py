"""Find out that a model is quantized already, by its operators or by the codes it stores.

1. QuantizeLinear, DequantizeLinear, QLinearConv and their kin are quantizers and integer kernels.
2. A constant of 8-bit integers or fewer, Cast to float and scaled on its way to the weight of a layer, holds
   the codes of weights.
"""

from collections.abc import Iterator

import onnx_ir as ir

from onnx_lapq.errors import ModelError
from onnx_lapq.graph.layer_kinds import kinds_of

__all__ = ["is_quantized", "refuse_quantized"]

_QUANTIZED_OPS = {
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QGemm",
    "QLinearAdd",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
}
_ON_THE_WAY = {"Add", "Cast", "Div", "Identity", "Mul", "Reshape", "Squeeze", "Sub", "Transpose", "Unsqueeze"}
_CODE_BITS = 8
_FARTHEST = 8
"""Nodes between codes and the layer that reads them."""


def is_quantized(model: ir.Model) -> bool:
    """Whether a model holds quantizers or integer kernels, in its graph, sub-graphs or functions."""
    return _quantized_node(model) is not None


def refuse_quantized(model: ir.Model, *, fold_codes: bool) -> None:
    """Refuse a model that is quantized already.

    Args:
        model: As it is loaded.
        fold_codes: Let stored codes of weights pass, which are folded into float weights later.

    Raises:
        ModelError: Names the node.
    """
    node = _quantized_node(model)
    if node is not None:
        raise ModelError(
            f"node {node.name!r} ({node.op_type}): the model is quantized already; give the float model"
        )
    coded = None if fold_codes else next(_layers_with_codes(model), None)
    if coded is not None:
        raise ModelError(
            f"node {coded.name!r} ({coded.op_type}): its weight is stored as integer codes, the model is "
            "quantized already; give the float model, or take the codes for float weights with --fold-codes"
        )


def _quantized_node(model: ir.Model) -> ir.Node | None:
    return next((node for node in _nodes(model) if node.op_type in _QUANTIZED_OPS), None)


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from function


def _layers_with_codes(model: ir.Model) -> Iterator[ir.Node]:
    for node in _nodes(model):
        indices = [layer.weight_index for layer in kinds_of(node) if layer.multiplies]
        if any(_is_made_of_codes(node.inputs[at], _FARTHEST) for at in indices if at < len(node.inputs)):
            yield node


def _is_made_of_codes(value: ir.Value | None, farthest: int) -> bool:
    node = None if value is None else value.producer()
    if node is None or node.op_type not in _ON_THE_WAY or not farthest:
        return False
    if node.op_type == "Cast" and _are_codes(node.inputs[0]):
        return True
    return any(_is_made_of_codes(source, farthest - 1) for source in node.inputs)


def _are_codes(value: ir.Value | None) -> bool:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or len(tensor.shape) < 2:
        return False
    return tensor.dtype.is_integer() and tensor.dtype.bitwidth <= _CODE_BITS
