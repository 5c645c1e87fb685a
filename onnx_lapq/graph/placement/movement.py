"""Values that carry the same elements: a value, and what nodes that only move data make of it."""

from collections.abc import Iterator

import onnx_ir as ir

from onnx_lapq.graph.placement import operators
from onnx_lapq.graph.placement.roles import Roles

__all__ = ["Carriers", "carriers", "moves"]

Carriers = tuple[ir.Value, list[ir.Value]]
"""A root, and all values that carry its elements, the root first."""


def moves(node: ir.Node, index: int) -> bool:
    """Whether the input of a node is what the node moves."""
    return index == 0 and operators.is_data_movement(node)


def carriers(roles: Roles) -> Iterator[Carriers]:
    """All roots of a graph with their carriers, in topological order.

    What a rectifier alone reads is left out: a quantizer stands behind the rectifier.
    """
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
                members.extend(node.outputs if moves(node, index) else ())
        yield root, members


def _is_absorbed(roles: Roles, value: ir.Value) -> bool:
    """Whether a rectifier is the value's only reader, so that the quantizer sits behind the rectifier."""
    readers = roles.users(value)
    return len(readers) == 1 and operators.is_rectifier(readers[0][0]) and not value.is_graph_output()
