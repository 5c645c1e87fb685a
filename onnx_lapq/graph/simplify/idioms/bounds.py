"""Write the bounds of Clip and Range as the single numbers that ONNX asks for."""

import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, new_initializer

__all__ = ["flatten_bounds"]

_FIRST_BOUND = {"Clip": 1, "Range": 0}
"""Index of the input that the bounds begin with."""


def flatten_bounds(model: ir.Model) -> None:
    """Turn constant bounds of shape [1] into ones of shape [], in place; onnxruntime takes and writes both.

    Args:
        model: Its constants are initializers.
    """
    for node in model.graph:
        if node.op_type in _FIRST_BOUND and node.domain == "":
            first = _FIRST_BOUND[node.op_type]
            for index, bound in enumerate(node.inputs[first:], start=first):
                tensor = constant(bound)
                if tensor is not None and len(tensor.shape):
                    name = f"{node.outputs[0].name}_bound{index}"
                    scalar = new_initializer(model.graph, name, tensor.numpy().reshape(()))
                    node.replace_input_with(index, scalar)
