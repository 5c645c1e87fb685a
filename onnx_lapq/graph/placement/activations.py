"""Quantizers on activations.

Placement ``integer``: a quantizer stands where an integer kernel writes or reads codes, and nowhere else.

1. Convolutions and arithmetic on codes (`onnx_lapq.graph.placement.integer_nodes`) write codes: one quantizer
   behind them serves all readers. Where a reader is arithmetic, it has 8 bits (*glue*), and readers that are
   to have fewer get a quantizer of their own behind it. Nodes whose inputs have 16 bits write 16, and
   readers of 8 bits get a quantizer of their own.
2. Every other value is float. A quantizer stands on the edges that lead into layers and arithmetic on codes,
   in front of the nodes that move data on the way; other readers read the float value.

Placement ``paper`` (section 5.1 of the paper): rectifier outputs that feed a layer; everything else stays in
float.
"""

from collections.abc import Iterator

import onnx_ir as ir

from onnx_lapq.graph.placement import operators
from onnx_lapq.graph.placement.flat_tails import curve_of
from onnx_lapq.graph.placement.movement import carriers, moves
from onnx_lapq.graph.placement.options import WIDE_BITS
from onnx_lapq.graph.placement.roles import Edge, Roles, name_of
from onnx_lapq.graph.placement.sites import ActivationSite

__all__ = ["integer_sites", "paper_sites"]


def integer_sites(roles: Roles, *, float_outputs: bool) -> Iterator[ActivationSite]:
    """Quantizers of a graph that runs on integers as far as it can.

    Args:
        roles: Of all nodes.
        float_outputs: Whether the graph's outputs are left in float where an integer kernel writes them.
    """
    for root, members in carriers(roles):
        if operators.is_activation(root):
            writer = None if float_outputs and _reach_an_output(members) else _writer(roles, root)
            yield from _read(roles, members) if writer is None else _written(roles, root, members, writer)


def paper_sites(roles: Roles) -> Iterator[ActivationSite]:
    """Quantizers behind rectifiers."""
    for root, members in carriers(roles):
        producer = root.producer()
        if producer is None or not operators.is_rectifier(producer):
            continue
        widths = [roles.width(*reader) for member in members for reader in roles.users(member)]
        asked = [width for width in widths if width is not None]
        if asked:
            name, (maximum, limits) = name_of(root), _rectifier_limits(root)
            yield ActivationSite(name, name, max(asked), True, maximum=maximum, limits=limits)


def _writer(roles: Roles, value: ir.Value) -> ir.Node | None:
    """The node whose kernel writes a value as codes, at most with a rectifier behind it."""
    producer = value.producer()
    while producer is not None and operators.is_rectifier(producer):
        source = producer.inputs[0]
        producer = None if source is None else source.producer()
    if producer is None or not (roles.is_arithmetic(producer) or roles.writes_codes(producer)):
        return None
    return producer


def _reach_an_output(members: list[ir.Value]) -> bool:
    return any(member.is_graph_output() for member in members)


def _written(
    roles: Roles, root: ir.Value, members: list[ir.Value], writer: ir.Node
) -> Iterator[ActivationSite]:
    """One shared quantizer where all wishes agree, else glue first and the others chained behind it."""
    readers = [reader for member in members for reader in roles.users(member)]
    of_layers = {roles.width(*reader) for reader in readers}
    others = _reach_an_output(members) or any(
        roles.width(*reader) is None and not moves(*reader) for reader in readers
    )
    wanted = _wanted(roles, members)
    if not (wanted or others):
        return
    shared = _shared_width({width for _, width in wanted}, roles.bits.kernel(writer), others=others)
    gate = _gate(roles, root)
    searched = shared in of_layers and gate is None
    name, moved = name_of(root), tuple(name_of(member) for member in members[1:])
    maximum, limits = _rectifier_limits(root)
    yield ActivationSite(
        name,
        name,
        shared,
        searched,
        moved=moved,
        maximum=maximum,
        curve=curve_of(roles, root),
        limits=limits,
        gate=gate,
        cuts_off=not any(operators.scales(node) for node, _ in readers),
        outputs=True,
        writer=name_of(writer),
    )
    for (value, width), edges in wanted.items():
        if width != shared:
            yield ActivationSite(
                f"{value}:{width}bit", value, width, width in of_layers, name, edges=tuple(edges)
            )


def _wanted(roles: Roles, members: list[ir.Value]) -> dict[tuple[str, int], list[Edge]]:
    """Edges that lead into layers and arithmetic on codes, by the value that they read and their bits."""
    found: dict[tuple[str, int], list[Edge]] = {}
    for member in members:
        for node, index in roles.users(member):
            width = roles.bits.kernel(node) if roles.is_arithmetic(node) else roles.width(node, index)
            if width is not None:
                found.setdefault((name_of(member), width), []).append((name_of(node), index))
    return found


def _shared_width(wanted: set[int], kernel: int, *, others: bool) -> int:
    """Bits of the quantizer behind a node, given those of its readers and of its own kernel."""
    agree = len(wanted) == 1 and not others and kernel != WIDE_BITS
    return max(wanted if agree else wanted | {kernel})


def _read(roles: Roles, members: list[ir.Value]) -> Iterator[ActivationSite]:
    """A quantizer for each width, as early as all readers behind it agree."""
    placed: set[ir.Value] = set()
    for member in members:
        if member in placed:
            continue
        by_width: dict[int, list[tuple[ir.Node, int]]] = {}
        for node, index in roles.users(member):
            width = _common_width(roles, node, index)
            if width is not None:
                by_width.setdefault(width, []).append((node, index))
        for width, readers in by_width.items():
            below = _below(roles, readers)
            placed.update(below)
            yield _on_edges(roles, member, width, readers, below, alone=len(by_width) == 1)


def _on_edges(
    roles: Roles,
    member: ir.Value,
    width: int,
    readers: list[tuple[ir.Node, int]],
    below: list[ir.Value],
    *,
    alone: bool,
) -> ActivationSite:
    inner = [reader for value in below for reader in roles.users(value)]
    searched = any(roles.width(*reader) is not None for reader in (*readers, *inner))
    maximum, limits = _rectifier_limits(member)
    every = len(readers) == len(roles.users(member))
    return ActivationSite(
        name_of(member) if alone else f"{name_of(member)}:{width}bit",
        name_of(member),
        width,
        searched,
        moved=tuple(name_of(value) for value in below),
        edges=() if every else tuple((name_of(node), index) for node, index in (*readers, *inner)),
        maximum=maximum,
        limits=limits,
    )


def _below(roles: Roles, readers: list[tuple[ir.Node, int]]) -> list[ir.Value]:
    """What the nodes among readers that move data make of their input, and so on."""
    found = [value for node, index in readers if moves(node, index) for value in node.outputs]
    for value in found:
        found.extend(out for node, index in roles.users(value) if moves(node, index) for out in node.outputs)
    return found


def _common_width(roles: Roles, node: ir.Node, index: int) -> int | None:
    """Bits that a reader wants: itself, or everything behind it where it moves data; None for float."""
    width = roles.width(node, index)
    if width is not None:
        return width
    if roles.is_arithmetic(node):
        return roles.bits.kernel(node)
    if not moves(node, index) or any(value.is_graph_output() for value in node.outputs):
        return None
    wanted = {_common_width(roles, *reader) for value in node.outputs for reader in roles.users(value)}
    return wanted.pop() if len(wanted) == 1 else None


def _gate(roles: Roles, value: ir.Value) -> tuple[float, float] | None:
    """Slope and offset of the HardSigmoid on codes that writes a value."""
    producer = value.producer()
    return operators.gate(producer) if producer is not None and roles.is_arithmetic(producer) else None


def _rectifier_limits(value: ir.Value) -> tuple[float, tuple[float, ...]]:
    """Upper limits of the rectifier that writes a value: of all channels, and of each."""
    producer = value.producer()
    if producer is None or not operators.is_rectifier(producer):
        return float("inf"), ()
    limits = operators.channel_limits(producer)
    if limits is None:
        return operators.rectifier_maximum(producer), ()
    if operators.saturates(producer):
        return float(limits.min()), ()
    return float("inf"), tuple(limits.ravel().tolist())
