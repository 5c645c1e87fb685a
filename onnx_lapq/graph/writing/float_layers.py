"""Keep a layer that is left in float in float.

As onnxruntime loads a model, it quantizes the weights of a float convolution or Gemm between two quantizers:
to 8 bits, with one scale for all channels (its `WeightBiasQuantization`, from release 1.21 on). A node
between the DequantizeLinear and the layer keeps it from that. It is a LeakyRelu of slope 1, which changes
nothing, and which onnxruntime does not take out.
"""

import onnx_ir as ir

from onnx_lapq.graph.attributes import constant

__all__ = ["keep_float_layers"]

_KINDS = ("Conv", "ConvTranspose", "Gemm")


def keep_float_layers(graph: ir.Graph) -> None:
    """Put a LeakyRelu of slope 1 in front of float layers between two quantizers, in place."""
    taken = set(ir.convenience.create_value_mapping(graph))
    for node in list(graph):
        source = node.inputs[0] if node.op_type in _KINDS else None
        if source is not None and _is_between_quantizers(node, source):
            same = ir.node("LeakyRelu", [source], {"alpha": 1.0}, name=f"{node.name}_LeakyRelu")
            result = same.outputs[0]
            result.name, result.shape, result.type = f"{node.name}_source", source.shape, source.type
            while result.name in taken:
                result.name += "_"
            taken.add(result.name)
            node.replace_input_with(0, result)
            graph.insert_before(node, same)


def _is_between_quantizers(node: ir.Node, source: ir.Value) -> bool:
    """Whether a layer of constant float weights reads codes that are dequantized, and is quantized."""
    before = source.producer()
    if before is None or before.op_type != "DequantizeLinear" or constant(node.inputs[1]) is None:
        return False
    return any(reader.op_type == "QuantizeLinear" for reader, _ in node.outputs[0].uses())
