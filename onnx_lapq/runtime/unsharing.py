"""Give every layer a weight of its own, for sessions with kernels that do not overflow.

Onnxruntime's ``session.x64quantprecision`` converts the weight of a layer for each layer that reads it, and
fails at the second one.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx

__all__ = ["unshare"]

_LAYERS = ("Conv", "Gemm", "MatMul")


def unshare(
    model: onnx.ModelProto, tensors: Mapping[str, np.ndarray]
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Copy quantized weights that several Conv, Gemm and MatMul nodes read.

    Args:
        model: Left as it is.
        tensors: Initializers that are held beside it.

    Returns:
        The model and its tensors; the same ones where no weight is shared.
    """
    written = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    readers = Counter(
        node.input[1] for node in model.graph.node if node.op_type in _LAYERS and node.input[1] in written
    )
    beside = dict(tensors)
    if all(count == 1 for count in readers.values()):
        return model, beside
    own = onnx.ModelProto()
    own.CopyFrom(model)
    copies: list[onnx.NodeProto] = []
    for node in own.graph.node:
        if node.op_type in _LAYERS and readers[node.input[1]] > 1:
            readers[node.input[1]] -= 1
            copies.append(_copy(written[node.input[1]], f"copy{len(copies)}", own.graph, beside))
            node.input[1] = copies[-1].output[0]
    nodes = [*copies, *own.graph.node]
    del own.graph.node[:]
    own.graph.node.extend(nodes)
    return own, beside


def _copy(
    node: onnx.NodeProto, suffix: str, graph: onnx.GraphProto, beside: dict[str, np.ndarray]
) -> onnx.NodeProto:
    """A DequantizeLinear with constants of its own."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name, copy.output[0] = f"{node.name}_{suffix}", f"{node.output[0]}_{suffix}"
    for index, name in enumerate(node.input):
        tensor = graph.initializer.add()
        tensor.CopyFrom(constants[name])
        tensor.name = copy.input[index] = f"{name}_{suffix}"
        if name in beside:
            beside[tensor.name] = beside[name]
    return copy
