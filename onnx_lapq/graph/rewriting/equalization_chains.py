"""Chains of layers between which channels may be scaled.

A *link* is a value that one layer writes and one other reads, with nothing between them but a rectifier.
Multiplying its channels by positive factors in the first layer and dividing by them in the second changes
nothing. Links that meet in a depthwise convolution form a *chain*: the two factors on a channel of such a
convolution meet in the same weights.

Scaling moves the upper limit of a channel of a Relu6; the Clip then becomes Relu and a Min with one limit per
channel, which a quantizer absorbs as well (`onnx_lapq.graph.writing.qdq`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import constant, integer, integers
from onnx_lapq.graph.geometry import is_plain_product
from onnx_lapq.graph.placement.operators import is_rectifier, rectifier_maximum, weight_input
from onnx_lapq.graph.subgraphs import users
from onnx_lapq.graph.writing.qdq import make_initializer

__all__ = ["Link", "chains", "input_ranges", "is_depthwise", "output_ranges", "rescale"]

Readers = Mapping[ir.Value, Sequence[tuple[ir.Node, int]]]

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
_HOMOGENEOUS = ("LeakyRelu",)


@dataclass(frozen=True, eq=False)
class Link:
    """A value between two layers.

    Attributes:
        first: The layer that writes it.
        rectifier: What stands between, or None.
        second: The layer that reads it.
        maximum: Upper limit of the rectifier; infinity where there is none.
    """

    first: ir.Node
    rectifier: ir.Node | None
    second: ir.Node
    maximum: float

    @property
    def value(self) -> str:
        """Name of what the first layer writes."""
        name = self.first.outputs[0].name
        assert name is not None
        return name

    @property
    def is_rectified(self) -> bool:
        """Whether the second layer sees no negative values."""
        return self.rectifier is not None and is_rectifier(self.rectifier)

    @property
    def is_padded(self) -> bool:
        """Whether the second layer sees zeros that no channel has written."""
        auto_pad = self.second.attributes.get_string("auto_pad", "NOTSET")
        transposed = self.second.op_type == "ConvTranspose"
        return transposed or auto_pad.startswith("SAME") or any(integers(self.second, "pads", ()))


def chains(model: ir.Model) -> list[list[Link]]:
    """All chains of a prepared model, in topological order."""
    readers = users(model.graph)
    found: dict[ir.Node, list[Link]] = {}
    for node in model.graph:
        link = _link(node, readers)
        if link is not None:
            before = found.pop(node, []) if is_depthwise(node) else []
            found[link.second] = [*before, link]
    return list(found.values())


def output_ranges(node: ir.Node) -> FloatArray:
    """Largest absolute weight of every output channel of a layer."""
    return _ranges(node, *_by_output(node))


def input_ranges(node: ir.Node) -> FloatArray:
    """Largest absolute weight on every input channel of a layer."""
    return _ranges(node, *_by_input(node))


def is_depthwise(node: ir.Node) -> bool:
    """Whether a layer of a link is a convolution of each channel by itself."""
    groups = integer(node, "group", 1)
    return node.op_type != "Gemm" and groups == output_ranges(node).size == input_ranges(node).size


def rescale(link: Link, factors: FloatArray, lowered: FloatArray) -> None:
    """Move and scale the channels of a link, in place, without changing what the second layer computes.

    A channel x becomes factor * (x - lowered): the first layer writes it, the second takes it. Lowering
    changes nothing where x >= lowered before the rectifier; scaling never does.

    Args:
        link: Of the model at hand; its nodes are not to be used again if its rectifier has a maximum.
        factors: float64 [channels], > 0.
        lowered: float64 [channels], >= 0; zeros where the link is padded or not rectified.
    """
    first, second = link.first.inputs, link.second.inputs
    split, kept = _by_input(link.second)
    taken = (_values(second[1]).reshape(split) * lowered.reshape(kept)).reshape(_values(second[1]).shape)
    _put(second[2], _values(second[2]) + _sum_by_output(link.second, taken))
    _multiply(link.second, 1 / factors, split, kept)
    _multiply(link.first, factors, *_by_output(link.first))
    _put(first[2], (_values(first[2]) - lowered) * factors)
    if link.rectifier is not None and np.isfinite(link.maximum):
        _limit(link.rectifier, (link.maximum - lowered) * factors)


def _link(node: ir.Node, readers: Readers) -> Link | None:
    if not _may_scale(node, readers):
        return None
    value, rectifier, maximum = node.outputs[0], None, float("inf")
    reader = _only_reader(value, readers)
    if reader is not None and (is_rectifier(reader) or reader.op_type in _HOMOGENEOUS):
        value, rectifier = reader.outputs[0], reader
        maximum = rectifier_maximum(reader)
        reader = _only_reader(value, readers)
    if reader is None or not _may_scale(reader, readers):
        return None
    fits = output_ranges(node).shape == input_ranges(reader).shape and value.shape is not None
    return Link(node, rectifier, reader, maximum) if fits else None


def _only_reader(value: ir.Value, readers: Readers) -> ir.Node | None:
    """The one node that reads a value, as its first input."""
    found = readers.get(value, [])
    alone = len(found) == 1 and found[0][1] == 0 and not value.is_graph_output()
    return found[0][0] if alone else None


def _may_scale(node: ir.Node, readers: Readers) -> bool:
    """Whether a layer's weight and bias are constants of its own, and its output is their plain product."""
    if node.op_type not in _LAYERS or weight_input(node) != 1 or not is_plain_product(node):
        return False
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    tensor = constant(bias)
    if weight is None or bias is None or tensor is None:
        return False
    alone = all(len(readers.get(value, [])) == 1 and not value.is_graph_output() for value in (weight, bias))
    return alone and tensor.shape.numpy() == output_ranges(node).shape


def _by_output(node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape for the weight and a shape for one value per output channel that broadcasts against it."""
    shape = _values(node.inputs[1]).shape
    if node.op_type == "Gemm":
        return shape, (shape[0], 1) if integer(node, "transB", 0) else (1, shape[1])
    ones = (1,) * (len(shape) - 2)
    if node.op_type == "Conv":
        return shape, (shape[0], 1, *ones)
    groups = integer(node, "group", 1)
    return (groups, shape[0] // groups, *shape[1:]), (groups, 1, shape[1], *ones)


def _by_input(node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same for one value per input channel."""
    shape = _values(node.inputs[1]).shape
    if node.op_type == "Gemm":
        return shape, (1, shape[1]) if integer(node, "transB", 0) else (shape[0], 1)
    ones = (1,) * (len(shape) - 2)
    if node.op_type == "ConvTranspose":
        return shape, (shape[0], 1, *ones)
    groups = integer(node, "group", 1)
    return (groups, shape[0] // groups, *shape[1:]), (groups, 1, shape[1], *ones)


def _ranges(node: ir.Node, split: tuple[int, ...], kept: tuple[int, ...]) -> FloatArray:
    values = np.abs(_values(node.inputs[1])).reshape(split)
    others = tuple(axis for axis, size in enumerate(kept) if size == 1)
    return np.asarray(values.max(axis=others, initial=0.0)).ravel()


def _multiply(node: ir.Node, factors: FloatArray, split: tuple[int, ...], kept: tuple[int, ...]) -> None:
    values = _values(node.inputs[1])
    _put(node.inputs[1], (values.reshape(split) * factors.reshape(kept)).reshape(values.shape))


def _sum_by_output(node: ir.Node, values: FloatArray) -> FloatArray:
    """Sum of an array of the weight's shape over all but the output channels."""
    split, kept = _by_output(node)
    others = tuple(axis for axis, size in enumerate(kept) if size == 1)
    return np.asarray(values.reshape(split).sum(axis=others)).ravel()


def _limit(clip: ir.Node, limits: FloatArray) -> None:
    """Replace a Clip by Relu and Min."""
    graph, source, result = clip.graph, clip.inputs[0], clip.outputs[0]
    assert graph is not None
    assert source is not None
    assert source.shape is not None
    shape = (1, limits.size, *(1,) * (len(source.shape) - 2))
    stored = make_initializer(graph, f"{result.name}_limits", limits.astype(np.float32).reshape(shape))
    relu = ir.node("Relu", [source], name=f"{clip.name}_relu")
    minimum = ir.node("Min", [relu.outputs[0], stored], name=f"{clip.name}_min")
    for node in (relu, minimum):
        node.outputs[0].shape, node.outputs[0].type = result.shape, result.type
    relu.outputs[0].name = f"{result.name}_rectified"
    minimum.outputs[0].name = f"{result.name}_limited"
    result.replace_all_uses_with(minimum.outputs[0])
    graph.insert_after(clip, [relu, minimum])
    graph.remove(clip, safe=True)


def _values(value: ir.Value | None) -> FloatArray:
    tensor = constant(value)
    assert tensor is not None
    return np.asarray(tensor.numpy(), dtype=np.float64)


def _put(value: ir.Value | None, values: FloatArray) -> None:
    assert value is not None
    value.const_value = ir.tensor(values.astype(np.float32), name=value.name)
