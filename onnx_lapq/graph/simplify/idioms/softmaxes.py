"""Write a softmax that is spelled out as the operator that it is.

1. ``e / sum(e)`` with ``e = exp(x - max(x))``, both over one axis, becomes ``Softmax(x)``. What lies between
   a reduction and its reader may only bring back the axis that is gone: Reshape, Unsqueeze, Expand, and JAX's
   ``max(-inf, .)``.
2. A Softmax over the last axis of what a Flatten made of x, back in the shape of x, is that of x, where the
   Flatten leaves the last axis alone. So onnx's converter writes the Softmax of opset 11.
"""

import onnx_ir as ir

from onnx_lapq.graph.attributes import integer
from onnx_lapq.graph.simplify.idioms.changing import change_nodes, take_place_of
from onnx_lapq.graph.simplify.idioms.matching import is_number, made_by, reduced_axis

__all__ = ["name_softmaxes"]

_VIEWS = ("Expand", "Identity", "Reshape", "Unsqueeze")


def name_softmaxes(model: ir.Model) -> bool:
    """Apply the rules, in place.

    Args:
        model: Of opset 13 or more, whose Softmax is over one axis; its shapes are inferred.

    Returns:
        Whether anything changed.
    """
    changed = [change_nodes(model, "Div", _name), change_nodes(model, "Reshape", _unflatten)]
    return any(changed)


def _unflatten(graph: ir.Graph, reshape: ir.Node) -> bool:
    """Rule 2."""
    softmax = made_by(reshape.inputs[0], "Softmax")
    flatten = None if softmax is None else made_by(softmax.inputs[0], "Flatten")
    sizes = made_by(reshape.inputs[1], "Shape")
    if softmax is None or flatten is None or sizes is None or sizes.attributes:
        return False
    x = flatten.inputs[0]
    if x is None or x.shape is None or sizes.inputs[0] is not x:
        return False
    last = len(x.shape) - 1
    if integer(flatten, "axis", 1) % len(x.shape) != last or integer(softmax, "axis", -1) not in (-1, 1):
        return False
    direct = ir.node("Softmax", [x], {"axis": -1}, name=softmax.name)
    graph.insert_before(reshape, direct)
    take_place_of(direct, reshape)
    return True


def _name(graph: ir.Graph, division: ir.Node) -> bool:
    """Rule 1."""
    exponential = made_by(division.inputs[0], "Exp")
    difference = None if exponential is None else made_by(exponential.inputs[0], "Sub")
    if difference is None:
        return False
    x, axis = difference.inputs[0], _axis_of(division.inputs[1], division.inputs[0], "ReduceSum")
    if x is None or axis is None or _axis_of(difference.inputs[1], x, "ReduceMax") != axis:
        return False
    softmax = ir.node("Softmax", [x], {"axis": axis}, name=division.name)
    graph.insert_before(division, softmax)
    take_place_of(softmax, division)
    return True


def _axis_of(value: ir.Value | None, reduced: ir.Value | None, op_type: str) -> int | None:
    """The axis of a reduction of a tensor, where it broadcasts along that axis as it comes back."""
    seen = []
    while (reduction := made_by(value, op_type)) is None:
        node = made_by(value, *_VIEWS, "Max")
        if value is None or node is None:
            return None
        seen.append(value)
        value = _without_floor(node) if node.op_type == "Max" else node.inputs[0]
    axis = reduced_axis(reduction) if reduction.inputs[0] is reduced else None
    if axis is None or reduced is None or reduced.shape is None:
        return None
    back = [each for each in (*seen, reduction.outputs[0]) if _is_broadcast(each, axis, len(reduced.shape))]
    return axis if back else None


def _without_floor(node: ir.Node) -> ir.Value | None:
    """The other input of a Max with minus infinity."""
    left, right = node.inputs if len(node.inputs) == 2 else (None, None)
    if is_number(left, float("-inf")):
        return right
    return left if is_number(right, float("-inf")) else None


def _is_broadcast(value: ir.Value, axis: int, rank: int) -> bool:
    return value.shape is not None and len(value.shape) == rank and value.shape[axis] == 1
