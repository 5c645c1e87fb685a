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
from onnx_lapq.graph.layer_kinds import LayerKind, kind_of
from onnx_lapq.graph.placement import operators
from onnx_lapq.graph.placement.layer_bits import LayerBits, is_layer
from onnx_lapq.graph.placement.options import FLOAT_BITS, PlacementOptions
from onnx_lapq.graph.placement.roles import Edge, Roles, in_float, name_of
from onnx_lapq.graph.placement.sites import ActivationSite, Placement, WeightSite, quantizer_of_edges
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
            "with constant float weights that the options leave in; exclude fewer, or give another model"
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
    readers: dict[ir.Value, list[LayerKind]] = {}
    for layer in filter(None, map(kind_of, roles.bits.layers)):
        if layer.weight is not None and roles.bits.weight(layer.node) != FLOAT_BITS:
            readers.setdefault(layer.weight, []).append(layer)
    for weight, layers in readers.items():
        nodes = [layer.node for layer in layers]
        if _only_read_by(roles, weight, nodes):
            alike = len({layer.axis for layer in layers}) == 1
            channels = per_channel and alike and all(layer.takes_scale_per_channel for layer in layers)
            most = max(roles.bits.weight(node) for node in nodes)
            names = tuple(name_of(node) for node in nodes)
            yield WeightSite(name_of(weight), names, most, layers[0].axis, channels)


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
    layer = _quantized_layer(roles, node)
    if layer is not None:
        return layer.writes_codes
    if node not in roles.bits.before_a_layer:
        return False
    before = (_quantized_layer(roles, value.producer()) for value in node.inputs if value is not None)
    return any(layer is not None and _adds_bias(node, layer) for layer in before)


def _quantized_layer(roles: Roles, node: ir.Node | None) -> LayerKind | None:
    layer = None if node is None else kind_of(node)
    if layer is None or layer.weight is None or roles.bits.activation(layer.node) == FLOAT_BITS:
        return None
    return layer


def _adds_bias(node: ir.Node, layer: LayerKind) -> bool:
    edge = layer.bias_edge()
    return edge is not None and edge[0] is node


def _takes_activation(node: ir.Node, index: int) -> bool:
    return is_layer(node) and index in operators.activation_inputs(node)


def _moves(node: ir.Node, index: int) -> bool:
    return index == 0 and operators.is_data_movement(node)


def _movement_classes(roles: Roles) -> Iterator[tuple[ir.Value, list[ir.Value]]]:
    """Values that carry the same elements, each with its root first; rectifier inputs are left out."""
    # A root is what no movement node has written. Its class grows while it is walked: movement nodes that
    # read a member add their outputs. What a rectifier alone reads is left out, since the quantizer behind
    # the rectifier absorbs it and reads that value in its place.
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
