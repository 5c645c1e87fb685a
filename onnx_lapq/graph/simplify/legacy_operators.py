"""Operators of old opsets that onnx's version converter turns into something else.

Before the conversion:

1. Hardmax below 13, which takes all axes from ``axis`` on as one, becomes Flatten, Hardmax and Reshape.
2. BatchNormalization below 9 with ``spatial=0``, which has statistics for every position, becomes the
   arithmetic that it stands for.

After the conversion:

3. Resize, into which the converter turns Upsample and Resize of opset 10 and before, samples at
   ``x / scale`` (asymmetric), and nearest rounds down where it enlarges and up where it shrinks.
"""

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import integer

__all__ = ["convert_after", "convert_before"]

_HARDMAX_BY_AXIS = 13
_BATCH_NORM_SPATIAL = 9
_RESIZE_WITH_MODES = 11
_SCALES = 2


def convert_before(model: ir.Model, version: int) -> None:
    """Rewrite, in place, what the converter gets wrong; the result is of the same opset.

    Args:
        model: A model without functions.
        version: Its opset.
    """
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.domain != "":
            continue
        if node.op_type == "Hardmax" and version < _HARDMAX_BY_AXIS:
            _replace(node, _flattened(node))
        elif _has_statistics_by_position(node, version):
            _replace(node, _by_position(node))


def convert_after(model: ir.Model, version: int) -> None:
    """Give Resize nodes, in place, the attributes of what they were converted from.

    Args:
        model: The converted model.
        version: The opset that it had.
    """
    if version >= _RESIZE_WITH_MODES:
        return
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.op_type == "Resize" and node.domain == "":
            _resample_as_before(node)


def _flattened(node: ir.Node) -> list[ir.Node]:
    shape = ir.node("Shape", [node.inputs[0]])
    flat = ir.node("Flatten", [node.inputs[0]], {"axis": integer(node, "axis", 1)})
    hardmax = ir.node("Hardmax", flat.outputs, {"axis": 1}, name=node.name)
    return [shape, flat, hardmax, ir.node("Reshape", [hardmax.outputs[0], shape.outputs[0]])]


def _has_statistics_by_position(node: ir.Node, version: int) -> bool:
    is_old = node.op_type == "BatchNormalization" and version < _BATCH_NORM_SPATIAL
    return is_old and not integer(node, "spatial", 1)


def _by_position(node: ir.Node) -> list[ir.Node]:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, with statistics of shape [C, ...]."""
    x, scale, bias, mean, variance = node.inputs[:5]
    epsilon = np.array(node.attributes.get_float("epsilon", 1e-5), np.float32)
    nodes = [ir.node("Constant", [], {"value": ir.tensor(epsilon)})]
    for op_type, inputs in (
        ("Add", lambda: [variance, nodes[0].outputs[0]]),
        ("Sqrt", lambda: nodes[1].outputs),
        ("Sub", lambda: [x, mean]),
        ("Div", lambda: [nodes[3].outputs[0], nodes[2].outputs[0]]),
        ("Mul", lambda: [nodes[4].outputs[0], scale]),
        ("Add", lambda: [nodes[5].outputs[0], bias]),
    ):
        nodes.append(ir.node(op_type, inputs()))
    return nodes


def _replace(node: ir.Node, nodes: list[ir.Node]) -> None:
    assert isinstance(node.graph, ir.Graph)
    result = nodes[-1].outputs[0]
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], nodes, node.outputs[:1], [result])


def _resample_as_before(node: ir.Node) -> None:
    node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
    if node.attributes.get_string("mode", "nearest") != "nearest":
        return
    scales = _constant_scales(node.inputs[_SCALES])
    node.attributes.add(ir.AttrString("nearest_mode", "ceil" if (scales < 1).any() else "floor"))
    if (scales < 1).any() and (scales > 1).any():
        _enlarge_first(node, np.maximum(scales, 1), np.minimum(scales, 1))


def _constant_scales(value: ir.Value | None) -> np.ndarray:
    """The scales of a Resize; 1 where the graph computes them."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return np.ones(1) if tensor is None else tensor.numpy()


def _enlarge_first(node: ir.Node, up: np.ndarray, down: np.ndarray) -> None:
    """Split a Resize that rounds down along some axes and up along others."""
    larger, smaller = (ir.node("Constant", [], {"value": ir.tensor(scales)}) for scales in (up, down))
    inputs = [node.inputs[0], node.inputs[1], larger.outputs[0]]
    first = ir.node(
        "Resize", inputs, {**node.attributes, "nearest_mode": ir.AttrString("nearest_mode", "floor")}
    )
    node.replace_input_with(0, first.outputs[0])
    node.replace_input_with(_SCALES, smaller.outputs[0])
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, [larger, smaller, first])
