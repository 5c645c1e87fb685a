"""Give every layer a bias of its own, so that bias correction has a place."""

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import new_initializer
from onnx_lapq.graph.layer_kinds import LayerKind, kind_of

__all__ = ["give_layers_a_bias"]


def give_layers_a_bias(model: ir.Model) -> None:
    """Add a zero bias to layers without one, and un-share biases, in place.

    Layers with constant weights take part; a MatMul keeps the bias it has, if any. A bias that several
    nodes read is copied.

    Args:
        model: Any float model; its constants are initializers.
    """
    for layer in filter(None, map(kind_of, model.graph)):
        edge = layer.bias_edge() if layer.weight is not None else None
        if edge is not None:
            _give_bias(model.graph, layer, *edge)


def _give_bias(graph: ir.Graph, layer: LayerKind, owner: ir.Node, index: int) -> None:
    bias = owner.inputs[index] if len(owner.inputs) > index else None
    if bias is None:
        values = np.zeros(layer.output_channels, dtype=np.float32)
    elif bias.const_value is not None and len(bias.uses()) > 1:
        values = bias.const_value.numpy()
    else:
        return
    own = new_initializer(graph, f"{owner.outputs[0].name}_bias", values)
    owner.resize_inputs(max(index + 1, len(owner.inputs)))
    owner.replace_input_with(index, own)
