"""Write what onnxruntime is slow on in other words of the same meaning.

1. A sum in front of a LayerNormalization is a Sum. Onnxruntime fuses an Add there with it, and the fused
   kernel for the CPU (SkipLayerNormalization) takes three to six times as long as both.
2. A mask that adds a huge negative number to the scores of a Softmax adds -64. Both make weights of nothing,
   as exp(-64) is less than 1e-27. But below exp(-87) float32 has denormal numbers, which processors compute
   with ten to a hundred times as slowly.
"""

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.writing.qdq import make_initializer

__all__ = ["limit_masks", "write_sums"]

_HUGE = -1e4
"""Constants at most this large in front of a Softmax are masks."""

_MASK = -64.0

_SHAPING = frozenset({"Expand", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"})


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
        if node.op_type in ("Mul", "Where") and node.domain == "" and _goes_to_softmax(node.outputs[0]):
            for index, value in enumerate(node.inputs):
                if _is_huge(value):
                    limited = make_initializer(
                        model.graph, f"{node.name}_mask_{index}", np.array(_MASK, np.float32)
                    )
                    node.replace_input_with(index, limited)


def _is_huge(value: ir.Value | None) -> bool:
    tensor = constant(value)
    if tensor is None or tensor.size != 1 or tensor.dtype != ir.DataType.FLOAT:
        return False
    return float(tensor.numpy().reshape(())) <= _HUGE


def _goes_to_softmax(value: ir.Value) -> bool:
    """Whether all that reads a value adds it to the scores of a Softmax, or is one."""
    readers = [node for node, _ in value.uses()]
    return (
        bool(readers)
        and not value.is_graph_output()
        and all(
            reader.op_type == "Softmax"
            or (reader.op_type in ("Add", *_SHAPING) and _goes_to_softmax(reader.outputs[0]))
            for reader in readers
        )
    )
