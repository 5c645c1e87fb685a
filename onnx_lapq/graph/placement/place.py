"""Decide which tensors get a quantizer: `place` reads the prepared graph and returns a `Placement`.

Placement ``integer`` (docs/architecture.md, "Placement"), so that the graph runs on integers end to end:

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

from collections.abc import Iterator
from dataclasses import replace

import onnx_ir as ir

from onnx_lapq.errors import ModelError
from onnx_lapq.graph.placement import operators
from onnx_lapq.graph.placement.options import FLOAT_BITS, LayerBits, PlacementOptions, is_layer
from onnx_lapq.graph.placement.roles import Edge, Roles, in_float, name_of
from onnx_lapq.graph.placement.sites import ActivationSite, Placement, WeightSite, quantizer_of_edges
from onnx_lapq.graph.simplify.biases import bias_edge
from onnx_lapq.graph.subgraphs import users

__all__ = ["place"]

GLUE_BITS = 8


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
    roles = Roles(model, bits)
    chooser = _paper_sites if options.policy == "paper" else _integer_sites
    activations = tuple(chooser(roles)) if _any_activation(bits) else ()
    read = quantizer_of_edges(model.graph, users(model.graph), activations)
    weights = tuple(
        replace(site, input_site=read.get((site.layers[0], 0)) if len(site.layers) == 1 else None)
        for site in _weight_sites(roles, options.per_channel)
    )
    if not weights and not any(site.searched for site in activations):
        raise ModelError(
            "nothing to quantize: the graph has no Conv, ConvTranspose, Gemm, MatMul or embedding Gather "
            "with constant float weights that the options leave in"
        )
    return Placement(
        weights,
        activations,
        tuple(name_of(node) for node in bits.layers),
        tuple(in_float(roles, {site.name for site in weights}, set(read))),
    )


def _any_activation(bits: LayerBits) -> bool:
    return any(bits.activation(node) != FLOAT_BITS for node in bits.layers)


def _weight_sites(roles: Roles, per_channel: bool) -> Iterator[WeightSite]:
    readers: dict[str, list[ir.Node]] = {}
    for node in roles.bits.layers:
        index = operators.weight_input(node)
        if index is not None and roles.bits.weight(node) != FLOAT_BITS:
            readers.setdefault(name_of(node.inputs[index]), []).append(node)
    for name, nodes in readers.items():
        if _only_read_by(roles, roles.graph.initializers[name], nodes):
            layers = tuple(name_of(node) for node in nodes)
            axes = {operators.weight_axis(node) for node in nodes}
            may_differ = len(axes) == 1 and all(_takes_scale_per_channel(node) for node in nodes)
            channels = per_channel and may_differ
            most = max(roles.bits.weight(node) for node in nodes)
            yield WeightSite(name, layers, most, operators.weight_axis(nodes[0]), channels)


def _takes_scale_per_channel(node: ir.Node) -> bool:
    """Not an embedding table; nor a stack of matrices, whose integer kernel takes one scale."""
    weight = node.inputs[1]
    is_stack = node.op_type == "MatMul" and weight is not None and len(weight.shape or ()) > 2
    return node.op_type != "Gather" and not is_stack


def _only_read_by(roles: Roles, value: ir.Value, nodes: list[ir.Node]) -> bool:
    return all(user in nodes for user, _ in roles.users(value)) and not value.is_graph_output()


def _integer_sites(roles: Roles) -> Iterator[ActivationSite]:
    for root, members in _movement_classes(roles):
        if not operators.is_activation(root):
            continue
        wanted: dict[tuple[str, int], list[Edge]] = {}
        for member in members:
            for node, index in roles.users(member):
                width = _width(roles, node, index)
                if width is not None:
                    wanted.setdefault((name_of(member), width), []).append((name_of(node), index))
        yield from _sites_of_class(root, members, wanted, _needs_glue(roles, root, members, bool(wanted)))


def _width(roles: Roles, node: ir.Node, index: int) -> int | None:
    """Bits that an edge asks for; None where it is not the quantized input of a layer."""
    if not _takes_activation(node, index):
        return None
    width = roles.bits.activation(node)
    return None if width == FLOAT_BITS else width


def _sites_of_class(
    root: ir.Value, members: list[ir.Value], wanted: dict[tuple[str, int], list[Edge]], glue: bool
) -> Iterator[ActivationSite]:
    """One shared quantizer where all wishes agree, else glue first and the others chained behind it."""
    moved = tuple(name_of(member) for member in members[1:])
    maximum, limits = _rectifier_limits(root)
    widths = {width for _, width in wanted} | ({GLUE_BITS} if glue else set())
    if not widths:
        return
    shared = GLUE_BITS if len(widths) > 1 else widths.pop()
    searched = any(width == shared for _, width in wanted)
    name = name_of(root)
    yield ActivationSite(name, name, shared, searched, moved=moved, maximum=maximum, limits=limits)
    for (member, width), edges in wanted.items():
        if width != shared:
            yield ActivationSite(
                f"{member}:{width}bit", member, width, True, name_of(root), edges=tuple(edges)
            )


def _needs_glue(roles: Roles, root: ir.Value, members: list[ir.Value], wanted: bool) -> bool:
    """Whether a reader other than a layer wants 8-bit codes, or an integer producer writes them."""
    readers = [reader for member in members for reader in roles.users(member)]
    others = [
        node for node, index in readers if _width(roles, node, index) is None and not _moves(node, index)
    ]
    if any(roles.is_arithmetic(node) for node in others):
        return True
    producer = root.producer()
    while producer is not None and operators.is_rectifier(producer):
        producer = _first_input(producer).producer()
    by_integers = producer is not None and (_writes_codes(roles, producer) or roles.is_arithmetic(producer))
    return bool(others) if wanted else by_integers and bool(readers)


def _writes_codes(roles: Roles, node: ir.Node) -> bool:
    """Whether the integer kernel of a layer needs a quantizer behind it.

    Conv does. Gemm and MatMul write float as well, but a MatMul whose bias is a node of its own becomes a
    Gemm that does not.
    """
    if node.op_type == "Add" and node in roles.bits.before_a_layer:
        producers = [value.producer() for value in node.inputs if value is not None]
        return any(
            producer is not None and _has_weight(roles, producer, "MatMul") and _adds_bias(node, producer)
            for producer in producers
        )
    return any(_has_weight(roles, node, kind) for kind in ("Conv", "ConvTranspose"))


def _adds_bias(node: ir.Node, layer: ir.Node) -> bool:
    edge = bias_edge(layer)
    return edge is not None and edge[0] is node


def _has_weight(roles: Roles, node: ir.Node, op_type: str) -> bool:
    return (
        node.op_type == op_type
        and operators.weight_input(node) is not None
        and roles.bits.activation(node) != FLOAT_BITS
    )


def _takes_activation(node: ir.Node, index: int) -> bool:
    return is_layer(node) and index in operators.activation_inputs(node)


def _moves(node: ir.Node, index: int) -> bool:
    return index == 0 and operators.is_data_movement(node)


def _movement_classes(roles: Roles) -> Iterator[tuple[ir.Value, list[ir.Value]]]:
    """Values that carry the same elements, each with its root first; rectifier inputs are left out."""
    roots = [*roles.graph.inputs, *(out for node in roles.graph for out in node.outputs)]
    for root in roots:
        producer = root.producer()
        if producer is not None and operators.is_data_movement(producer):
            continue
        if _is_absorbed(roles, root):
            continue
        members = [root]
        for member in members:
            for node, index in roles.users(member):
                members.extend(node.outputs if _moves(node, index) else ())
        yield root, members


def _is_absorbed(roles: Roles, value: ir.Value) -> bool:
    """Whether a rectifier is the value's only reader, so that the quantizer sits behind the rectifier."""
    readers = roles.users(value)
    return len(readers) == 1 and operators.is_rectifier(readers[0][0]) and not value.is_graph_output()


def _paper_sites(roles: Roles) -> Iterator[ActivationSite]:
    for root, members in _movement_classes(roles):
        producer = root.producer()
        if producer is None or not operators.is_rectifier(producer):
            continue
        found = [_width(roles, *reader) for member in members for reader in roles.users(member)]
        widths = [width for width in found if width is not None]
        if widths:
            name, (maximum, limits) = name_of(root), _rectifier_limits(root)
            yield ActivationSite(name, name, max(widths), True, maximum=maximum, limits=limits)


def _rectifier_limits(value: ir.Value) -> tuple[float, tuple[float, ...]]:
    """Upper limits of the rectifier that writes a value: of all channels, and of each."""
    producer = value.producer()
    if producer is None or not operators.is_rectifier(producer):
        return float("inf"), ()
    limits = operators.channel_limits(producer)
    if limits is not None:
        return float("inf"), tuple(limits.ravel().tolist())
    return operators.rectifier_maximum(producer), ()


def _first_input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value
