"""Constants that meet a value behind nodes that only move it, as they would meet it in front of them.

A convolution over time is often one over pictures of height 1 (TensorFlow): its bias is added behind the
Squeeze that takes the height away again.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import constant_integers, integers
from onnx_lapq.graph.simplify.idioms.affine_steps import read_by_one

__all__ = ["ValueAndConstants", "undo_moves"]

ValueAndConstants = tuple[ir.Value, tuple[FloatArray, ...]]
"""A value, and constants that broadcast against it."""

_MOVES = ("Slice", "Squeeze", "Transpose", "Unsqueeze")


def undo_moves(value: ir.Value, constants: Sequence[FloatArray]) -> ValueAndConstants:
    """The value that moves start from, and the constants in its layout.

    Args:
        value: What a node reads beside the constants.
        constants: Each broadcasts against the value.

    Returns:
        The value itself where nothing moves it, others read it on the way, or a constant has no such layout.
    """
    node = value.producer()
    source = None if node is None or node.op_type not in _MOVES or node.domain != "" else node.inputs[0]
    if node is None or source is None or value.shape is None or not read_by_one(value):
        return value, tuple(constants)
    moved = [_before(node, array, len(value.shape)) for array in constants]
    found = tuple(array for array in moved if array is not None)
    return undo_moves(source, found) if len(found) == len(moved) else (value, tuple(constants))


def _before(node: ir.Node, values: FloatArray, rank: int) -> FloatArray | None:
    """A constant in the layout of a node's input, where it has one."""
    if values.ndim > rank:
        return None
    if values.size == 1:
        return values.reshape(())
    full = values.reshape((1,) * (rank - values.ndim) + values.shape)
    if node.op_type == "Transpose":
        order = integers(node, "perm", tuple(reversed(range(rank))))
        return full.transpose(np.argsort(order))
    axes = _axes(node)
    if axes is None:
        return None
    if node.op_type == "Squeeze":
        return np.expand_dims(full, axes)
    if any(full.shape[axis] != 1 for axis in axes):
        return None
    return full.squeeze(axes) if node.op_type == "Unsqueeze" else full


def _axes(node: ir.Node) -> tuple[int, ...] | None:
    """Axes that a Slice, Squeeze or Unsqueeze is about, where they are constants."""
    index = 3 if node.op_type == "Slice" else 1
    return constant_integers(node.inputs[index]) if len(node.inputs) > index else None
