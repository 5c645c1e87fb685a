"""Move scales of channels from the input of layers into their weights.

The divisors go, in this order, into

1. the gain and bias of the LayerNormalization that writes the value, where only these layers read it;
2. the weight and bias of the layer that writes it, also through a Relu, where only these layers read it and
   the weight has a scale per output channel, which takes up the factor without loss;
3. the constants of the Mul and Add that write it, but for the last one of a GELU, which is fused as a whole;
4. a Mul in front of the quantizer, for dense layers.

The layers are dense ones and depthwise convolutions. In these every channel has a scale of its own anyway, so
that the weight loses nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import constant, float_values, new_initializer
from onnx_lapq.graph.layer_kinds import LayerKind, kind_of
from onnx_lapq.graph.placement.operators import is_rectifier
from onnx_lapq.graph.placement.sites import ActivationSite, Placement, WeightSite
from onnx_lapq.graph.simplify.idioms.affine_steps import affine_step, read_by_one
from onnx_lapq.graph.simplify.idioms.changing import replace_constant
from onnx_lapq.graph.simplify.idioms.steps_before_layers import ends_a_fusion

__all__ = [
    "CHANNELS",
    "Product",
    "WrittenImage",
    "divide",
    "insert_factors",
    "of_channels",
    "products",
    "scalable_layer",
    "written_images",
]

CHANNELS = 1
"""Axis of the channels of an image."""
_LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Product:
    """A value that layers read through one quantizer.

    Attributes:
        value: The value.
        axis: Its axis of channels: 1 of images, else the last.
        layers: All layers that read the quantizer.
        bits: Of the quantizer.
        weights: Quantizers of the layers' weights; None where one stays in float.
        writers: Constants, by node and input, that scale the value's channels; empty where a Mul has to.
    """

    value: ir.Value
    axis: int
    layers: tuple[LayerKind, ...]
    bits: int
    weights: tuple[WeightSite | None, ...]
    writers: tuple[tuple[ir.Node, int], ...]


@dataclass(frozen=True, eq=False)
class WrittenImage:
    """An image, [N, C, *spatial], behind a quantizer of its own.

    Attributes:
        site: The quantizer.
        value: The image.
        channels: C.
        writers: See `Product`; at least one.
    """

    site: ActivationSite
    value: ir.Value
    channels: int
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
        layers = tuple(
            layer for node, index in edges if index == 0 and (layer := scalable_layer(node)) is not None
        )
        axes = {_data_axis(layer) for layer in layers}
        alike = len({layer.shape[2:] for layer in layers}) == len(axes) == 1
        if site.searched and not site.moved and site.after is None and len(layers) == len(edges) > 0:
            written = () if site.edges else tuple(_writers(value, max(axes), weights))
            if alike and (written or _takes_a_node(value, max(axes))):
                own = tuple(weights.get(layer.node.name or "") for layer in layers)
                found.append(Product(value, max(axes), layers, site.bits, own, written))
    return found


def divide(graph: ir.Graph, product: Product, divisors: FloatArray) -> None:
    """Divide the channels of a value and multiply the weights that meet them, in place.

    Args:
        graph: Where the product stands.
        product: As `products` found it.
        divisors: float64 [channels], > 0.
    """
    for layer in product.layers:
        factors = _along(len(layer.shape), _input_axis(layer), divisors)
        replace_constant(
            graph, layer.node, layer.weight_index, float_values(layer.weight) * factors, "weight"
        )
    if product.writers:
        for node, index in product.writers:
            _divide_constant(graph, node, index, product.axis, divisors)
    else:
        readers = [(layer.node, 0) for layer in product.layers]
        insert_factors(graph, product.value, (1 / divisors).astype(np.float32), readers)


def _writers(value: ir.Value, axis: int, weights: Mapping[str, WeightSite]) -> Iterator[tuple[ir.Node, int]]:
    """The constants, by node and input, that scale the channels of a value; none where there are not any.

    Args:
        value: Of a prepared model.
        axis: Its axis of channels.
        weights: Quantizers of weights, by the names of their layers.
    """
    producer = value.producer()
    if producer is None or value.is_graph_output():
        return
    if producer.op_type == "LayerNormalization" and producer.domain == "":
        scaled = [index for index in (1, 2) if index < len(producer.inputs) and producer.inputs[index]]
        if axis == -1 and 1 in scaled and all(_is_vector(value, producer.inputs[index]) for index in scaled):
            yield from ((producer, index) for index in scaled)
        return
    found = list(_layer_writers(_before_relu(producer), axis, weights))
    yield from found or _step_writers(value, axis)


def insert_factors(
    graph: ir.Graph, value: ir.Value, factors: np.ndarray, readers: Sequence[tuple[ir.Node, int]]
) -> ir.Node:
    """Let some readers of a value read it times constant factors, in place; gives the Mul.

    Args:
        graph: Where they stand.
        value: The value.
        factors: float32, of a shape that broadcasts.
        readers: Nodes, each with its input that reads the value.
    """
    taken = set(ir.convenience.create_value_mapping(graph))
    name = f"{value.name}_scaled"
    while name in taken or f"{name}_factors" in taken:
        name += "_"
    stored = new_initializer(graph, f"{name}_factors", factors)
    node = ir.node("Mul", [value, stored], name=f"{name}_Mul")
    scaled = node.outputs[0]
    scaled.name, scaled.shape, scaled.type = name, value.shape, value.type
    for reader, index in readers:
        reader.replace_input_with(index, scaled)
    first = {reader for reader, _ in readers}
    graph.insert_before(next(reader for reader in graph if reader in first), node)
    return node


def of_channels(image: ir.Value, numbers: FloatArray) -> np.ndarray:
    """A number for each channel, float32, in a shape that an image, [N, C, *spatial], meets."""
    assert image.shape is not None
    return _along(len(image.shape), CHANNELS, numbers).astype(np.float32)


def written_images(model: ir.Model, placement: Placement) -> Iterator[WrittenImage]:
    """The images behind a quantizer of their own whose channels constants scale.

    Args:
        model: A prepared model.
        placement: Its quantizers.
    """
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    weights = {name: site for site in placement.weights for name in site.layers}
    for site in placement.activations:
        value = values[site.value]
        channels = _channels_of(value)
        if channels is None or site.moved or site.is_wide or site.after is not None:
            continue
        written = tuple(_writers(value, CHANNELS, weights))
        if written:
            yield WrittenImage(site, value, channels, written)


def _channels_of(image: ir.Value) -> int | None:
    """How many channels an image has; None where that is not known, or it is no image."""
    size = None if image.shape is None or len(image.shape) <= CHANNELS + 1 else image.shape[CHANNELS]
    return size if isinstance(size, int) else None


def scalable_layer(node: ir.Node) -> LayerKind | None:
    """The node as a layer whose weight may take factors on its input channels."""
    layer = kind_of(node)
    weight = None if layer is None or node.op_type not in _LAYERS else layer.weight
    if layer is None or weight is None or not read_by_one(weight):
        return None
    fits = layer.is_depthwise if node.op_type == "Conv" else len(layer.shape) == 2
    return layer if layer.weight_index == 1 and layer.is_product and fits else None


def _data_axis(layer: LayerKind) -> int:
    return CHANNELS if layer.node.op_type == "Conv" else -1


def _input_axis(layer: LayerKind) -> int:
    """Axis of the weight that has an entry for each input channel."""
    return 0 if layer.is_depthwise else 1 - layer.axis


def _takes_a_node(value: ir.Value, axis: int) -> bool:
    """Whether a Mul may stand in front of the quantizer: not on images, nor between it and a rectifier."""
    producer = value.producer()
    return axis == -1 and not (producer is not None and is_rectifier(producer))


def _before_relu(node: ir.Node) -> ir.Node | None:
    """What a Relu alone reads, or the node itself where it is none."""
    if node.op_type != "Relu":
        return node
    before = node.inputs[0]
    return before.producer() if before is not None and read_by_one(before) else None


def _layer_writers(
    producer: ir.Node | None, axis: int, weights: Mapping[str, WeightSite]
) -> Iterator[tuple[ir.Node, int]]:
    """The weight and the bias of the layer that writes a value, as one node or as MatMul and Add."""
    layer = None if producer is None else kind_of(producer)
    if producer is not None and producer.op_type == "Add":
        before = [value.producer() for value in producer.inputs if value is not None]
        kinds = [kind for node in before if node is not None and (kind := kind_of(node)) is not None]
        layer = next((kind for kind in kinds if (kind.bias_edge() or (None,))[0] is producer), None)
    if layer is None or layer.node.op_type not in _LAYERS or layer.weight is None or not layer.is_product:
        return
    site, edge = weights.get(layer.node.name or ""), layer.bias_edge()
    if site is None or not site.per_channel or not read_by_one(layer.weight) or _data_axis(layer) != axis:
        return
    bias = edge[0].inputs[edge[1]] if edge is not None and len(edge[0].inputs) > edge[1] else None
    if bias is not None and constant(bias) is None:
        return
    yield layer.node, layer.weight_index
    if edge is not None and bias is not None:
        yield edge


def _step_writers(value: ir.Value, axis: int) -> Iterator[tuple[ir.Node, int]]:
    """The constants of a Mul, or of a Mul and an Add behind it, that write a value."""
    found = []
    while (step := _constant_step(value, axis)) is not None:
        node, index = step
        found.append(step)
        if node.op_type == "Mul":
            whole = affine_step(node)
            yield from found if whole is None or not ends_a_fusion(whole) else ()
            return
        before = node.inputs[1 - index]
        if before is None or not read_by_one(before):
            return
        value = before


def _constant_step(value: ir.Value, axis: int) -> tuple[ir.Node, int] | None:
    """The Mul or Add of a number, or of one per channel, that writes a value, and where the constant is."""
    node = value.producer()
    if node is None or node.domain != "" or node.op_type not in ("Add", "Mul") or value.shape is None:
        return None
    for index, operand in enumerate(node.inputs):
        tensor = constant(operand)
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT:
            rank, channels = len(value.shape), value.shape[axis]
            shape = (1,) * (rank - len(tensor.shape)) + tuple(tensor.shape.numpy())
            others = [size for at, size in enumerate(shape) if at != axis % rank]
            if len(shape) == rank and all(size == 1 for size in others) and shape[axis] in (1, channels):
                return node, index
    return None


def _is_vector(value: ir.Value, parameter: ir.Value | None) -> bool:
    """Whether a parameter is a constant with one number for each channel of a value."""
    tensor = constant(parameter)
    last = value.shape[-1] if value.shape is not None and len(value.shape) else None
    return tensor is not None and tensor.shape.numpy() == (last,)


def _along(rank: int, axis: int, numbers: FloatArray) -> FloatArray:
    """Numbers that broadcast along one axis."""
    return numbers.reshape([-1 if at == axis % rank else 1 for at in range(rank)])


def _divide_constant(graph: ir.Graph, node: ir.Node, index: int, axis: int, divisors: FloatArray) -> None:
    layer, values = kind_of(node), float_values(node.inputs[index])
    if layer is not None and index == layer.weight_index:
        divisors = _along(values.ndim, layer.axis, divisors)
    elif layer is None and axis == 1:  # a step on an image: its output has the rank
        shape = node.outputs[0].shape
        assert shape is not None
        divisors = _along(len(shape), axis, divisors)
    replace_constant(graph, node, index, values / divisors, "scaled")
