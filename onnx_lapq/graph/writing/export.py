"""Write the quantized model: weights as integer codes, activations as Q/DQ pairs."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.writing.encodings import ActivationEncoding, WeightEncoding
from onnx_lapq.graph.writing.gelus import fuse_gelus
from onnx_lapq.graph.writing.qdq import insert_activation_quantizers, make_initializer
from onnx_lapq.graph.writing.transformers import limit_masks, write_sums

__all__ = ["export", "weight_codes_name", "weight_tensors"]

_UINT8_OFFSET = 128


def export(
    model: ir.Model,
    placement: Placement,
    activations: Mapping[str, ActivationEncoding],
    weights: Mapping[str, WeightEncoding],
    *,
    for_onnxruntime: bool = False,
) -> ir.Model:
    """Build the QDQ model.

    Args:
        model: The prepared float model; left as it is.
        placement: The quantizers.
        activations: Encodings of all activation sites, by site name.
        weights: Encodings of all weight sites, by initializer name.
        for_onnxruntime: Whether operators of onnxruntime may be written.

    Returns:
        A new model that onnxruntime loads as it is.
    """
    quantized = model.clone()
    insert_activation_quantizers(quantized, placement.activations, activations)
    for site in placement.weights:
        _replace_weight(quantized.graph, site.name, weights[site.name])
    if for_onnxruntime:
        fuse_gelus(quantized)
        write_sums(quantized)
        limit_masks(quantized)
    common_passes.RemoveUnusedNodesPass()(quantized)
    common_passes.TopologicalSortPass()(quantized)
    return quantized


def weight_codes_name(weight: str) -> str:
    """Name of the initializer that holds the codes of a weight."""
    return f"{weight}_codes"


def weight_tensors(name: str, encoding: WeightEncoding) -> dict[str, np.ndarray]:
    """The initializers that hold an encoding in the written model, by name."""
    codes: np.ndarray = encoding.codes
    if encoding.offset:
        codes = (codes.astype(np.int16) + _UINT8_OFFSET).astype(np.uint8)
    tensors = {weight_codes_name(name): codes, f"{name}_scale": encoding.scale}
    for bias, stored in encoding.biases.items():
        if stored.codes is None or stored.scale is None:
            tensors[bias] = stored.values
        else:
            tensors |= {f"{bias}_codes": stored.codes, f"{bias}_scale": stored.scale}
    return tensors


def _replace_weight(graph: ir.Graph, name: str, encoding: WeightEncoding) -> None:
    tensors = weight_tensors(name, encoding)
    codes = tensors[weight_codes_name(name)]
    zero_point = np.full(encoding.scale.shape, _UINT8_OFFSET if encoding.offset else 0, dtype=codes.dtype)
    _dequantize(graph, name, tensors, encoding.axis, zero_point)
    for bias in encoding.biases:
        if bias in tensors:
            graph.initializers[bias].const_value = ir.tensor(tensors[bias], name=bias)
        else:
            _dequantize(graph, bias, tensors, 0, None)


def _dequantize(
    graph: ir.Graph, name: str, tensors: Mapping[str, np.ndarray], axis: int, zero_point: np.ndarray | None
) -> None:
    """Put a DequantizeLinear in the place of an initializer."""
    value = graph.initializers[name]
    codes, *parameters = (
        make_initializer(graph, part, tensors[part]) for part in (f"{name}_codes", f"{name}_scale")
    )
    if zero_point is not None:
        parameters.append(make_initializer(graph, f"{name}_zero_point", zero_point))
    for reader, index in list(value.uses()):
        if reader.op_type == "Gather" and index == 0 and not parameters[0].shape:
            _gather_codes(graph, reader, codes, parameters)
    if not value.uses():
        return
    attributes = {"axis": axis} if tensors[f"{name}_scale"].ndim else {}
    node = ir.node("DequantizeLinear", [codes, *parameters], attributes, name=f"{name}_DequantizeLinear")
    node.outputs[0].name = f"{name}_dequantized"
    node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
    value.replace_all_uses_with(node.outputs[0])
    graph.insert_before(graph[0], node)


def _gather_codes(graph: ir.Graph, gather: ir.Node, codes: ir.Value, parameters: list[ir.Value]) -> None:
    """Look up the codes of a table and dequantize what is found, not the whole table in every run."""
    found = gather.outputs[0]
    node = ir.node("DequantizeLinear", [found, *parameters], name=f"{gather.name}_DequantizeLinear")
    result = node.outputs[0]
    result.shape, result.type = found.shape, found.type
    found.replace_all_uses_with(result, replace_graph_outputs=True)
    node.replace_input_with(0, found)
    result.name, found.name = found.name, f"{found.name}_rows"
    found.type = ir.TensorType(codes.type.dtype) if codes.type is not None else None
    gather.replace_input_with(0, codes)
    graph.insert_after(gather, node)
