"""What computes the outputs of a graph: the last operators that do more than move, scale or shift values."""

import onnx_ir as ir

from onnx_lapq.graph.attributes import constant

__all__ = ["last_operators"]

_MOVING = frozenset(
    {
        *("Cast", "Concat", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity", "QuantizeLinear"),
        *("Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
_AFFINE = frozenset({"Add", "Div", "Mul", "Sub"})
"""Operators that only scale or shift where one operand is a constant."""


def last_operators(model: ir.Model) -> dict[str, frozenset[str]]:
    """Names of the operators behind each output, by output; none where it is an input, or a constant.

    Of a Concat there may be several: ``{"Mul", "Sigmoid"}`` for decoded boxes beside scores.
    """
    return {value.name or "": frozenset(_ends(value)) for value in model.graph.outputs}


def _ends(output: ir.Value) -> set[str]:
    pending: list[ir.Value | None] = [output]
    seen, ends = set(pending), set()
    for value in pending:
        node = value.producer() if value is not None else None
        if node is None:
            continue
        sources = _moved(node)
        if not sources:
            ends.add(node.op_type)
        fresh = [source for source in sources if source not in seen]
        seen.update(fresh)
        pending.extend(fresh)
    return ends - {"Constant"}


def _moved(node: ir.Node) -> list[ir.Value | None]:
    """The inputs whose elements a node only moves, scales or shifts."""
    if node.op_type == "Concat":
        return list(node.inputs)
    if node.op_type in _MOVING:
        return list(node.inputs[:1])
    if node.op_type in _AFFINE:
        varying = [value for value in node.inputs if not _is_constant(value)]
        return varying if len(varying) == 1 else []
    return []


def _is_constant(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return constant(value) is not None or (producer is not None and producer.op_type == "Constant")
