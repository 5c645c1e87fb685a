"""Compute float16 and bfloat16 models in float32: integer kernels stand in for float32 only."""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

__all__ = ["widen_half"]

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_TYPE_ATTRIBUTES = ("to", "dtype")


def widen_half(model: ir.Model) -> None:
    """Turn half-precision tensors into float32, in place; graph inputs and outputs keep their types.

    Args:
        model: A model without functions.
    """
    graph = model.graph
    inputs = [value for value in graph.inputs if value.dtype in _HALF]
    outputs = [(index, value.dtype) for index, value in enumerate(graph.outputs) if value.dtype in _HALF]
    for node in ir.traversal.RecursiveGraphIterator(graph):
        _widen_attributes(node)
        _widen_values(node.outputs)
    for part in {graph, *(node.graph for node in ir.traversal.RecursiveGraphIterator(graph))}:
        if isinstance(part, ir.Graph):
            _widen_values(part.initializers.values())
            _widen_values([value for value in part.inputs if part is not graph])
    for value in inputs:
        _cast_input(graph, value)
    for index, dtype in outputs:
        _cast_output(graph, index, dtype)


def _widen_values(values: Iterable[ir.Value]) -> None:
    for value in values:
        if value.dtype in _HALF:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            if value.const_value is not None:
                value.const_value = _widened(value.const_value)


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _HALF:
            node.attributes[name] = ir.AttrTensor(name, _widened(attribute.as_tensor()))
        elif name in _TYPE_ATTRIBUTES and attribute.as_int() in _HALF:
            node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)


def _cast_input(graph: ir.Graph, value: ir.Value) -> None:
    readers = list(value.uses())
    cast = _cast(value, f"{value.name}_float", ir.DataType.FLOAT)
    for reader, index in readers:
        reader.replace_input_with(index, cast.outputs[0])
    graph.insert_before(graph[0], cast)


def _cast_output(graph: ir.Graph, index: int, dtype: ir.DataType) -> None:
    value = graph.outputs[index]
    name, value.name = value.name, f"{value.name}_float"
    cast = _cast(value, name, dtype)
    graph.append(cast)
    graph.outputs[index] = cast.outputs[0]


def _cast(value: ir.Value, name: str | None, dtype: ir.DataType) -> ir.Node:
    cast = ir.node("Cast", [value], {"to": dtype}, name=f"{name}_Cast")
    cast.outputs[0].name = name
    cast.outputs[0].shape, cast.outputs[0].type = value.shape, ir.TensorType(dtype)
    return cast
