"""Typed access to constants and attributes of onnx-ir nodes."""

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray

__all__ = [
    "constant",
    "constant_integers",
    "constant_number",
    "float_values",
    "integer",
    "integers",
    "new_initializer",
]


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind a value, where it is an initializer."""
    return value.const_value if value is not None and value.is_initializer() else None


def constant_integers(value: ir.Value | None) -> tuple[int, ...] | None:
    """The integers of a value, in one row, where it is a constant; axes or sizes."""
    tensor = constant(value)
    return None if tensor is None else tuple(int(number) for number in tensor.numpy().reshape(-1))


def constant_number(value: ir.Value | None) -> np.float32 | None:
    """The number of a value, where it is a constant of one float32."""
    tensor = constant(value)
    if tensor is None or tensor.size != 1 or tensor.dtype != ir.DataType.FLOAT:
        return None
    return np.float32(tensor.numpy().reshape(()))


def float_values(value: ir.Value | None) -> FloatArray:
    """The numbers of a value that is a constant, float64."""
    tensor = constant(value)
    assert tensor is not None
    return tensor.numpy().astype(np.float64)


def new_initializer(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    """Add a constant to a graph."""
    value = ir.Value(name=name, const_value=ir.Tensor(values, name=name))  # `ir.tensor` asks many questions
    value.shape, value.type = ir.Shape(values.shape), ir.TensorType(ir.DataType.from_numpy(values.dtype))
    graph.register_initializer(value)
    return value


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute, or its default."""
    return int(node.attributes.get_int(name, default))


def integers(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute that is a list of integers, or its default."""
    return tuple(int(item) for item in node.attributes.get_ints(name, default))
