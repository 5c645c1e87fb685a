"""What placement needs to know of the operators around the layers (`onnx_lapq.graph.layer_kinds`)."""

import onnx_ir as ir

from onnx_lapq.common.arrays import Float32Array
from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.layer_kinds import kind_of

__all__ = [
    "ARITHMETIC",
    "CONTROL_FLOW",
    "ELEMENTWISE",
    "GATES",
    "activation_inputs",
    "channel_limits",
    "gate",
    "has_integer_kernel",
    "is_activation",
    "is_data_movement",
    "is_function_of_itself",
    "is_rectifier",
    "mark_saturating",
    "mark_scaling",
    "own_gate",
    "rectifier_maximum",
    "saturates",
    "scales",
]

_SATURATES, _SCALES = "onnx_lapq saturates", "onnx_lapq scales"
"""Keys of what `mark_saturating` and `mark_scaling` say; it is kept beside the node, and is in no file."""

ARITHMETIC = frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"})
"""Operators between layers that integer hardware runs at 8 bits when inputs and output are quantized."""

GATES = frozenset({"HardSigmoid"})
"""Operators that are a change of scale and zero point of codes, which saturate at 0 and 1."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
"""Operators that run a sub-graph."""

_MOVEMENT = frozenset(
    {
        "DepthToSpace",
        "Expand",
        "Flatten",
        "MaxPool",
        "ReduceMax",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators whose outputs are a selection or a new order of their first input's elements, and that
onnxruntime runs on codes as they are."""

ELEMENTWISE = frozenset(
    {
        *("Abs", "Add", "Clip", "Div", "Elu", "Erf", "Exp", "Log", "Max", "Min", "Mul", "Neg"),
        *("Pow", "Reciprocal", "Relu", "Softplus", "Sqrt", "Sub", "Tanh"),
    }
)
"""Operators that activation functions are written with and that have no integer kernel of their own."""


def activation_inputs(node: ir.Node) -> tuple[int, ...]:
    """Indices of the inputs of a layer or an arithmetic node that carry activations."""
    layer = kind_of(node)
    candidates = range(len(node.inputs)) if layer is None else layer.data_indices
    return tuple(index for index in candidates if is_activation(node.inputs[index]))


def is_activation(value: ir.Value | None) -> bool:
    """Whether a value is a float tensor that depends on the graph's inputs."""
    return value is not None and value.dtype == ir.DataType.FLOAT and constant(value) is None


def is_data_movement(node: ir.Node) -> bool:
    """Whether the node only moves elements, so that its output can share its input's scale."""
    if node.domain != "" or not node.inputs or not is_activation(node.inputs[0]):
        return False
    if node.op_type == "Resize":
        return node.attributes.get_string("mode", "nearest") == "nearest"
    if node.op_type == "MaxPool":
        between = _is_behind_a_layer(node) or _is_before_a_convolution(node)
        return len(node.outputs) == 1 and between and not _is_beside_float(node)
    return node.op_type in _MOVEMENT or node.op_type == "Gather"


def _is_behind_a_layer(node: ir.Node) -> bool:
    """Whether a layer writes what a node reads, at most through rectifiers."""
    producer = None if node.inputs[0] is None else node.inputs[0].producer()
    while producer is not None and is_rectifier(producer):
        producer = None if producer.inputs[0] is None else producer.inputs[0].producer()
    return producer is not None and kind_of(producer) is not None


def _is_beside_float(node: ir.Node) -> bool:
    """Whether what writes a pool's input, or all that read its output, never has an integer kernel.

    The channels of codes are first there too.
    """
    source = node.inputs[0]
    while source is not None and (writer := source.producer()) is not None and _carries(writer):
        source = writer.inputs[0]
    if source is not None and writer is not None and not has_integer_kernel(writer):
        return True
    readers = list(node.successors())
    for reader in readers:
        found = reader.successors() if _carries(reader) else ()
        readers.extend(other for other in found if other not in readers)
    ends = [reader for reader in readers if not _carries(reader)]
    return bool(ends) and not any(map(has_integer_kernel, ends))


def _carries(node: ir.Node) -> bool:
    """Whether codes go through the node as they are."""
    return (node.domain == "" and node.op_type in _MOVEMENT) or is_rectifier(node)


def has_integer_kernel(node: ir.Node) -> bool:
    """Whether the operator has one that computes; others move codes, or are for float alone."""
    return kind_of(node) is not None or (node.domain == "" and node.op_type in ARITHMETIC | GATES)


def _is_before_a_convolution(node: ir.Node) -> bool:
    """Whether what a node writes goes to a convolution in the end.

    Between convolutions onnxruntime keeps the channels of codes last, where its MaxPool is quick. Behind the
    last arithmetic they are first, and MaxPool on codes takes ten times as long as in float.
    """
    pending, seen = [node], {node}
    while pending:
        reader = pending.pop()
        if reader.op_type in ("Conv", "ConvTranspose"):
            return True
        found = [other for other in reader.successors() if other not in seen]
        pending.extend(found)
        seen.update(found)
    return False


def is_function_of_itself(node: ir.Node) -> bool:
    """Whether the node joins a value with an elementwise function of the same value, as in GELU or Mish.

    Such an activation function is worth more in one piece: onnxruntime fuses it, and its inner values
    have no integer kernel.
    """
    if node.op_type not in ("Add", "Mul"):
        return False
    first, second = node.inputs
    return first is not None and second is not None and (_stems(first, second) or _stems(second, first))


def _stems(value: ir.Value, source: ir.Value) -> bool:
    """Whether a value is computed from another and constants by elementwise operators alone."""
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        producer = current.producer()
        if current is source or constant(current) is not None:
            continue
        if producer is None or producer.op_type not in ELEMENTWISE or producer.domain != "":
            return False
        found = [other for other in producer.inputs if other is not None and other not in seen]
        pending.extend(found)
        seen.update(found)
    return source in seen


def gate(node: ir.Node) -> tuple[float, float] | None:
    """Slope and offset of a HardSigmoid that unsigned codes can hold; None of any other node."""
    if node.op_type not in GATES or node.domain != "":
        return None
    slope, offset = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return (slope, offset) if slope > 0 and 0 <= offset <= 1 else None


def own_gate(value: ir.Value) -> tuple[ir.Node, ir.Value] | None:
    """The HardSigmoid or Sigmoid of a value that nothing else reads but their product, and the product."""
    readers, producer = [node for node, _ in value.uses()], value.producer()
    found = [node for node in readers if node.op_type in ("HardSigmoid", "Sigmoid") and node.domain == ""]
    if len(readers) != 2 or len(found) != 1 or value.is_graph_output() or producer is None:
        return None
    (function,) = found
    (result,), (other,) = function.outputs, (node for node in readers if node is not function)
    is_product = other.op_type == "Mul" and other.domain == "" and set(other.inputs) == {value, result}
    is_alone = len(result.uses()) == 1 and not result.is_graph_output()
    is_here = function.graph is other.graph is producer.graph
    return (function, other.outputs[0]) if is_product and is_alone and is_here else None


def is_rectifier(node: ir.Node) -> bool:
    """Whether the node is a Relu, a Clip from zero (Relu6), or a Min that limits the channels of a Relu.

    An unsigned quantizer absorbs all of them.
    """
    if node.domain != "":
        return False
    if node.op_type == "Min":
        return channel_limits(node) is not None
    if node.op_type == "Clip" and len(node.inputs) > 1:
        minimum = constant(node.inputs[1])
        return minimum is not None and float(minimum.numpy()) == 0.0 and _clip_maximum_known(node)
    return node.op_type == "Relu"


def rectifier_maximum(node: ir.Node) -> float:
    """Upper limit of a rectifier: 6 for Relu6, infinity for Relu."""
    maximum = constant(node.inputs[2]) if node.op_type == "Clip" and len(node.inputs) > 2 else None
    return float(maximum.numpy()) if maximum is not None else float("inf")


def channel_limits(node: ir.Node) -> Float32Array | None:
    """The upper limit of every channel, [1, channels, 1, ...], where a Min gives a Relu such limits."""
    if node.domain != "" or node.op_type != "Min" or len(node.inputs) != 2 or node.inputs[0] is None:
        return None
    producer, limits = node.inputs[0].producer(), constant(node.inputs[1])
    if producer is None or producer.op_type != "Relu" or limits is None or node.inputs[0].shape is None:
        return None
    values = limits.numpy()
    by_channel = values.ndim == len(node.inputs[0].shape) >= 2 and values.size == values.shape[1]
    return values if by_channel and (values >= 0).all() else None


def mark_saturating(minimum: ir.Node) -> None:
    """Have the codes of all channels end at the smallest of the `channel_limits` of a Min."""
    minimum.meta[_SATURATES] = True


def saturates(minimum: ir.Node) -> bool:
    """Whether `mark_saturating` was said of a Min."""
    return bool(minimum.meta.get(_SATURATES, False))


def mark_scaling(product: ir.Node) -> None:
    """Say that a Mul takes the channels of what a convolution writes back to their ranges."""
    product.meta[_SCALES] = True


def scales(product: ir.Node) -> bool:
    """Whether `mark_scaling` was said of a Mul."""
    return bool(product.meta.get(_SCALES, False))


def _clip_maximum_known(node: ir.Node) -> bool:
    return len(node.inputs) < 3 or node.inputs[2] is None or constant(node.inputs[2]) is not None
