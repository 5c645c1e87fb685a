"""Questions about the nodes behind a value that several rewrites ask."""

import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, constant_integers, integer, integers

__all__ = ["is_number", "keeps_axes", "made_by", "reduced_axes", "reduced_axis"]


def made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that computes a value, where it is one of these operators of ONNX itself."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types and node.domain == "" else None


def is_number(value: ir.Value | None, wanted: float, tolerance: float = 1e-5) -> bool:
    """Whether a value is a constant of one element, close to this number."""
    tensor = constant(value)
    if tensor is None or tensor.size != 1:
        return False
    number = float(tensor.numpy().reshape(()))
    return number == wanted or abs(number - wanted) <= tolerance


def reduced_axes(node: ir.Node) -> tuple[int, ...]:
    """The axes that a reduction goes over, as the node says; none where they are not known, or all."""
    if len(node.inputs) < 2:
        return integers(node, "axes", ())
    return constant_integers(node.inputs[1]) or ()


def reduced_axis(node: ir.Node) -> int | None:
    """The one axis that a ReduceMean, ReduceSum or ReduceMax goes over, counted from 0.

    Returns:
        None where there are more, or it or the rank of the input is not known.
    """
    value, axes = node.inputs[0], reduced_axes(node)
    if value is None or value.shape is None or len(axes) != 1:
        return None
    return axes[0] % len(value.shape)


def keeps_axes(node: ir.Node) -> bool:
    """Whether a reduction leaves an axis of size 1 where it went over one."""
    return bool(integer(node, "keepdims", 1))
