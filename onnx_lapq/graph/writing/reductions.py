"""Let reductions keep their axes, with a Squeeze behind them, for OpenVINO.

Its CPU plugin (2026.4) fuses what stands behind a reduction into it. Where the reduction drops axes, as a
ReduceMean over the tokens of a text does, a Mul or a quantizer is then applied along the wrong axis, in float
models too.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, integer, integers, new_initializer

__all__ = ["keep_reduced_axes"]


def keep_reduced_axes(model: ir.Model) -> None:
    """Write every reduction that drops axes as one that keeps them and a Squeeze, in place.

    Args:
        model: A model whose axes of reductions are constants where they are given.
    """
    for node in list(model.graph):
        if node.domain == "" and node.op_type.startswith("Reduce") and not integer(node, "keepdims", 1):
            _keep(model.graph, node)


def _keep(graph: ir.Graph, node: ir.Node) -> None:
    axes, result = _axes(node), node.outputs[0]
    if not axes:
        return
    name = result.name or ""
    dropped = new_initializer(graph, f"{name}_reduced_axes", np.array(axes, np.int64))
    node.attributes["keepdims"] = ir.AttrInt64("keepdims", 1)
    squeeze = ir.node("Squeeze", [result, dropped], name=f"{node.name}_Squeeze")
    squeezed = squeeze.outputs[0]
    squeezed.shape, squeezed.type = result.shape, result.type
    result.replace_all_uses_with(squeezed, replace_graph_outputs=True)
    squeeze.replace_input_with(0, result)
    squeezed.name, result.name, result.shape = name, f"{name}_reduced", None
    graph.insert_after(node, squeeze)


def _axes(node: ir.Node) -> Sequence[int]:
    """The axes that are given; none where all are reduced, or where they are computed."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        tensor = constant(node.inputs[1])
        return () if tensor is None else [int(axis) for axis in tensor.numpy()]
    return integers(node, "axes", ())
