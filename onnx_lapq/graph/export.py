"""Write the quantized model: weights as integer codes, activations as Q/DQ pairs."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnx_lapq.graph.encodings import ActivationEncoding, BiasEncoding, WeightEncoding
from onnx_lapq.graph.placement import Placement
from onnx_lapq.graph.qdq import insert_activation_quantizers, make_initializer

__all__ = ["export"]

_UINT8_OFFSET = 128


def export(
    model: ir.Model,
    placement: Placement,
    activations: Mapping[str, ActivationEncoding],
    weights: Mapping[str, WeightEncoding],
) -> ir.Model:
    """Build the QDQ model.

    Weights of 7 bits or fewer are stored as int8; weights of 8 bits as uint8 with zero point 128, because
    full-range int8 weights saturate in the u8 x s8 kernels of x86 processors without VNNI.

    Args:
        model: The prepared float model; left as it is.
        placement: The quantizers.
        activations: Encodings of all activation sites, by site name.
        weights: Encodings of all weight sites, by initializer name.

    Returns:
        A new model that onnxruntime loads as it is.
    """
    quantized = model.clone()
    insert_activation_quantizers(quantized, placement.activations, activations)
    for site in placement.weights:
        _replace_weight(quantized.graph, site.name, weights[site.name])
    common_passes.RemoveUnusedNodesPass()(quantized)
    common_passes.TopologicalSortPass()(quantized)
    return quantized


def _replace_weight(graph: ir.Graph, name: str, encoding: WeightEncoding) -> None:
    weight = graph.initializers[name]
    codes, zero_point = encoding.codes, None
    if encoding.bits == 8:
        codes = (codes.astype(np.int16) + _UINT8_OFFSET).astype(np.uint8)
        zero_point = make_initializer(
            graph, f"{name}_zero_point", np.full(encoding.scale.shape, _UINT8_OFFSET, dtype=np.uint8)
        )
    dequantize = ir.node(
        "DequantizeLinear",
        [
            make_initializer(graph, f"{name}_codes", codes),
            make_initializer(graph, f"{name}_scale", encoding.scale),
        ]
        + ([zero_point] if zero_point is not None else []),
        {"axis": encoding.axis} if encoding.scale.ndim else {},
        name=f"{name}_DequantizeLinear",
    )
    dequantize.outputs[0].name = f"{name}_dequantized"
    dequantize.outputs[0].shape, dequantize.outputs[0].type = weight.shape, weight.type
    weight.replace_all_uses_with(dequantize.outputs[0])
    graph.insert_before(graph[0], dequantize)
    for bias, bias_encoding in encoding.biases.items():
        _replace_bias(graph, bias, bias_encoding)


def _replace_bias(graph: ir.Graph, name: str, encoding: BiasEncoding) -> None:
    bias = graph.initializers[name]
    if encoding.codes is None or encoding.scale is None:
        bias.const_value = ir.tensor(encoding.values, name=name)
        return
    dequantize = ir.node(
        "DequantizeLinear",
        [
            make_initializer(graph, f"{name}_codes", encoding.codes),
            make_initializer(graph, f"{name}_scale", encoding.scale),
        ],
        {"axis": 0} if encoding.scale.ndim else {},
        name=f"{name}_DequantizeLinear",
    )
    dequantize.outputs[0].name = f"{name}_dequantized"
    dequantize.outputs[0].shape, dequantize.outputs[0].type = bias.shape, bias.type
    bias.replace_all_uses_with(dequantize.outputs[0])
    graph.insert_before(graph[0], dequantize)
