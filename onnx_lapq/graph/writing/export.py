"""Write the quantized model: weights as integer codes, activations as Q/DQ pairs."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnx_lapq.graph.attributes import float_values, new_initializer
from onnx_lapq.graph.operator_sets import TYPED_CODES
from onnx_lapq.graph.placement.sites import Placement, WeightSite, WideSite
from onnx_lapq.graph.writing.encodings import ActivationEncoding, WeightEncoding
from onnx_lapq.graph.writing.float_layers import keep_float_layers
from onnx_lapq.graph.writing.gelus import fuse_gelus
from onnx_lapq.graph.writing.qdq import insert_activation_quantizers, make_initializer
from onnx_lapq.graph.writing.soft_argmaxes import turn_soft_argmaxes
from onnx_lapq.graph.writing.transformers import limit_masks, write_sums

__all__ = ["export", "weight_codes_name", "weight_tensors"]

_LARGEST_INT16 = 2**15 - 1


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
        _replace_weight(quantized.graph, site, weights[site.name])
    for wide in placement.wide:
        _widen(quantized.graph, wide)
    keep_float_layers(quantized.graph)
    if for_onnxruntime:
        fuse_gelus(quantized)
        write_sums(quantized)
        limit_masks(quantized)
        turn_soft_argmaxes(quantized)
    common_passes.RemoveUnusedNodesPass()(quantized)
    common_passes.TopologicalSortPass()(quantized)
    return quantized


def weight_codes_name(weight: str) -> str:
    """Name of the initializer that holds the codes of a weight."""
    return f"{weight}_codes"


def weight_tensors(name: str, encoding: WeightEncoding) -> dict[str, np.ndarray]:
    """The initializers that hold an encoding in the written model, by name."""
    codes: np.ndarray = encoding.codes
    if encoding.zero_point:
        dtype = np.uint8 if encoding.zero_point > 0 else np.int8
        codes = (codes.astype(np.int16) + encoding.zero_point).astype(dtype)
    scale = encoding.scale
    if encoding.block:
        codes, scale = codes.astype(ir.DataType.INT4.numpy()), np.ascontiguousarray(scale.T)
    tensors = {weight_codes_name(name): codes, f"{name}_scale": scale}
    for bias, stored in encoding.biases.items():
        if stored.codes is None or stored.scale is None:
            tensors[bias] = stored.values
        else:
            tensors |= {f"{bias}_codes": stored.codes, f"{bias}_scale": stored.scale}
    return tensors


def _replace_weight(graph: ir.Graph, site: WeightSite, encoding: WeightEncoding) -> None:
    tensors = weight_tensors(site.name, encoding)
    if encoding.block:
        _dequantize(graph, site.name, tensors, {"axis": 0, "block_size": encoding.block}, None)
    elif site.in_float:
        _unpack(graph, site.name, tensors, encoding.axis)
    else:
        codes = tensors[weight_codes_name(site.name)]
        zero_point = np.full(encoding.scale.shape, encoding.zero_point, dtype=codes.dtype)
        axis = {"axis": encoding.axis} if encoding.scale.ndim else {}
        _dequantize(graph, site.name, tensors, axis, zero_point)
    for bias in encoding.biases:
        if bias in tensors:
            graph.initializers[bias].const_value = ir.tensor(tensors[bias], name=bias)
        else:
            _dequantize(graph, bias, tensors, {"axis": 0} if tensors[f"{bias}_scale"].ndim else {}, None)


def _dequantize(
    graph: ir.Graph,
    name: str,
    tensors: Mapping[str, np.ndarray],
    attributes: Mapping[str, int],
    zero_point: np.ndarray | None,
) -> None:
    """Put a DequantizeLinear in the place of an initializer."""
    value = graph.initializers[name]
    codes, *parameters = (
        make_initializer(graph, part, tensors[part]) for part in (f"{name}_codes", f"{name}_scale")
    )
    if zero_point is not None:
        parameters.append(make_initializer(graph, f"{name}_zero_point", zero_point))
    for reader, index in list(value.uses()):
        if reader.op_type == "Gather" and index == 0:
            _gather_codes(graph, reader, codes, parameters)
    if not value.uses():
        return
    node = ir.node("DequantizeLinear", [codes, *parameters], attributes, name=f"{name}_DequantizeLinear")
    node.outputs[0].name = f"{name}_dequantized"
    node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
    value.replace_all_uses_with(node.outputs[0])
    graph.insert_before(graph[0], node)


def _widen(graph: ir.Graph, site: WideSite) -> None:
    """Store a weight in codes of 16 bits."""
    values = float_values(graph.initializers[site.name])
    others = tuple(axis for axis in range(values.ndim) if axis != site.axis)
    scale = (np.abs(values).max(axis=others, keepdims=True) / _LARGEST_INT16).astype(np.float32)
    codes = np.rint(values / np.where(scale, scale, 1)).astype(np.int16)
    tensors = {weight_codes_name(site.name): codes, f"{site.name}_scale": scale.ravel()}
    _unpack(graph, site.name, tensors, site.axis)


def _unpack(graph: ir.Graph, name: str, tensors: Mapping[str, np.ndarray], axis: int) -> None:
    """Put codes * scale in the place of an initializer that no integer kernel reads.

    Onnxruntime folds these nodes when it loads the model. A DequantizeLinear would run each time, and keep
    the float kernel from ordering the weight beforehand: an LSTM takes 1.3 to 1.8 times as long with one.
    """
    value = graph.initializers[name]
    assert value.shape is not None
    codes, scale = (
        make_initializer(graph, part, tensors[part]) for part in (weight_codes_name(name), f"{name}_scale")
    )
    nodes: list[ir.Node] = []

    def add(op_type: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
        node = ir.node(op_type, inputs, attributes, name=f"{inputs[0].name}_unpack_{op_type}")
        node.outputs[0].name = f"{inputs[0].name}_unpack_{op_type.lower()}"
        nodes.append(node)
        return node.outputs[0]

    def reshape(source: ir.Value, sizes: Sequence[int]) -> ir.Value:
        shape = new_initializer(graph, f"{source.name}_shape", np.array(sizes, dtype=np.int64))
        return add("Reshape", [source, shape])

    by_channel = [-1 if at == axis else 1 for at in range(tensors[weight_codes_name(name)].ndim)]
    floats = add("Cast", [codes], to=ir.DataType.FLOAT)
    product = add("Mul", [floats, reshape(scale, by_channel) if scale.shape else scale])
    weight = reshape(product, value.shape.numpy())
    weight.shape, weight.type = value.shape, value.type
    value.replace_all_uses_with(weight)
    graph.insert_before(graph[0], nodes)


def _gather_codes(graph: ir.Graph, gather: ir.Node, codes: ir.Value, parameters: list[ir.Value]) -> None:
    """Look up the codes of a table and dequantize what is found, not the whole table in every run."""
    found = gather.outputs[0]
    name = gather.name
    # Where a Transpose follows a DequantizeLinear of int8, onnxruntime puts a QuantizeLinear behind it, with
    # codes of uint8 and, from opset 21 on, an attribute that says int8; it then refuses to load the model.
    typed = graph.opset_imports.get("", 0) >= TYPED_CODES and codes.dtype == ir.DataType.INT8
    if typed or parameters[0].shape:
        cast = ir.node("Cast", [found], {"to": ir.DataType.FLOAT}, name=f"{name}_Cast")
        cast.outputs[0].name = f"{found.name}_cast"
        nodes = [cast, *_scale_of_rows(graph, gather, codes, parameters[0])]
        scale = nodes[-1].outputs[0] if len(nodes) > 1 else parameters[0]
        nodes.append(ir.node("Mul", [cast.outputs[0], scale], name=f"{name}_Mul"))
    else:
        nodes = [ir.node("DequantizeLinear", [found, *parameters], name=f"{name}_DequantizeLinear")]
    result = nodes[-1].outputs[0]
    result.shape, result.type = found.shape, found.type
    found.replace_all_uses_with(result, replace_graph_outputs=True)
    nodes[0].replace_input_with(0, found)
    result.name, found.name = found.name, f"{found.name}_rows"
    found.type = ir.TensorType(codes.type.dtype) if codes.type is not None else None
    gather.replace_input_with(0, codes)
    graph.insert_after(gather, nodes)


def _scale_of_rows(graph: ir.Graph, gather: ir.Node, codes: ir.Value, scale: ir.Value) -> list[ir.Node]:
    """What looks up the scales of the rows of a table; nothing where these share one."""
    if not scale.shape:
        return []
    assert codes.shape is not None
    name = f"{gather.outputs[0].name}_rows"
    axes = new_initializer(graph, f"{name}_axes", np.arange(1 - len(codes.shape), 0))
    looked_up = ir.node("Gather", [scale, gather.inputs[1]], name=f"{gather.name}_scale")
    spread = ir.node("Unsqueeze", [looked_up.outputs[0], axes], name=f"{gather.name}_Unsqueeze")
    looked_up.outputs[0].name, spread.outputs[0].name = f"{name}_scale", f"{name}_scale_spread"
    return [looked_up, spread]
