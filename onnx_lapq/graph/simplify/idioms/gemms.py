"""Write a dense layer the way that has an integer kernel: Gemm without factors.

1. ``alpha * A B + beta * C`` with constant B and C: B is multiplied by alpha, C by beta.
2. ``MatMul(x, W) + c`` with x of two axes and a constant vector c becomes ``Gemm(x, W, c)``.
"""

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.layer_kinds import kind_of
from onnx_lapq.graph.simplify.idioms.affine_steps import affine_step, per_channel, read_by_one
from onnx_lapq.graph.simplify.idioms.changing import change_nodes, replace_constant, take_place_of

__all__ = ["write_gemms"]


def write_gemms(model: ir.Model) -> bool:
    """Apply the rules, in place.

    Args:
        model: Its shapes are inferred, its constants are initializers.

    Returns:
        Whether anything changed.
    """
    multiplied = change_nodes(model, "Gemm", _multiply_out)
    return change_nodes(model, "Add", _join) or multiplied


def _multiply_out(graph: ir.Graph, node: ir.Node) -> bool:
    alpha, beta = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    weight, addend = constant(node.inputs[1]), constant(bias)
    if (alpha == 1 and beta == 1) or weight is None or (bias is not None and addend is None):
        return False
    if weight.dtype != ir.DataType.FLOAT:
        return False
    replace_constant(graph, node, 1, weight.numpy() * np.float64(alpha), "weight")
    if addend is not None:
        replace_constant(graph, node, 2, addend.numpy() * np.float64(beta), "bias")
    for name in ("alpha", "beta"):
        node.attributes.pop(name, None)
    return True


def _join(graph: ir.Graph, node: ir.Node) -> bool:
    step = affine_step(node)
    product = None if step is None else step.source.producer()
    layer = None if product is None or product.graph is not graph else kind_of(product)
    if step is None or layer is None or layer.node.op_type != "MatMul" or not read_by_one(step.source):
        return False
    if (
        layer.weight is None
        or layer.weight_index != 1
        or len(layer.shape) != 2
        or not _has_two_axes(layer.node)
    ):
        return False
    bias = per_channel(step.offset, layer.output_channels, 1, 2)
    if bias is None:
        return False
    _write(graph, layer.node, node, bias)
    return True


def _has_two_axes(product: ir.Node) -> bool:
    value = product.inputs[0]
    return value is not None and value.shape is not None and len(value.shape) == 2


def _write(graph: ir.Graph, product: ir.Node, add: ir.Node, bias: FloatArray) -> None:
    gemm = ir.node("Gemm", [*product.inputs, None], name=product.name)
    graph.insert_before(product, gemm)
    addend = next(value for value in add.inputs if constant(value) is not None)
    gemm.replace_input_with(2, addend)
    take_place_of(gemm, add)
    graph.remove(product, safe=True)
    replace_constant(graph, gemm, 2, bias, "bias")
