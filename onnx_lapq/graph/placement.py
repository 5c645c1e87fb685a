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

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir as ir

from onnx_lapq.errors import ModelError
from onnx_lapq.graph import operators

__all__ = ["ActivationSite", "Placement", "PlacementOptions", "WeightSite", "place"]

FLOAT_BITS = 32
GLUE_BITS = 8
FIRST_LAST_BITS = 8

Edge = tuple[str, int]
"""A node's name and the index of one of its inputs."""


@dataclass(frozen=True)
class PlacementOptions:
    """What the user asked for; 32 bits means "leave in float"."""

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = False
    first_last: Literal["8", "float", "same"] = "8"
    policy: Literal["integer", "paper"] = "integer"


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
class Placement:
    """All quantizers of a network, in topological order."""

    weights: tuple[WeightSite, ...]
    activations: tuple[ActivationSite, ...]
    layers: tuple[str, ...]


def place(model: ir.Model, options: PlacementOptions) -> Placement:
    """Choose the tensors to quantize.

    Args:
        model: A prepared model.
        options: Bits, granularity and policy.

    Raises:
        ModelError: There is nothing to quantize.
    """
    bits = _LayerBits(model, options)
    chooser = _paper_sites if options.policy == "paper" else _integer_sites
    activations = tuple(chooser(model, bits)) if options.activation_bits != FLOAT_BITS else ()
    read = _quantizer_of_edges(model, activations)
    weights = tuple(
        replace(site, input_site=read.get((site.layers[0], 0)) if len(site.layers) == 1 else None)
        for site in _weight_sites(model, bits, options.per_channel)
    )
    if not weights and not any(site.searched for site in activations):
        raise ModelError(
            "nothing to quantize: the graph has no Conv, ConvTranspose, Gemm, MatMul or embedding Gather "
            "with constant float weights that the options leave in"
        )
    return Placement(weights, activations, tuple(_node_name(node) for node in bits.layers))


def _quantizer_of_edges(model: ir.Model, sites: tuple[ActivationSite, ...]) -> dict[Edge, str]:
    """The quantizer that every edge reads, where there is one."""
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    read: dict[Edge, str] = {}
    for site in sites:
        carriers = () if site.edges else (site.value, *site.moved)
        users = [(_node_name(node), index) for name in carriers for node, index in values[name].uses()]
        read.update(dict.fromkeys([*users, *site.edges], site.name))
    return read


class _LayerBits:
    """Bits of every compute layer's weight and input, with first and last layers treated apart."""

    def __init__(self, model: ir.Model, options: PlacementOptions) -> None:
        self.layers = [node for node in model.graph if _is_layer(node)]
        compute = set(self.layers)
        upstream = _reached(model.graph, compute, forward=True)
        downstream = _reached(model.graph, compute, forward=False)
        self._options = options
        self._ends = {node for node in self.layers if node not in upstream or node not in downstream}
        self.before_a_layer = downstream

    def weight(self, node: ir.Node) -> int:
        return self._of(node, self._options.weight_bits)

    def activation(self, node: ir.Node) -> int:
        return self._of(node, self._options.activation_bits)

    def _of(self, node: ir.Node, asked: int) -> int:
        if asked == FLOAT_BITS or node not in self._ends or self._options.first_last == "same":
            return asked
        return FLOAT_BITS if self._options.first_last == "float" else FIRST_LAST_BITS


def _is_layer(node: ir.Node) -> bool:
    if operators.weight_input(node) is not None:
        return True
    return node.domain == "" and node.op_type == "MatMul" and len(operators.activation_inputs(node)) == 2


def _reached(graph: ir.Graph, sources: set[ir.Node], *, forward: bool) -> set[ir.Node]:
    """Nodes with a source strictly before (forward) or after (backward) them."""
    reached: set[ir.Node] = set()
    for node in graph if forward else reversed(graph):
        neighbours = node.predecessors() if forward else node.successors()
        if any(other in reached or other in sources for other in neighbours):
            reached.add(node)
    return reached


def _weight_sites(model: ir.Model, bits: _LayerBits, per_channel: bool) -> Iterator[WeightSite]:
    readers: dict[str, list[ir.Node]] = {}
    for node in bits.layers:
        index = operators.weight_input(node)
        if index is not None and bits.weight(node) != FLOAT_BITS:
            readers.setdefault(_name(node.inputs[index]), []).append(node)
    for name, nodes in readers.items():
        if model.graph.initializers[name].uses() and _only_read_by(model.graph.initializers[name], nodes):
            layers = tuple(_node_name(node) for node in nodes)
            channels = per_channel and all(node.op_type != "Gather" for node in nodes)
            most = max(bits.weight(node) for node in nodes)
            yield WeightSite(name, layers, most, operators.weight_axis(nodes[0]), channels)


def _only_read_by(value: ir.Value, nodes: list[ir.Node]) -> bool:
    axes = {operators.weight_axis(node) for node in nodes}
    return len(axes) == 1 and all(user in nodes for user, _ in value.uses())


def _integer_sites(model: ir.Model, bits: _LayerBits) -> Iterator[ActivationSite]:
    for root, members in _movement_classes(model):
        if not operators.is_activation(root):
            continue
        wanted: dict[tuple[str, int], list[Edge]] = {}
        for member in members:
            for node, index in member.uses():
                if _takes_activation(node, index):
                    wanted.setdefault((_name(member), bits.activation(node)), []).append(
                        (_node_name(node), index)
                    )
        wanted = {key: edges for key, edges in wanted.items() if key[1] != FLOAT_BITS}
        yield from _sites_of_class(root, members, wanted, _needs_glue(root, members, bits, bool(wanted)))


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


def _needs_glue(root: ir.Value, members: list[ir.Value], bits: _LayerBits, wanted: bool) -> bool:
    """Whether a reader other than a compute layer wants 8-bit codes, or an integer producer writes them."""
    readers = [(node, index) for member in members for node, index in member.uses()]
    others = [
        node for node, index in readers if not _takes_activation(node, index) and not _moves(node, index)
    ]
    if any(_is_arithmetic(node, bits) for node in others):
        return True
    producer = root.producer()
    if producer is not None and operators.is_rectifier(producer):
        producer = _first_input(producer).producer()
    by_integers = producer is not None and (
        producer.op_type in ("Conv", "ConvTranspose") or _is_arithmetic(producer, bits)
    )
    return bool(others) if wanted else by_integers and bool(readers)


def _is_arithmetic(node: ir.Node, bits: _LayerBits) -> bool:
    if node.domain != "" or node.op_type not in operators.ARITHMETIC or node not in bits.before_a_layer:
        return False
    return len(operators.activation_inputs(node)) == len(node.inputs)


def _takes_activation(node: ir.Node, index: int) -> bool:
    return _is_layer(node) and index in operators.activation_inputs(node)


def _moves(node: ir.Node, index: int) -> bool:
    return index == 0 and operators.is_data_movement(node)


def _movement_classes(model: ir.Model) -> Iterator[tuple[ir.Value, list[ir.Value]]]:
    """Values that carry the same elements, each with its root first; rectifier inputs are left out."""
    roots = [*model.graph.inputs, *(out for node in model.graph for out in node.outputs)]
    for root in roots:
        producer = root.producer()
        if producer is not None and operators.is_data_movement(producer):
            continue
        if _is_absorbed(root):
            continue
        members = [root]
        for member in members:
            members.extend(node.outputs[0] for node, index in member.uses() if _moves(node, index))
        yield root, members


def _is_absorbed(value: ir.Value) -> bool:
    """Whether a rectifier is the value's only reader, so that the quantizer sits behind the rectifier."""
    uses = list(value.uses())
    return len(uses) == 1 and operators.is_rectifier(uses[0][0]) and not value.is_graph_output()


def _paper_sites(model: ir.Model, bits: _LayerBits) -> Iterator[ActivationSite]:
    for root, members in _movement_classes(model):
        producer = root.producer()
        if producer is None or not operators.is_rectifier(producer):
            continue
        widths = {bits.activation(node) for node in _layer_readers(members)} - {FLOAT_BITS}
        if widths:
            yield ActivationSite(
                _name(root), _name(root), max(widths), True, maximum=_rectifier_maximum(root)
            )


def _layer_readers(members: Iterable[ir.Value]) -> Iterator[ir.Node]:
    for member in members:
        for node, index in member.uses():
            if _takes_activation(node, index):
                yield node


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
