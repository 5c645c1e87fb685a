"""Write the mean over all pixels as the pooling operator that has an integer kernel."""

import onnx_ir as ir

from onnx_lapq.graph.attributes import integer
from onnx_lapq.graph.simplify.idioms.matching import reduced_axes

__all__ = ["name_global_pooling"]

_FIRST_SPATIAL = 2
_IMAGE_RANK = 4
"""A mean over the last axis of fewer dimensions may as well be the statistics of a layer normalisation."""


def name_global_pooling(model: ir.Model) -> None:
    """Replace ReduceMean over all spatial axes of images by GlobalAveragePool (and Flatten), in place.

    Exporters write global average pooling either way.

    Args:
        model: A model with inferred shapes; its constants are initializers.
    """
    for node in model.graph:
        if node.op_type == "ReduceMean" and node.domain == "" and _is_global(node):
            _replace(model.graph, node)


def _is_global(node: ir.Node) -> bool:
    source = node.inputs[0]
    if source is None or source.dtype != ir.DataType.FLOAT:
        return False
    if source.shape is None or len(source.shape) < _IMAGE_RANK:
        return False
    rank = len(source.shape)
    return {axis % rank for axis in reduced_axes(node)} == set(range(_FIRST_SPATIAL, rank))


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    pool = ir.node("GlobalAveragePool", [node.inputs[0]], name=node.name)
    nodes, result = [pool], pool.outputs[0]
    if not integer(node, "keepdims", 1):
        nodes.append(ir.node("Flatten", [result], {"axis": 1}, name=f"{node.name}_Flatten"))
        result.name = f"{node.outputs[0].name}_pooled"
        result = nodes[-1].outputs[0]
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, node.outputs, [result])
