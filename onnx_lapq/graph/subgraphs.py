"""What the bodies of If, Loop and Scan read of the graph around them."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["Branch", "branches", "captured", "users"]


@dataclass(frozen=True)
class Branch:
    """A choice between sub-graphs that single numbers among the inputs decide.

    Attributes:
        node: Name of the If.
        inputs: Names of these inputs, at least one.
    """

    node: str
    inputs: tuple[str, ...]


def branches(graph: ir.Graph) -> Iterator[Branch]:
    """The nodes of the graph that are such a choice."""
    for node in graph:
        if node.op_type == "If" and node.inputs[0] is not None:
            sources = _sources(node.inputs[0])
            if sources and all(value.shape is not None and not len(value.shape) for value in sources):
                yield Branch(node.name or "", tuple(value.name or "" for value in sources))


def _sources(value: ir.Value) -> list[ir.Value]:
    """Inputs of the graph that a value depends on."""
    found: dict[ir.Value, None] = {}
    seen, todo = set(), [value]
    while todo:
        value = todo.pop()
        producer = value.producer()
        if value in seen:
            continue
        seen.add(value)
        if producer is not None:
            todo += [one for one in producer.inputs if one is not None]
        elif value.is_graph_input():
            found[value] = None
    return list(found)


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """Values of the node's own graph that its sub-graphs read."""
    for attribute in node.attributes.values():
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            bodies = (
                [attribute.as_graph()]
                if attribute.type == ir.AttributeType.GRAPH
                else list(attribute.as_graphs())
            )
            for body in bodies:
                for inner in ir.traversal.RecursiveGraphIterator(body):
                    yield from (
                        value for value in inner.inputs if value is not None and value.graph is node.graph
                    )
                yield from (value for value in body.outputs if value.graph is node.graph)


def users(graph: ir.Graph) -> dict[ir.Value, list[tuple[ir.Node, int]]]:
    """Readers of every value among the nodes of the graph itself; index -1 is a read by a sub-graph."""
    found: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
    for node in graph:
        for index, value in enumerate(node.inputs):
            if value is not None:
                found.setdefault(value, []).append((node, index))
        for value in captured(node):
            found.setdefault(value, []).append((node, -1))
    return found
