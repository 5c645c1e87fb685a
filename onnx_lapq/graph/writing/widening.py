"""Widen depthwise convolutions to a number of channels that their integer kernels take.

Onnxruntime's quick kernel on x86 takes 16 channels at a time. A depthwise convolution of 200 channels runs on
another one, and takes three times as long as one of 208. So channels of zeros are added, where the
convolutions before and behind can hold them:

1. Values that must have equally many channels are found: from the depthwise convolution through quantizers
   and elementwise operators, up to ordinary convolutions on all sides.
2. Filters of zeros are added to those that write the values, and weights of zero to those that read them.

What the model computes stays the same, bit for bit.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, integer

__all__ = ["widen_depthwise"]

_MOST = 0.25
"""Most channels to add, as a share of those that are there: more would cost what the kernel gains."""

_ELEMENTWISE = frozenset(
    {
        *("Add", "AveragePool", "Clip", "DequantizeLinear", "GlobalAveragePool", "HardSigmoid", "LeakyRelu"),
        *("MaxPool", "Min", "Mul", "QuantizeLinear", "Relu", "Sigmoid"),
    }
)
"""Operators whose output has the channels of its inputs, each computed from the same channel."""


def widen_depthwise(model: ir.Model, multiple: int) -> None:
    """Add channels of zeros, in place.

    Args:
        model: A written model, whose weights are not packed yet.
        multiple: What the number of channels is to be a multiple of.
    """
    for node in list(model.graph):
        channels = _channels(node.outputs[0])
        if not _is_depthwise(node) or channels is None:
            continue
        added = -channels % multiple
        if 0 < added <= _MOST * channels:
            found = _region(node.outputs[0], channels)
            if found is not None:
                _widen(found, added)


@dataclass
class _Region:
    """What has to be widened together.

    Attributes:
        values: Activations of equally many channels.
        writers: Ordinary convolutions that write some of them.
        readers: Those that read some of them.
        inside: Depthwise ones in between.
        limits: Constants of one value per channel.
    """

    values: set[ir.Value] = field(default_factory=set)
    writers: set[ir.Node] = field(default_factory=set)
    readers: set[ir.Node] = field(default_factory=set)
    inside: set[ir.Node] = field(default_factory=set)
    limits: set[ir.Value] = field(default_factory=set)


def _region(start: ir.Value, channels: int) -> _Region | None:
    """All that has to be widened with a value; None where something cannot be."""
    found, pending = _Region(), [start]
    while pending:
        value = pending.pop()
        if value in found.values:
            continue
        found.values.add(value)
        producer = value.producer()
        if producer is None or value.is_graph_output() or _channels(value) != channels:
            return None
        for node in (producer, *(reader for reader, _ in value.uses())):
            more = _joined(found, node, value, is_writer=node is producer)
            if more is None:
                return None
            pending.extend(more)
    return found


def _joined(found: _Region, node: ir.Node, value: ir.Value, *, is_writer: bool) -> list[ir.Value] | None:
    """Note a node beside a value; gives what else it binds, None where it cannot be widened."""
    if node.op_type == "Conv" and node.domain == "":
        if node.inputs[0] is None or (not is_writer and node.inputs[0] is not value) or not _is_own(node):
            return None
        if _is_depthwise(node):
            found.inside.add(node)
            return [node.inputs[0], node.outputs[0]]
        (found.writers if is_writer else found.readers).add(node)
        return [] if integer(node, "group", 1) == 1 else None
    if node.op_type not in _ELEMENTWISE or node.domain != "" or len(node.outputs) != 1:
        return None
    constants = [other for other in node.inputs if other is not None and constant(other) is not None]
    for other in constants:
        tensor = constant(other)
        if tensor is not None and tensor.size != 1:
            if node.op_type != "Min" or other.uses() != ((node, 1),) or _channels(other) != tensor.size:
                return None
            found.limits.add(other)
    return [*(other for other in node.inputs if other is not None and other not in constants), *node.outputs]


def _widen(region: _Region, added: int) -> None:
    for node in (*region.writers, *region.inside):
        for parameter in node.inputs[1:3]:
            _pad(parameter, 0, added)
    for node in region.readers:
        _pad(node.inputs[1], 1, added)
    for node in region.inside:
        node.attributes["group"] = ir.AttrInt64("group", integer(node, "group", 1) + added)
    for value in region.limits:
        _pad_constant(value, 1, added)
    for value in region.values:
        assert value.shape is not None
        sizes = list(value.shape)
        sizes[1] = int(sizes[1]) + added  # type: ignore[arg-type]
        value.shape = ir.Shape(sizes)


def _pad(value: ir.Value | None, axis: int, added: int) -> None:
    """Add zeros to a weight or a bias, which is a constant or codes behind a DequantizeLinear."""
    dequantize = None if value is None else value.producer()
    if value is None or dequantize is None:
        _pad_constant(value, axis, added, 0)
        return
    codes, scale, *zero_point = dequantize.inputs
    zeros = constant(zero_point[0]) if zero_point else None
    _pad_constant(codes, axis, added, 0 if zeros is None else int(zeros.numpy().reshape(-1)[0]))
    for parameter in (scale, *zero_point):
        tensor = constant(parameter)
        if axis == 0 and tensor is not None and tensor.numpy().ndim:
            _pad_constant(parameter, 0, added)
    value.shape = None if codes is None else codes.shape


def _pad_constant(value: ir.Value | None, axis: int, added: int, fill: int | None = None) -> None:
    """Lengthen a constant along an axis, by a value or by its last one."""
    tensor = constant(value)
    if value is None or tensor is None:
        return
    array = tensor.numpy()
    widths = [(0, added if index == axis else 0) for index in range(array.ndim)]
    padded = np.pad(array, widths, "edge") if fill is None else np.pad(array, widths, constant_values=fill)
    value.const_value, value.shape = ir.tensor(padded, name=value.name), ir.Shape(padded.shape)


def _is_depthwise(node: ir.Node) -> bool:
    groups = integer(node, "group", 1)
    return (
        node.op_type == "Conv"
        and node.domain == ""
        and groups > 1
        and groups == _channels(node.inputs[0]) == _channels(node.outputs[0])
    )


def _channels(value: ir.Value | None) -> int | None:
    """Size of axis 1, where it is known."""
    if value is None or value.shape is None or len(value.shape) < 2:
        return None
    size = value.shape[1]
    return size if isinstance(size, int) else None


def _is_own(conv: ir.Node) -> bool:
    """Whether nothing else reads the weight and the bias of a convolution, or what they are made of."""
    pending, seen = [value for value in conv.inputs[1:3] if value is not None], []
    while pending:
        value = pending.pop()
        seen.append(value)
        producer = value.producer()
        if producer is not None and producer.op_type != "DequantizeLinear":
            return False
        pending.extend(other for other in (producer.inputs if producer else ()) if other is not None)
    return all(len(value.uses()) == 1 and not value.is_graph_output() for value in seen) and all(
        value.producer() is not None or constant(value) is not None for value in seen
    )
