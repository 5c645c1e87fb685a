"""Drop a Slice that keeps everything, as TensorFlow's ``x[:, :, :]``.

Onnxscript's ``collapse_slice_rule`` looks at one axis, and wants all inputs.
"""

import onnx_ir as ir

from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.simplify.idioms.changing import change_nodes

__all__ = ["drop_whole_slices"]

_OPEN_END = 2**31 - 1
"""From here on an end means "up to the last"."""


def drop_whole_slices(model: ir.Model) -> bool:
    """Apply the rule, in place.

    Args:
        model: Its shapes are inferred, its constants are initializers.

    Returns:
        Whether anything changed.
    """
    return change_nodes(model, "Slice", _drop)


def _drop(graph: ir.Graph, node: ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    if source is None or result.is_graph_output() or not _keeps_all(node):
        return False
    ir.convenience.replace_all_uses_with(result, source)
    graph.remove(node, safe=True)
    return True


def _keeps_all(node: ir.Node) -> bool:
    tensors = [constant(value) for value in node.inputs[1:]]
    if node.domain != "" or node.inputs[0] is None or None in tensors:
        return False
    starts, ends, *others = (tensor.numpy().reshape(-1).tolist() for tensor in tensors if tensor is not None)
    axes = others[0] if others else range(len(starts))
    steps = others[1] if len(others) > 1 else [1]
    shape = node.inputs[0].shape
    sizes = [None if shape is None else shape[axis] for axis in axes]
    reach = [
        end >= (size if isinstance(size, int) else _OPEN_END) for end, size in zip(ends, sizes, strict=True)
    ]
    return not any(starts) and set(steps) == {1} and all(reach)
