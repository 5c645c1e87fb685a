"""Store the weights of Gemm the way that a product with blocks wants them: [inputs, output channels]."""

import onnx_ir as ir

from onnx_lapq.graph.attributes import integer
from onnx_lapq.graph.layer_kinds import weights_of
from onnx_lapq.graph.simplify.idioms.changing import change_nodes, replace_constant

__all__ = ["turn_weights"]


def turn_weights(model: ir.Model) -> None:
    """Transpose constant weights of Gemm that are transposed in every run, in place."""
    change_nodes(model, "Gemm", _turn)


def _turn(graph: ir.Graph, node: ir.Node) -> bool:
    weight = node.inputs[1]
    if not integer(node, "transB", 0) or weight not in weights_of(node):
        return False
    assert weight is not None
    assert weight.const_value is not None
    replace_constant(graph, node, 1, weight.const_value.numpy().T, "weight")
    node.attributes.pop("transB")
    return True
