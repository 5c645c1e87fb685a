"""What a layer is: one class for each operator that may have a low-bit operand.

To add an operator, write a class beside the others that says where it differs from a plain matrix product,
and name it in `_KINDS`.
"""

import onnx_ir as ir

from onnx_lapq.graph.layer_kinds.convolutions import Conv, ConvTranspose
from onnx_lapq.graph.layer_kinds.layer_kind import LayerKind
from onnx_lapq.graph.layer_kinds.products import Gather, Gemm, MatMul

__all__ = ["LayerKind", "kind_of", "weight_of"]

_KINDS = {kind.__name__: kind for kind in (Conv, ConvTranspose, Gather, Gemm, MatMul)}


def kind_of(node: ir.Node) -> LayerKind | None:
    """The node as a layer; None where its operator has no low-bit operand."""
    kind = _KINDS.get(node.op_type) if node.domain == "" else None
    return None if kind is None else kind(node)


def weight_of(node: ir.Node) -> ir.Value | None:
    """The node's low-bit operand; None where it has none, or that is not a constant float tensor."""
    kind = kind_of(node)
    return None if kind is None else kind.weight
