"""What a layer is: one class for each operator that may have a low-bit operand, or for each such operand.

To add an operator, write a class beside the others that says where it differs from a plain matrix product,
and name it in `_KINDS`.
"""

import onnx_ir as ir

from onnx_lapq.graph.layer_kinds.convolutions import Conv, ConvTranspose
from onnx_lapq.graph.layer_kinds.layer_kind import LayerKind
from onnx_lapq.graph.layer_kinds.products import Gather, Gemm, MatMul
from onnx_lapq.graph.layer_kinds.recurrent import InputWeight, StateWeight

__all__ = ["LayerKind", "kind_of", "kinds_of", "weights_of"]

_KINDS: dict[str, tuple[type[LayerKind], ...]] = {
    **{kind.__name__: (kind,) for kind in (Conv, ConvTranspose, Gather, Gemm, MatMul)},
    **dict.fromkeys(("GRU", "LSTM", "RNN"), (InputWeight, StateWeight)),
}


def kinds_of(node: ir.Node) -> tuple[LayerKind, ...]:
    """The node as a layer, once for each operand that may have few bits; empty where it has none."""
    return tuple(kind(node) for kind in _KINDS.get(node.op_type, ()) if node.domain == "")


def kind_of(node: ir.Node) -> LayerKind | None:
    """The node as a layer, of several operands the first; None where its operator has no low-bit operand."""
    return next(iter(kinds_of(node)), None)


def weights_of(node: ir.Node) -> tuple[ir.Value, ...]:
    """The node's low-bit operands, of which each is a constant float tensor."""
    return tuple(weight for kind in kinds_of(node) if (weight := kind.weight) is not None)
