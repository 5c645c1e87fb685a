"""Write what onnxruntime is slow on in other words of the same meaning.

1. A sum in front of a LayerNormalization is a Sum. Onnxruntime fuses an Add there with it, and the fused
   kernel for the CPU (SkipLayerNormalization) takes three to six times as long as both.
2. A mask of zeros and ones that is multiplied by a huge negative number and added to the scores of attention
   is multiplied by -64. Softmax gives a masked place less than 1e-19 either way, up to a score 20 above all
   others. Below exp(-87) float32 has denormal numbers, which processors compute with ten to a hundred times
   as slowly: Softmax meets them inside at any lower number, and from -80 to -100 also the product behind it.
"""

from collections.abc import Iterable, Set

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, constant_number
from onnx_lapq.graph.writing.qdq import make_initializer

__all__ = ["limit_masks", "write_sums"]

_HUGE = -1e4
"""Constants at most this large are factors of masks."""

_MASK = -64.0

_SHAPING = frozenset({"Expand", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})

_BEHIND_SOFTMAX = _SHAPING | {"Cast", "DequantizeLinear", "QuantizeLinear"}


def write_sums(model: ir.Model) -> None:
    """Apply rule 1, in place."""
    for node in model.graph:
        if node.op_type == "LayerNormalization" and node.inputs[0] is not None:
            add = node.inputs[0].producer()
            if (
                add is not None
                and add.op_type == "Add"
                and all(constant(value) is None for value in add.inputs)
            ):
                add.op_type = "Sum"


def limit_masks(model: ir.Model) -> None:
    """Apply rule 2, in place.

    Args:
        model: Its constants are initializers.
    """
    for node in list(model.graph):
        index = _huge_factor(node)
        if index is not None and _is_mask(node.inputs[1 - index]) and _is_added_in_attention(node):
            name = f"{node.name}_mask_{index}"
            limited = make_initializer(model.graph, name, np.array(_MASK, np.float32))
            node.replace_input_with(index, limited)


def _huge_factor(node: ir.Node) -> int | None:
    """Which input of a product is a huge negative number."""
    if node.op_type != "Mul" or node.domain != "":
        return None
    return next((index for index, value in enumerate(node.inputs) if _is_huge(value)), None)


def _is_huge(value: ir.Value | None) -> bool:
    number = constant_number(value)
    return number is not None and bool(number <= _HUGE)


def _is_mask(value: ir.Value | None) -> bool:
    """Whether a value is of truth values or an integer input of the graph, or 1 minus that.

    Integers that go into the graph and end in a mask are taken for zeros and ones.
    """
    while value is not None and value.dtype != ir.DataType.BOOL:
        node = value.producer()
        if node is None:
            return value.is_graph_input() and value.dtype is not None and value.dtype.is_integer()
        if node.domain == "" and node.op_type in (_SHAPING | {"Cast"}):
            value = node.inputs[0]
        elif node.domain == "" and node.op_type == "Sub" and constant_number(node.inputs[0]) == 1:
            value = node.inputs[1]
        else:
            return False
    return value is not None


def _is_added_in_attention(node: ir.Node) -> bool:
    """Whether all that reads a value adds it to what a Softmax reads, and all behind that is a MatMul."""
    behind = [node]
    for passed, wanted in (
        (_SHAPING, "Add"),
        (_SHAPING | {"Add"}, "Softmax"),
        (_BEHIND_SOFTMAX, "MatMul"),
    ):
        readers = _readers(behind, passed)
        if not readers or any(one is None or one.op_type != wanted for one in readers):
            return False
        behind = [one for one in readers if one is not None]
    return True


def _readers(nodes: Iterable[ir.Node], passed: Set[str]) -> set[ir.Node | None]:
    """What reads the outputs of nodes, looked for behind some operators; None for an output of the graph."""
    found: set[ir.Node | None] = set()
    seen, todo = set(nodes), list(nodes)
    while todo:
        for value in todo.pop().outputs:
            if value.is_graph_output():
                found.add(None)
            for reader, _ in value.uses():
                if reader.op_type not in passed:
                    found.add(reader)
                elif reader not in seen:
                    seen.add(reader)
                    todo.append(reader)
    return found
