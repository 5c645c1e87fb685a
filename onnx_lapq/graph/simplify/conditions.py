"""Sizes that are known, where an If asks for them, become constants, so that the If can be folded.

Exporters write ``if x.size(1) == 1`` around a Squeeze: Shape, Gather, Equal, If. Constant folding leaves the
Gather where another size of ``x`` is open, such as the batch.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.simplify.idioms.reshapes import sizes_of

__all__ = ["settle_conditions"]


def settle_conditions(model: ir.Model) -> bool:
    """Replace the Gather of a known size by that size, in place, where the condition of an If depends on it.

    Args:
        model: Its shapes are inferred.

    Returns:
        Whether there was one.
    """
    asked = {
        node: sizes
        for choice in ir.traversal.RecursiveGraphIterator(model.graph)
        if choice.op_type == "If"
        for node in _upstream(choice.inputs[0])
        if (sizes := _known_sizes(node)) is not None
    }
    for node, sizes in asked.items():
        fixed = ir.node("Constant", [], {"value": ir.tensor(sizes)})
        assert node.graph is not None
        ir.convenience.replace_nodes_and_values(
            node.graph, node, [node], [fixed], node.outputs, fixed.outputs
        )
    return bool(asked)


def _upstream(value: ir.Value | None) -> Iterator[ir.Node]:
    """The nodes that a value is computed by."""
    seen: set[ir.Node] = set()
    todo = [value]
    while todo:
        source = todo.pop()
        node = None if source is None else source.producer()
        if node is not None and node not in seen:
            seen.add(node)
            todo += node.inputs
            yield node


def _known_sizes(node: ir.Node) -> np.ndarray | None:
    """What a Gather or Slice takes out of the sizes of a value, int64, where all of that is known."""
    picked = node.outputs[0]
    if node.op_type not in ("Gather", "Slice") or picked.dtype != ir.DataType.INT64 or picked.shape is None:
        return None
    sizes = sizes_of(picked)
    if sizes is None or not picked.shape.is_static() or not all(isinstance(size, int) for size in sizes):
        return None
    return np.array(sizes, np.int64).reshape(picked.shape.numpy())
