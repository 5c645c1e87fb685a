"""What the bodies of If, Loop and Scan read of the graph around them."""

from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["captured", "users"]


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
