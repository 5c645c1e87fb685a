"""Small changes of a graph that several rewrites make."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import new_initializer

__all__ = ["change_nodes", "replace_constant", "take_place_of"]


def change_nodes(
    model: ir.Model, op_type: str, change: Callable[[ir.Graph, ir.Node], bool], *, since: int = 0
) -> bool:
    """Offer every node of an operator to a rule, in place.

    Args:
        model: Its main graph is looked at.
        op_type: The operator.
        change: The rule; gives whether it changed anything. It may remove the node.
        since: The opset from which on the rule holds.

    Returns:
        Whether anything changed.
    """
    if model.opset_imports.get("", 0) < since:
        return False
    changed = [change(model.graph, node) for node in list(model.graph) if node.op_type == op_type]
    return any(changed)


def replace_constant(graph: ir.Graph, node: ir.Node, index: int, values: np.ndarray, what: str) -> None:
    """Give a node another constant of float32; one that others read stays what it is for them.

    Args:
        graph: Where the node stands.
        node: Its first output names a new constant.
        index: The input.
        values: Rounded to float32.
        what: End of the name of a new constant.
    """
    old, array = node.inputs[index], np.ascontiguousarray(values, dtype=np.float32)
    if old is not None and len(old.uses()) == 1 and not old.is_graph_output():
        old.const_value, old.shape = ir.tensor(array, name=old.name), ir.Shape(array.shape)
        return
    name = f"{node.outputs[0].name}_{what}"
    while name in graph.initializers:
        name += "_"
    node.replace_input_with(index, new_initializer(graph, name, array))


def take_place_of(new: ir.Node, old: ir.Node) -> None:
    """Let a node write what another one wrote, which is removed."""
    replaced, value = old.outputs[0], new.outputs[0]
    name, value.shape, value.type = replaced.name, replaced.shape, replaced.type
    ir.convenience.replace_all_uses_with(replaced, value, replace_graph_outputs=True)
    assert old.graph is not None
    old.graph.remove(old, safe=True)
    value.name = name
