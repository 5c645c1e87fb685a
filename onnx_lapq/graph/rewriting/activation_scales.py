"""Move scales of channels from the input of dense layers into their weights.

The divisors go, in this order, into

1. the gain and bias of the LayerNormalization that writes the value, where only these layers read it;
2. the weight and bias of the dense layer that writes it, also through a Relu, where only these layers read
   it and the weight has a scale per output channel, which takes up the factor without loss;
3. a Mul in front of the quantizer.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import constant, float_values, new_initializer
from onnx_lapq.graph.layer_kinds import LayerKind, kind_of
from onnx_lapq.graph.placement.operators import is_rectifier, rectifier_maximum
from onnx_lapq.graph.placement.sites import Placement, WeightSite
from onnx_lapq.graph.simplify.idioms.affine_steps import read_by_one
from onnx_lapq.graph.simplify.idioms.changing import replace_constant

__all__ = ["Product", "divide", "products"]

_DENSE = ("Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Product:
    """A value that dense layers read through one quantizer.

    Attributes:
        value: The value, [..., channels].
        layers: All layers that read the quantizer.
        bits: Of the quantizer.
        weights: Quantizers of the layers' weights; None where one stays in float.
        writers: Constants, by node and input, that scale the value's channels; empty where a Mul has to.
    """

    value: ir.Value
    layers: tuple[LayerKind, ...]
    bits: int
    weights: tuple[WeightSite | None, ...]
    writers: tuple[tuple[ir.Node, int], ...]


def products(model: ir.Model, placement: Placement) -> list[Product]:
    """The values whose channels may be scaled.

    Args:
        model: A prepared model.
        placement: Its quantizers.
    """
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    nodes = {node.name: node for node in model.graph}
    weights = {name: site for site in placement.weights for name in site.layers}
    found = []
    for site in placement.activations:
        value = values[site.value]
        edges = [(nodes[name], index) for name, index in site.edges] or list(value.uses())
        layers = [kind_of(node) for node, index in edges if index == 0]
        if site.searched and not site.moved and site.after is None and len(layers) == len(edges) > 0:
            dense = tuple(layer for layer in layers if layer is not None and _is_dense(layer))
            if len(dense) == len(edges):
                own = tuple(weights.get(layer.node.name or "") for layer in dense)
                writers = tuple(_writers(value, weights)) if not site.edges else ()
                if writers or not _is_written_in_place(value):
                    found.append(Product(value, dense, site.bits, own, writers))
    return found


def divide(graph: ir.Graph, product: Product, divisors: FloatArray) -> None:
    """Divide the channels of a value and multiply the weights that meet them, in place.

    Args:
        graph: Where the product stands.
        product: As `products` found it.
        divisors: float64 [channels], > 0.
    """
    for layer in product.layers:
        _, ones = layer.channel_shapes(1 - layer.axis)
        values = float_values(layer.weight) * divisors.reshape(ones)
        replace_constant(graph, layer.node, layer.weight_index, values, "weight")
    if product.writers:
        for node, index in product.writers:
            _divide_constant(graph, node, index, divisors)
    else:
        _multiply(graph, product, 1 / divisors)


def _is_dense(layer: LayerKind) -> bool:
    """Whether the layer is a product with one matrix that nothing else reads."""
    weight = layer.weight if layer.node.op_type in _DENSE else None
    alone = weight is not None and read_by_one(weight)
    return alone and layer.weight_index == 1 and layer.is_product and len(layer.shape) == 2


def _is_written_in_place(value: ir.Value) -> bool:
    """Whether the quantizer absorbs a rectifier, which a Mul would keep from it."""
    producer = value.producer()
    return producer is not None and is_rectifier(producer)


def _writers(value: ir.Value, weights: dict[str, WeightSite]) -> Iterator[tuple[ir.Node, int]]:
    producer = value.producer()
    if producer is None or value.is_graph_output():
        return
    if producer.op_type == "LayerNormalization" and producer.domain == "":
        scaled = [index for index in (1, 2) if index < len(producer.inputs) and producer.inputs[index]]
        if 1 in scaled and all(_is_vector(value, producer.inputs[index]) for index in scaled):
            yield from ((producer, index) for index in scaled)
        return
    if producer.op_type == "Relu" and np.isinf(rectifier_maximum(producer)):
        before = producer.inputs[0]
        if before is None or not read_by_one(before):
            return
        producer = before.producer()
    yield from _dense_writers(producer, weights)


def _dense_writers(producer: ir.Node | None, weights: dict[str, WeightSite]) -> Iterator[tuple[ir.Node, int]]:
    """The weight and the bias of the dense layer that writes a value, as Gemm or as MatMul and Add."""
    layer = None if producer is None else kind_of(producer)
    if producer is not None and producer.op_type == "Add":
        before = [value.producer() for value in producer.inputs if value is not None]
        kinds = [kind for node in before if node is not None and (kind := kind_of(node)) is not None]
        layer = next((kind for kind in kinds if (kind.bias_edge() or (None,))[0] is producer), None)
    if layer is None or not _is_dense(layer):
        return
    site, edge = weights.get(layer.node.name or ""), layer.bias_edge()
    if site is None or not site.per_channel:
        return
    yield layer.node, layer.weight_index
    if edge is not None and len(edge[0].inputs) > edge[1]:
        yield edge


def _is_vector(value: ir.Value, parameter: ir.Value | None) -> bool:
    """Whether a parameter is a constant with one number for each channel of a value."""
    tensor = constant(parameter)
    last = value.shape[-1] if value.shape is not None and len(value.shape) else None
    return tensor is not None and tensor.shape.numpy() == (last,)


def _divide_constant(graph: ir.Graph, node: ir.Node, index: int, divisors: FloatArray) -> None:
    layer = kind_of(node)
    if layer is not None and index == layer.weight_index:
        divisors = divisors.reshape(layer.channel_shapes(layer.axis)[1])
    replace_constant(graph, node, index, float_values(node.inputs[index]) / divisors, "scaled")


def _multiply(graph: ir.Graph, product: Product, factors: FloatArray) -> None:
    value = product.value
    taken = set(ir.convenience.create_value_mapping(graph))
    name = f"{value.name}_scaled"
    while name in taken or f"{name}_factors" in taken:
        name += "_"
    stored = new_initializer(graph, f"{name}_factors", factors.astype(np.float32))
    node = ir.node("Mul", [value, stored], name=f"{name}_Mul")
    scaled = node.outputs[0]
    scaled.name, scaled.shape, scaled.type = name, value.shape, value.type
    for layer in product.layers:
        layer.node.replace_input_with(0, scaled)
    readers = {layer.node for layer in product.layers}
    graph.insert_before(next(reader for reader in graph if reader in readers), node)
