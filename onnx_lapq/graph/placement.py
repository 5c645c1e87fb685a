"""Decide which tensors get a quantizer: `place` reads the prepared graph and returns a `Placement`.

Placement ``integer`` (DESIGN.md section 3), so that the graph runs on integers end to end:

1. *Searched* quantizers: the constant weights of compute layers, and every activation that enters one,
   at the bits asked for.
2. *Glue* quantizers, 8 bits: every activation that enters an arithmetic node before the last compute
   layer, or that such a node or a convolution writes for readers other than compute layers.
3. Nodes that only move data (MaxPool, Reshape, ...) share the quantizer of the value they move.
4. A value that is wanted both as glue and at fewer bits gets the glue quantizer first and the searched
   one behind it, on the edge into the compute layer only.

Placement ``paper`` (section 5.1 of the paper): weights of compute layers, and rectifier outputs that
feed one; everything else stays in float.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_lapq.errors import ModelError
from onnx_lapq.graph import operators
from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.choice import FLOAT_BITS, LayerBits, PlacementOptions, is_layer
from onnx_lapq.graph.subgraphs import users

__all__ = ["ActivationSite", "FloatNode", "Placement", "WeightSite", "place"]

GLUE_BITS = 8

Edge = tuple[str, int]
"""A node's name and the index of one of its inputs."""


@dataclass(frozen=True)
class WeightSite:
    """A quantizer on a constant operand.

    Attributes:
        name: The initializer's name, which also names the quantizer.
        layers: Names of the nodes that read it.
        bits: 2 to 8.
        axis: Output-channel axis of the tensor.
        per_channel: One scale per output channel instead of one per tensor.
        input_site: The quantizer that its only layer reads, or None.
    """

    name: str
    layers: tuple[str, ...]
    bits: int
    axis: int
    per_channel: bool
    input_site: str | None = None


@dataclass(frozen=True)
class ActivationSite:
    """A quantizer on an activation.

    Attributes:
        name: Name of the quantizer, unique in the graph.
        value: The value whose distribution decides the grid and the scale.
        bits: 2 to 8.
        searched: Whether the joint optimisation moves its step size; False for glue.
        after: Name of the glue quantizer that this one is chained behind, or None.
        moved: Values that carry the same codes, moved by data-movement nodes; they share the scale.
        edges: The edges that read this quantizer; empty means every reader of the value.
        maximum: Upper limit of a rectifier that the quantizer absorbs (6 for Relu6), else infinity.
    """

    name: str
    value: str
    bits: int
    searched: bool
    after: str | None = None
    moved: tuple[str, ...] = ()
    edges: tuple[Edge, ...] = ()
    maximum: float = float("inf")


@dataclass(frozen=True)
class FloatNode:
    """A node that computes in float."""

    name: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class Placement:
    """All quantizers of a network, in topological order, and the nodes that none of them reaches."""

    weights: tuple[WeightSite, ...]
    activations: tuple[ActivationSite, ...]
    layers: tuple[str, ...]
    in_float: tuple[FloatNode, ...] = ()

    def bits_of_edges(self, model: ir.Model) -> dict[Edge, int]:
        """Bits of the codes that every quantized edge of the model carries."""
        bits = {site.name: site.bits for site in self.activations}
        read = _quantizer_of_edges(model.graph, users(model.graph), self.activations)
        return {edge: bits[site] for edge, site in read.items()}


def place(model: ir.Model, options: PlacementOptions) -> Placement:
    """Choose the tensors to quantize.

    Args:
        model: A prepared model.
        options: Bits, granularity, policy and choice of nodes.

    Raises:
        ModelError: There is nothing to quantize.
        ConfigError: A pattern of the options matches no node.
    """
    bits = LayerBits(model, options)
    network = _Network(model, bits)
    chooser = _paper_sites if options.policy == "paper" else _integer_sites
    activations = tuple(chooser(network)) if _any_activation(bits) else ()
    read = _quantizer_of_edges(model.graph, users(model.graph), activations)
    weights = tuple(
        replace(site, input_site=read.get((site.layers[0], 0)) if len(site.layers) == 1 else None)
        for site in _weight_sites(network, options.per_channel)
    )
    if not weights and not any(site.searched for site in activations):
        raise ModelError(
            "nothing to quantize: the graph has no Conv, ConvTranspose, Gemm, MatMul or embedding Gather "
            "with constant float weights that the options leave in"
        )
    return Placement(
        weights,
        activations,
        tuple(_node_name(node) for node in bits.layers),
        tuple(_in_float(network, {site.name for site in weights}, set(read))),
    )


class _Network:
    """A graph with the readers of its values and the bits of its layers."""

    def __init__(self, model: ir.Model, bits: LayerBits) -> None:
        self.graph = model.graph
        self.bits = bits
        self._users = users(model.graph)

    def users(self, value: ir.Value) -> list[tuple[ir.Node, int]]:
        """Nodes that read a value, and at which input; -1 where a sub-graph of theirs does."""
        return self._users.get(value, [])

    def is_arithmetic(self, node: ir.Node) -> bool:
        """Whether the node runs on 8-bit codes between layers."""
        return (
            node.domain == ""
            and node.op_type in operators.ARITHMETIC
            and node in self.bits.before_a_layer
            and len(operators.activation_inputs(node)) == len(node.inputs)
            and self.bits.takes_part(node)
            and not operators.is_function_of_itself(node)
            and not self.feeds_softmax(node)
        )

    def feeds_softmax(self, node: ir.Node) -> bool:
        """Whether all that reads a node is a Softmax, at most behind other arithmetic.

        Masks reach down to minus infinity there, which no step size takes.
        """
        readers = [reader for value in node.outputs for reader, _ in self.users(value)]
        return bool(readers) and all(
            reader.op_type == "Softmax" or (reader.op_type in ("Add", "Mul") and self.feeds_softmax(reader))
            for reader in readers
        )


def _any_activation(bits: LayerBits) -> bool:
    return any(bits.activation(node) != FLOAT_BITS for node in bits.layers)


def _quantizer_of_edges(
    graph: ir.Graph, readers: Mapping[ir.Value, list[tuple[ir.Node, int]]], sites: tuple[ActivationSite, ...]
) -> dict[Edge, str]:
    """The quantizer that every edge reads, where there is one."""
    values = ir.convenience.create_value_mapping(graph, include_subgraphs=False)
    read: dict[Edge, str] = {}
    for site in sites:
        carriers = () if site.edges else (site.value, *site.moved)
        edges = [
            (_node_name(node), index) for name in carriers for node, index in readers.get(values[name], [])
        ]
        read.update(dict.fromkeys([*edges, *site.edges], site.name))
    return read


def _weight_sites(network: _Network, per_channel: bool) -> Iterator[WeightSite]:
    readers: dict[str, list[ir.Node]] = {}
    for node in network.bits.layers:
        index = operators.weight_input(node)
        if index is not None and network.bits.weight(node) != FLOAT_BITS:
            readers.setdefault(_name(node.inputs[index]), []).append(node)
    for name, nodes in readers.items():
        if _only_read_by(network, network.graph.initializers[name], nodes):
            layers = tuple(_node_name(node) for node in nodes)
            channels = per_channel and all(node.op_type != "Gather" for node in nodes)
            most = max(network.bits.weight(node) for node in nodes)
            yield WeightSite(name, layers, most, operators.weight_axis(nodes[0]), channels)


def _only_read_by(network: _Network, value: ir.Value, nodes: list[ir.Node]) -> bool:
    axes = {operators.weight_axis(node) for node in nodes}
    return (
        len(axes) == 1
        and all(user in nodes for user, _ in network.users(value))
        and not value.is_graph_output()
    )


def _integer_sites(network: _Network) -> Iterator[ActivationSite]:
    for root, members in _movement_classes(network):
        if not operators.is_activation(root):
            continue
        wanted: dict[tuple[str, int], list[Edge]] = {}
        for member in members:
            for node, index in network.users(member):
                width = _width(network, node, index)
                if width is not None:
                    wanted.setdefault((_name(member), width), []).append((_node_name(node), index))
        yield from _sites_of_class(root, members, wanted, _needs_glue(network, root, members, bool(wanted)))


def _width(network: _Network, node: ir.Node, index: int) -> int | None:
    """Bits that an edge asks for; None where it is not the quantized input of a layer."""
    if not _takes_activation(node, index):
        return None
    width = network.bits.activation(node)
    return None if width == FLOAT_BITS else width


def _sites_of_class(
    root: ir.Value, members: list[ir.Value], wanted: dict[tuple[str, int], list[Edge]], glue: bool
) -> Iterator[ActivationSite]:
    """One shared quantizer where all wishes agree, else glue first and the others chained behind it."""
    moved, maximum = tuple(_name(member) for member in members[1:]), _rectifier_maximum(root)
    widths = {width for _, width in wanted} | ({GLUE_BITS} if glue else set())
    if not widths:
        return
    shared = GLUE_BITS if len(widths) > 1 else widths.pop()
    searched = any(width == shared for _, width in wanted)
    yield ActivationSite(_name(root), _name(root), shared, searched, moved=moved, maximum=maximum)
    for (member, width), edges in wanted.items():
        if width != shared:
            yield ActivationSite(f"{member}:{width}bit", member, width, True, _name(root), edges=tuple(edges))


def _needs_glue(network: _Network, root: ir.Value, members: list[ir.Value], wanted: bool) -> bool:
    """Whether a reader other than a layer wants 8-bit codes, or an integer producer writes them."""
    readers = [reader for member in members for reader in network.users(member)]
    others = [
        node for node, index in readers if _width(network, node, index) is None and not _moves(node, index)
    ]
    if any(network.is_arithmetic(node) for node in others):
        return True
    producer = root.producer()
    if producer is not None and operators.is_rectifier(producer):
        producer = _first_input(producer).producer()
    by_integers = producer is not None and (
        _writes_codes(network, producer) or network.is_arithmetic(producer)
    )
    return bool(others) if wanted else by_integers and bool(readers)


def _writes_codes(network: _Network, node: ir.Node) -> bool:
    """Whether the integer kernel of a layer needs a quantizer behind it.

    Conv does. Gemm and MatMul write float as well, but a MatMul whose bias is a node of its own becomes a
    Gemm that does not.
    """
    if node.op_type == "Add" and node in network.bits.before_a_layer:
        producers = [
            value.producer() for value in node.inputs if value is not None and constant(value) is None
        ]
        return any(
            producer is not None and _has_weight(network, producer, "MatMul") for producer in producers
        )
    return any(_has_weight(network, node, kind) for kind in ("Conv", "ConvTranspose"))


def _has_weight(network: _Network, node: ir.Node, op_type: str) -> bool:
    return (
        node.op_type == op_type
        and operators.weight_input(node) is not None
        and network.bits.activation(node) != FLOAT_BITS
    )


def _takes_activation(node: ir.Node, index: int) -> bool:
    return is_layer(node) and index in operators.activation_inputs(node)


def _moves(node: ir.Node, index: int) -> bool:
    return index == 0 and operators.is_data_movement(node)


def _movement_classes(network: _Network) -> Iterator[tuple[ir.Value, list[ir.Value]]]:
    """Values that carry the same elements, each with its root first; rectifier inputs are left out."""
    roots = [*network.graph.inputs, *(out for node in network.graph for out in node.outputs)]
    for root in roots:
        producer = root.producer()
        if producer is not None and operators.is_data_movement(producer):
            continue
        if _is_absorbed(network, root):
            continue
        members = [root]
        for member in members:
            for node, index in network.users(member):
                members.extend(node.outputs if _moves(node, index) else ())
        yield root, members


def _is_absorbed(network: _Network, value: ir.Value) -> bool:
    """Whether a rectifier is the value's only reader, so that the quantizer sits behind the rectifier."""
    readers = network.users(value)
    return len(readers) == 1 and operators.is_rectifier(readers[0][0]) and not value.is_graph_output()


def _paper_sites(network: _Network) -> Iterator[ActivationSite]:
    for root, members in _movement_classes(network):
        producer = root.producer()
        if producer is None or not operators.is_rectifier(producer):
            continue
        found = [_width(network, *reader) for member in members for reader in network.users(member)]
        widths = [width for width in found if width is not None]
        if widths:
            yield ActivationSite(
                _name(root), _name(root), max(widths), True, maximum=_rectifier_maximum(root)
            )


def _in_float(network: _Network, weights: set[str], quantized: set[Edge]) -> Iterator[FloatNode]:
    """The nodes that compute in float, each with the reason."""
    for node in network.graph:
        reason = _why_float(network, node, weights, quantized)
        if reason is not None:
            yield FloatNode(_node_name(node), node.op_type, reason)


def _why_float(network: _Network, node: ir.Node, weights: set[str], quantized: set[Edge]) -> str | None:
    if node.domain != "":
        return f"operators of domain {node.domain!r} are not known"
    if node.op_type in operators.CONTROL_FLOW:
        return "control flow and its sub-graphs stay in float"
    if node.op_type in operators.RECURRENT:
        return "recurrent operators stay in float"
    if not any(operators.is_activation(value) for value in (*node.inputs, *node.outputs)):
        return None
    if not network.bits.takes_part(node):
        return "left out by the options"
    if is_layer(node):
        return _why_float_layer(network, node, weights, quantized)
    if operators.is_data_movement(node) or operators.is_rectifier(node) or network.is_arithmetic(node):
        return None
    if node.op_type in operators.COMPUTE:
        return "its weight is not a constant float tensor"
    if node.op_type not in operators.ARITHMETIC:
        return "onnxruntime has no integer kernel for it, or it is worth more in float"
    if node not in network.bits.before_a_layer:
        return "behind the last layer"
    if operators.is_function_of_itself(node):
        return "part of an activation function"
    if network.feeds_softmax(node):
        return "scores of a Softmax, which stays in float"
    return "one of its inputs is a constant"


def _why_float_layer(network: _Network, node: ir.Node, weights: set[str], quantized: set[Edge]) -> str | None:
    index = operators.weight_input(node)
    if index is not None and _name(node.inputs[index]) not in weights:
        if network.bits.weight(node) == FLOAT_BITS:
            return "32 bits asked for its weight"
        return "its weight is also read by a node that does not quantize it"
    if any((_node_name(node), place) not in quantized for place in operators.activation_inputs(node)):
        return "its input is not quantized"
    return None


def _rectifier_maximum(value: ir.Value) -> float:
    producer = value.producer()
    if producer is None or not operators.is_rectifier(producer):
        return float("inf")
    return operators.rectifier_maximum(producer)


def _first_input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _name(value: ir.Value | None) -> str:
    assert value is not None
    assert value.name is not None
    return value.name


def _node_name(node: ir.Node) -> str:
    assert node.name is not None
    return node.name
