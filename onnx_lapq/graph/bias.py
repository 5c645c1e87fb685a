"""Give every layer a bias of its own, so that bias correction has a place to go."""

import numpy as np
import onnx_ir as ir

__all__ = ["give_layers_a_bias"]

_BIAS_INPUT = 2
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1}


def give_layers_a_bias(model: ir.Model) -> None:
    """Add a zero bias to layers without one, and un-share biases, in place.

    Conv and Gemm with constant weights take part (a ConvTranspose too, where it has one group). A bias
    that several nodes read, or that is not a float vector of the layer's output channels, is copied or
    left alone respectively.

    Args:
        model: Any float model; its constants are initializers.
    """
    for node in model.graph:
        if node.op_type in _CHANNEL_AXIS and node.domain == "":
            _give_bias(model.graph, node)


def _give_bias(graph: ir.Graph, node: ir.Node) -> None:
    weight = node.inputs[1]
    if weight is None or weight.const_value is None:
        return
    bias = node.inputs[_BIAS_INPUT] if len(node.inputs) > _BIAS_INPUT else None
    if bias is None:
        values = np.zeros(_output_channels(node, tuple(weight.const_value.shape.numpy())), dtype=np.float32)
    elif bias.const_value is not None and len(bias.uses()) > 1:
        values = bias.const_value.numpy()
    else:
        return
    if weight.const_value.dtype != ir.DataType.FLOAT:
        return
    own = ir.Value(name=f"{node.outputs[0].name}_bias", const_value=ir.tensor(values))
    own.shape, own.type = ir.Shape(values.shape), ir.TensorType(ir.DataType.FLOAT)
    graph.register_initializer(own)
    node.resize_inputs(_BIAS_INPUT + 1)
    node.replace_input_with(_BIAS_INPUT, own)


def _output_channels(node: ir.Node, shape: tuple[int, ...]) -> int:
    if node.op_type == "Gemm":
        return shape[0] if node.attributes.get_int("transB", 0) else shape[1]
    if node.op_type == "ConvTranspose":
        return shape[1] * node.attributes.get_int("group", 1)
    return shape[0]
