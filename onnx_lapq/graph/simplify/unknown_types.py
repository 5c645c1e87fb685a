"""Types behind operators that ONNX does not know; onnxruntime does, if it can run the model at all."""

import onnx_ir as ir

from onnx_lapq.runtime.session import open_session

__all__ = ["infer_unknown_types"]

_SPELLINGS = {"float": "FLOAT", "float16": "FLOAT16", "double": "DOUBLE", "bool": "BOOL", "string": "STRING"}


def infer_unknown_types(model: ir.Model) -> None:
    """Give values without a type the one that onnxruntime infers, in place.

    Args:
        model: A model whose other types are inferred.

    Raises:
        ModelError: Onnxruntime does not accept the model.
    """
    unknown = {
        value.name: value
        for node in model.graph
        for value in node.outputs
        if value.type is None and value.name and (value.uses() or value.is_graph_output())
    }
    if not unknown:
        return
    observed = model.clone()
    values = ir.convenience.create_value_mapping(observed.graph, include_subgraphs=False)
    observed.graph.outputs.extend(
        values[name] for name in unknown if name and not values[name].is_graph_output()
    )
    for found in open_session(observed).get_outputs():
        if found.name in unknown and found.type.startswith("tensor("):
            kind = found.type.removeprefix("tensor(").removesuffix(")")
            unknown[found.name].type = ir.TensorType(ir.DataType[_SPELLINGS.get(kind, kind.upper())])
            if found.shape and unknown[found.name].shape is None:
                unknown[found.name].shape = ir.Shape(found.shape)
