"""Pieces that a Concat on codes puts together, in the scale of what it writes.

With a scale of its own a piece is rounded twice: where it is written, and where the Concat turns its codes
into those of its output. Where nothing else reads a piece, it is written in the scale of the output, and the
Concat only copies codes.

A quantizer absorbs a Relu where its zero point is 0. So what a Relu writes is given the output's scale only
where all pieces are what a Relu writes.
"""

import math
from dataclasses import replace

import onnx_ir as ir

from onnx_lapq.graph.placement import operators
from onnx_lapq.graph.placement.movement import moves
from onnx_lapq.graph.placement.roles import Roles, name_of
from onnx_lapq.graph.placement.sites import ActivationSite

__all__ = ["share_scales_of_concats"]

_BITS = 8
"""Of all codes that share a scale; fewer would need a Clip on both sides of the Concat."""


def share_scales_of_concats(roles: Roles, sites: list[ActivationSite]) -> list[ActivationSite]:
    """The quantizers, with one for each Concat on codes and the pieces that nothing else reads.

    Args:
        roles: Of all nodes.
        sites: Quantizers on activations, in topological order, which is kept.
    """
    found = {site.name: site for site in sites}
    chained = {site.after for site in sites}
    values = ir.convenience.create_value_mapping(roles.graph, include_subgraphs=False)
    for node in reversed(roles.graph):  # of Concats one behind the other all share the scale of the last
        if node.op_type != "Concat" or not roles.is_arithmetic(node):
            continue
        carried = {name: site for site in found.values() for name in (site.value, *site.moved)}
        output = name_of(node.outputs[0])
        whole = carried.get(output)
        if whole is None or whole.bits != _BITS:
            continue
        inputs = dict.fromkeys(map(name_of, node.inputs))
        pieces = {carried[name].name: carried[name] for name in inputs if name in carried}
        signed = [site for site in pieces.values() if not _is_rectified(values[site.value])]
        for site in signed or (pieces.values() if whole.value == output else ()):
            carriers = [values[name] for name in (site.value, *site.moved)]
            if site.name not in chained and _may_share(site) and _reads_alone(roles, node, carriers):
                del found[site.name]
                whole = replace(whole, moved=(*whole.moved, site.value, *site.moved))
        found[whole.name] = whole
    return list(found.values())


def _may_share(site: ActivationSite) -> bool:
    """Whether nothing but the scale is a quantizer's own."""
    plain = site.gate is None and not site.limits and math.isinf(site.maximum)
    return plain and site.bits == _BITS and not site.edges


def _reads_alone(roles: Roles, node: ir.Node, carriers: list[ir.Value]) -> bool:
    """Whether no other node reads what carries a value, but for those that move data."""
    readers = [reader for value in carriers for reader in roles.users(value)]
    outputs = any(value.is_graph_output() for value in carriers)
    return not outputs and all(reader is node or moves(reader, index) for reader, index in readers)


def _is_rectified(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and operators.is_rectifier(producer)
