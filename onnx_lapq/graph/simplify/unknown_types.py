"""Types behind operators that ONNX does not know; onnxruntime does, if it can run the model at all."""

import onnx_ir as ir

from onnx_lapq.graph.observing import data_type, only_outputs
from onnx_lapq.runtime.session import open_session

__all__ = ["infer_unknown_types"]


def infer_unknown_types(model: ir.Model) -> bool:
    """Give values of unknown operators the type and shape that onnxruntime infers, in place.

    Args:
        model: A model whose other types are inferred.

    Returns:
        Whether there were any.

    Raises:
        ModelError: Onnxruntime does not accept the model.
    """
    unknown = {
        value.name: value
        for node in model.graph
        for value in node.outputs
        if value.name and _is_unknown(value, node) and (value.uses() or value.is_graph_output())
    }
    if not unknown:
        return False
    for found in open_session(only_outputs(model, unknown)).get_outputs():
        value, kind = unknown[found.name], data_type(found.type)
        if kind is not None:
            value.type = ir.TensorType(kind)
            if found.shape and value.shape is None:
                value.shape = ir.Shape(found.shape)
    return True


def _is_unknown(value: ir.Value, node: ir.Node) -> bool:
    return value.type is None or (value.shape is None and node.domain != "")
