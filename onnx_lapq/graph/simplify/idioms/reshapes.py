"""Write the shape of a Reshape as a constant where the graph computes it from sizes that stay what they are.

1. A size that is read from a shape, and is that of the reshaped tensor at the same axis, is 0: keep it.
2. One size of another kind is -1: what is left.
3. Where the graph computes sizes in a way that is not followed here, shape inference may know them.

Exporters compute such shapes from the batch, and the integers wander through the whole graph. Onnxscript's
``materialize_reshape_shape_rule`` needs ``allowzero`` of opset 14.
"""

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, constant_integers, new_initializer

__all__ = ["sizes_of", "write_reshapes"]

_Size = int | str | None
"""A number, a name of a size, or an unknown one."""


def write_reshapes(model: ir.Model) -> bool:
    """Apply the rules, in place.

    Args:
        model: Its shapes are inferred, its constants are initializers.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in model.graph:
        if node.op_type == "Reshape" and node.domain == "" and constant(node.inputs[1]) is None:
            shape = _constant_shape(node)
            if shape is not None:
                name = f"{node.outputs[0].name}_shape"
                if name not in model.graph.initializers:
                    node.attributes.pop("allowzero", None)
                    node.replace_input_with(1, new_initializer(model.graph, name, np.array(shape, np.int64)))
                    changed = True
    return changed


def _constant_shape(node: ir.Node) -> list[int] | None:
    data, sizes = node.inputs[0], sizes_of(node.inputs[1]) or _inferred(node)
    if data is None or data.shape is None or sizes is None or 0 in sizes:
        return None
    there = [_name(size) for size in data.shape]
    kept = [
        0 if isinstance(size, str) and axis < len(there) and there[axis] == size else size
        for axis, size in enumerate(sizes)
    ]
    numbers = [size if isinstance(size, int) else -1 for size in kept]
    return numbers if numbers.count(-1) <= 1 else None


def _inferred(node: ir.Node) -> list[_Size] | None:
    shape = node.outputs[0].shape
    return None if shape is None else [_name(size) for size in shape]


def sizes_of(value: ir.Value | None) -> list[_Size] | None:
    """What a tensor of sizes holds; None where that is not known."""
    known = constant_integers(value)
    if known is not None:
        return list(known)
    node = None if value is None else value.producer()
    if node is None or node.domain != "":
        return None
    if node.op_type == "Concat":
        parts = [sizes_of(part) for part in node.inputs]
        return None if None in parts else [size for part in parts if part is not None for size in part]
    if node.op_type in ("Unsqueeze", "Squeeze", "Cast", "Identity"):
        return sizes_of(node.inputs[0])
    if node.op_type == "Shape":
        return _shape(node)
    return _picked(node)


def _shape(node: ir.Node) -> list[_Size] | None:
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    sizes = [_name(size) for size in value.shape]
    end = node.attributes.get_int("end", len(sizes))
    return sizes[node.attributes.get_int("start", 0) : end]


def _picked(node: ir.Node) -> list[_Size] | None:
    """What Gather or Slice takes out of sizes."""
    if node.op_type not in ("Gather", "Slice"):
        return None
    sizes, numbers = sizes_of(node.inputs[0]), [constant_integers(value) for value in node.inputs[1:]]
    if sizes is None or any(number is None for number in numbers):
        return None
    if node.op_type == "Gather":
        return [sizes[index] for index in numbers[0] or () if -len(sizes) <= index < len(sizes)]
    steps = numbers[3] if len(numbers) > 3 else (1,)
    (start, *_), (end, *_), (step, *_) = (numbers[0] or (0,), numbers[1] or (0,), steps or (1,))
    return sizes[start:end:step]


def _name(size: int | ir.SymbolicDim) -> _Size:
    return size if isinstance(size, int) else size.value
