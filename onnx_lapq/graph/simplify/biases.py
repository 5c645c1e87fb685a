"""Where the bias of a layer is; give every layer one of its own, so that bias correction has a place."""

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, new_initializer

__all__ = ["bias_edge", "give_layers_a_bias"]

_BIAS_INPUT = 2
_BIASED = ("Conv", "ConvTranspose", "Gemm")


def bias_edge(node: ir.Node) -> tuple[ir.Node, int] | None:
    """The node and the input at which a layer's bias enters, where it has a place for one.

    That is the third input of Conv, ConvTranspose and Gemm; for MatMul the constant vector of an Add that
    alone reads the product.
    """
    if node.op_type in _BIASED:
        return node, _BIAS_INPUT
    readers = list(node.outputs[0].uses())
    if node.op_type != "MatMul" or len(readers) != 1 or node.outputs[0].is_graph_output():
        return None
    reader, index = readers[0]
    if reader.op_type != "Add" or reader.domain != "" or reader.graph is not node.graph:
        return None
    addend = constant(reader.inputs[1 - index])
    return (reader, 1 - index) if addend is not None and len(addend.shape) == 1 else None


def give_layers_a_bias(model: ir.Model) -> None:
    """Add a zero bias to layers without one, and un-share biases, in place.

    Layers with constant weights take part; a MatMul keeps the bias it has, if any. A bias that several
    nodes read is copied.

    Args:
        model: Any float model; its constants are initializers.
    """
    for node in model.graph:
        weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if node.domain == "" and weight is not None and weight.dtype == ir.DataType.FLOAT:
            edge = bias_edge(node)
            if edge is not None:
                _give_bias(model.graph, node, weight, *edge)


def _give_bias(
    graph: ir.Graph, layer: ir.Node, weight: ir.TensorProtocol, owner: ir.Node, index: int
) -> None:
    bias = owner.inputs[index] if len(owner.inputs) > index else None
    if bias is None:
        values = np.zeros(_output_channels(layer, tuple(weight.shape.numpy())), dtype=np.float32)
    elif bias.const_value is not None and len(bias.uses()) > 1:
        values = bias.const_value.numpy()
    else:
        return
    own = new_initializer(graph, f"{owner.outputs[0].name}_bias", values)
    owner.resize_inputs(max(index + 1, len(owner.inputs)))
    owner.replace_input_with(index, own)


def _output_channels(node: ir.Node, shape: tuple[int, ...]) -> int:
    if node.op_type == "Gemm":
        return shape[0] if node.attributes.get_int("transB", 0) else shape[1]
    if node.op_type == "ConvTranspose":
        return shape[1] * node.attributes.get_int("group", 1)
    return shape[0]
