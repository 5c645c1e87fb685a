"""Write the bounds of Clip as the single numbers that ONNX asks for."""

import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, new_initializer

__all__ = ["flatten_clip_bounds"]


def flatten_clip_bounds(model: ir.Model) -> None:
    """Turn constant bounds of shape [1] into ones of shape [], in place; onnxruntime takes and writes both.

    Args:
        model: Its constants are initializers.
    """
    for node in model.graph:
        if node.op_type == "Clip" and node.domain == "":
            for index, bound in enumerate(node.inputs[1:], start=1):
                tensor = constant(bound)
                if tensor is not None and len(tensor.shape):
                    name = f"{node.outputs[0].name}_bound{index}"
                    scalar = new_initializer(model.graph, name, tensor.numpy().reshape(()))
                    node.replace_input_with(index, scalar)
