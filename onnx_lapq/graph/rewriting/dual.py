"""DUAL: the weights that low bits represent worst become sums of two low-bit tensors.

docs/method.md, "Baselines".

``y = W x + b`` becomes ``y = (W1 x + b) + W2 x``, where ``W1`` is ``W`` rounded and ``W2`` what that leaves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, new_initializer
from onnx_lapq.graph.layer_kinds import kind_of
from onnx_lapq.graph.placement.sites import WeightSite
from onnx_lapq.graph.simplify.biases import give_layers_a_bias
from onnx_lapq.method.outliers import residual
from onnx_lapq.method.quantizer import Grid

__all__ = ["double_worst_weights"]

_SHARE = 0.1
"""Share of the weights that are doubled; at least one is."""


@dataclass(frozen=True)
class _Doubled:
    node: ir.Node
    rest: np.ndarray
    error: float


def double_worst_weights(model: ir.Model, sites: Sequence[WeightSite]) -> list[str]:
    """Give the layers with the largest relative rounding errors a second weight, in place.

    Args:
        model: A prepared model. It computes the same as before, to float rounding.
        sites: Its weight quantizers.

    Returns:
        Names of the layers that were changed: Conv, ConvTranspose or Gemm that alone read their weight.
    """
    nodes = {node.name: node for node in model.graph}
    fit = [site for site in sites if len(site.layers) == 1 and _has_bias_input(nodes[site.layers[0]])]
    candidates = [_doubled(nodes[site.layers[0]], site) for site in fit]
    candidates.sort(key=lambda candidate: -candidate.error)
    worst = candidates[: math.ceil(_SHARE * len(candidates))]
    for candidate in worst:
        _double(model.graph, candidate)
    give_layers_a_bias(model)
    return [candidate.node.name or "" for candidate in worst]


def _has_bias_input(node: ir.Node) -> bool:
    layer = kind_of(node)
    return layer is not None and layer.bias_index is not None


def _doubled(node: ir.Node, site: WeightSite) -> _Doubled:
    tensor = constant(node.inputs[1])
    assert tensor is not None
    values = np.ascontiguousarray(tensor.numpy(), dtype=np.float32)
    moved = np.moveaxis(values, site.axis, 0)
    rest = residual(
        moved.reshape(len(moved), -1), Grid(bits=site.bits, signed=True), per_channel=site.per_channel
    )
    power = float(np.square(values, dtype=np.float64).sum())
    error = float(np.square(rest, dtype=np.float64).sum()) / power if power else 0.0
    return _Doubled(node, np.moveaxis(rest.reshape(moved.shape), 0, site.axis), error)


def _double(graph: ir.Graph, doubled: _Doubled) -> None:
    node, rest = doubled.node, np.ascontiguousarray(doubled.rest)
    weight, output = node.inputs[1], node.outputs[0]
    assert weight is not None
    tensor = constant(weight)
    assert tensor is not None
    weight.const_value = ir.tensor(tensor.numpy().astype(np.float32) - rest)
    inputs = [node.inputs[0], new_initializer(graph, f"{weight.name}_rest", rest)]
    second = ir.Node("", node.op_type, inputs, list(node.attributes.values()), name=f"{node.name}_rest")
    total = ir.node("Add", [output, second.outputs[0]], name=f"{node.name}_sum")
    name = output.name
    for value, ending in ((output, "_first"), (second.outputs[0], "_rest"), (total.outputs[0], "")):
        value.name, value.shape, value.type = f"{name}{ending}", output.shape, output.type
    readers = [(reader, index) for reader, index in output.uses() if reader is not total]
    graph.insert_after(node, [second, total])
    for reader, index in readers:
        reader.replace_input_with(index, total.outputs[0])
    graph.outputs[:] = [total.outputs[0] if value is output else value for value in graph.outputs]
