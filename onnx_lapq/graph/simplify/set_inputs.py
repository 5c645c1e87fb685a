"""Inputs that always have one number, such as a sample rate, become constants for all that reads them."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

__all__ = ["set_inputs"]


def set_inputs(model: ir.Model, values: Mapping[str, float]) -> None:
    """Let constants take the place of inputs, in place; the inputs stay on the graph, and nothing reads them.

    Args:
        model: Any model.
        values: Numbers by name of the input. Names of other inputs are passed over.
    """
    inputs = {value.name: value for value in model.graph.inputs}
    for name, number in values.items():
        value = inputs.get(name)
        if value is None or value.dtype is None:
            continue
        shape = () if value.shape is None else value.shape.numpy()
        tensor = ir.tensor(
            np.full(shape, number, value.dtype.numpy()), name=_free(model.graph, f"{name}_set")
        )
        constant = ir.Value(
            name=tensor.name, type=ir.TensorType(value.dtype), shape=ir.Shape(shape), const_value=tensor
        )
        model.graph.register_initializer(constant)
        value.replace_all_uses_with(constant)


def _free(graph: ir.Graph, name: str) -> str:
    taken = set(ir.convenience.create_value_mapping(graph))
    while name in taken:
        name += "_"
    return name
