"""Nodes that multiply by a constant or add one: ``y = factor * x + offset``."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import constant

__all__ = ["AffineStep", "affine_step", "per_channel", "read_by_one", "step_behind"]


@dataclass(frozen=True, eq=False)
class AffineStep:
    """A node that computes ``factor * source + offset``.

    Attributes:
        node: Mul, Div, Add or Sub.
        source: What it reads beside the constant.
        factor: Of the constant's shape, or one value; finite.
        offset: The same.
    """

    node: ir.Node
    source: ir.Value
    factor: FloatArray
    offset: FloatArray


def affine_step(node: ir.Node) -> AffineStep | None:
    """The step that a node is; None where it is something else, or no constant of float32 is there."""
    if node.domain != "" or node.op_type not in ("Mul", "Div", "Add", "Sub") or len(node.inputs) != 2:
        return None
    for index, value in enumerate(node.inputs):
        tensor, source = constant(value), node.inputs[1 - index]
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT and source is not None:
            found = _coefficients(node.op_type, index, tensor.numpy().astype(np.float64))
            if found is not None and constant(source) is None and np.isfinite(found).all():
                return AffineStep(node, source, *found)
    return None


def step_behind(value: ir.Value | None) -> AffineStep | None:
    """The step that computes a value, if one does."""
    node = None if value is None else value.producer()
    return None if node is None else affine_step(node)


def _coefficients(op_type: str, index: int, values: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Factor and offset, where the constant is the input of this index."""
    ones, zeros = np.ones_like(values), np.zeros_like(values)
    if op_type == "Add":
        return ones, values
    if op_type == "Mul":
        return values, zeros
    if op_type == "Sub":
        return (ones, -values) if index == 1 else (-ones, values)
    return (1 / values, zeros) if index == 1 and values.all() else None


def per_channel(values: FloatArray, channels: int, axis: int, rank: int) -> FloatArray | None:
    """One value per channel, [channels], where a constant has no more than that.

    Args:
        values: Broadcasts against a tensor of `rank` axes.
        channels: Size of the tensor along `axis`.
        axis: That of the channels.
        rank: Axes of the tensor.
    """
    if values.size == 1 and values.ndim <= rank:
        return np.full(channels, values.reshape(()))
    shape = (1,) * (rank - values.ndim) + values.shape
    wanted = tuple(channels if at == axis else 1 for at in range(rank))
    return values.reshape(channels) if shape == wanted else None


def read_by_one(value: ir.Value) -> bool:
    """Whether a value has one reader and nobody outside sees it."""
    return len(value.uses()) == 1 and not value.is_graph_output()
