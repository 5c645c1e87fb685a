"""Chains of layers between which channels may be scaled.

A *link* is a value that one layer writes and one other reads, with nothing between them but a rectifier.
Multiplying its channels by positive factors in the first layer and dividing by them in the second changes
nothing. Links that meet in a depthwise convolution form a *chain*: the two factors on a channel of such a
convolution meet in the same weights.

Scaling moves the upper limit of a channel of a Relu6; the Clip then becomes Relu and a Min with one limit per
channel, which a quantizer absorbs as well (`onnx_lapq.graph.writing.qdq`): with codes that end at the limit
of each channel, or all at the smallest one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import constant, float_values, new_initializer
from onnx_lapq.graph.layer_kinds import LayerKind, kind_of
from onnx_lapq.graph.placement.operators import is_rectifier, mark_saturating, rectifier_maximum
from onnx_lapq.graph.subgraphs import users

__all__ = ["Link", "chains", "input_ranges", "output_ranges", "rescale"]

Shape = tuple[int, ...]
Readers = Mapping[ir.Value, Sequence[tuple[ir.Node, int]]]

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

    first: LayerKind
    rectifier: ir.Node | None
    second: LayerKind
    maximum: float

    @property
    def value(self) -> str:
        """Name of what the first layer writes."""
        name = self.first.node.outputs[0].name
        assert name is not None
        return name

    @property
    def is_rectified(self) -> bool:
        """Whether the second layer sees no negative values."""
        return self.rectifier is not None and is_rectifier(self.rectifier)


def chains(model: ir.Model) -> list[list[Link]]:
    """All chains of a prepared model, in topological order."""
    readers = users(model.graph)
    # the chain that ends in a layer, by that layer; a link out of a depthwise convolution lengthens it
    found: dict[ir.Node, list[Link]] = {}
    for node in model.graph:
        link = _link(node, readers)
        if link is not None:
            before = found.pop(node, []) if link.first.is_depthwise else []
            found[link.second.node] = [*before, link]
    return list(found.values())


def output_ranges(layer: LayerKind) -> FloatArray:
    """Largest absolute weight of every output channel of a layer."""
    return _ranges(layer, *_by_output(layer))


def input_ranges(layer: LayerKind) -> FloatArray:
    """Largest absolute weight on every input channel of a layer."""
    return _ranges(layer, *_by_input(layer))


def rescale(link: Link, factors: FloatArray, lowered: FloatArray, *, saturates: bool = False) -> None:
    """Move and scale the channels of a link, in place, without changing what the second layer computes.

    A channel x becomes factor * (x - lowered): the first layer writes it, the second takes it. Lowering
    changes nothing where x >= lowered before the rectifier; scaling never does.

    Args:
        link: Of the model at hand; its nodes are not to be used again if its rectifier has a maximum.
        factors: float64 [channels], > 0.
        lowered: float64 [channels], >= 0; zeros where the link is padded or not rectified.
        saturates: Whether the codes of all channels are to end at the smallest limit of a channel.
    """
    first, second = link.first.node.inputs, link.second.node.inputs
    # With f the factors and l what is lowered, W x = (W / f) (f (x - l)) + W l, and W l goes into the bias of
    # the second layer. That holds for windows without padding, whose zeros nothing has lowered.
    split, kept = _by_input(link.second)
    weight = float_values(second[1])
    taken = (weight.reshape(split) * lowered.reshape(kept)).reshape(weight.shape)
    _put(second[2], float_values(second[2]) + _sum_by_output(link.second, taken))
    _multiply(link.second, 1 / factors, split, kept)
    _multiply(link.first, factors, *_by_output(link.first))
    _put(first[2], (float_values(first[2]) - lowered) * factors)
    if link.rectifier is not None and np.isfinite(link.maximum):
        minimum = _limit(link.rectifier, (link.maximum - lowered) * factors)
        if saturates:
            mark_saturating(minimum)


def _link(node: ir.Node, readers: Readers) -> Link | None:
    first = _scalable(node, readers)
    if first is None:
        return None
    value, rectifier, maximum = node.outputs[0], None, float("inf")
    reader = _only_reader(value, readers)
    if reader is not None and (is_rectifier(reader) or reader.op_type in _HOMOGENEOUS):
        value, rectifier = reader.outputs[0], reader
        maximum = rectifier_maximum(reader)
        reader = _only_reader(value, readers)
    second = None if reader is None else _scalable(reader, readers)
    if second is None or value.shape is None:
        return None
    fits = output_ranges(first).shape == input_ranges(second).shape
    return Link(first, rectifier, second, maximum) if fits else None


def _only_reader(value: ir.Value, readers: Readers) -> ir.Node | None:
    """The one node that reads a value, as its first input."""
    found = readers.get(value, [])
    alone = len(found) == 1 and found[0][1] == 0 and not value.is_graph_output()
    return found[0][0] if alone else None


def _scalable(node: ir.Node, readers: Readers) -> LayerKind | None:
    """The layer, if its weight and bias are constants of its own, and its output is their plain product."""
    layer = kind_of(node)
    if layer is None or layer.weight is None or layer.bias_index is None or not layer.is_plain:
        return None
    bias = node.inputs[layer.bias_index] if len(node.inputs) > layer.bias_index else None
    tensor = constant(bias)
    if bias is None or tensor is None:
        return None
    own = (layer.weight, bias)
    alone = all(len(readers.get(value, [])) == 1 and not value.is_graph_output() for value in own)
    return layer if alone and tensor.shape.numpy() == (layer.output_channels,) else None


def _by_output(layer: LayerKind) -> tuple[Shape, Shape]:
    return layer.channel_shapes(layer.axis)


def _by_input(layer: LayerKind) -> tuple[Shape, Shape]:
    return layer.channel_shapes(1 - layer.axis)


def _ranges(layer: LayerKind, split: Shape, kept: Shape) -> FloatArray:
    values = np.abs(float_values(layer.weight)).reshape(split)
    return np.asarray(values.max(axis=_ones(kept), initial=0.0)).ravel()


def _multiply(layer: LayerKind, factors: FloatArray, split: Shape, kept: Shape) -> None:
    values = float_values(layer.weight)
    _put(layer.weight, (values.reshape(split) * factors.reshape(kept)).reshape(values.shape))


def _sum_by_output(layer: LayerKind, values: FloatArray) -> FloatArray:
    """Sum of an array of the weight's shape over all but the output channels."""
    split, kept = _by_output(layer)
    return np.asarray(values.reshape(split).sum(axis=_ones(kept))).ravel()


def _ones(kept: Shape) -> tuple[int, ...]:
    """The axes of a shape that hold no channels."""
    return tuple(axis for axis, size in enumerate(kept) if size == 1)


def _limit(clip: ir.Node, limits: FloatArray) -> ir.Node:
    """Replace a Clip by Relu and Min; gives the Min."""
    graph, source, result = clip.graph, clip.inputs[0], clip.outputs[0]
    assert graph is not None
    assert source is not None
    assert source.shape is not None
    shape = (1, limits.size, *(1,) * (len(source.shape) - 2))
    stored = new_initializer(graph, f"{result.name}_limits", limits.astype(np.float32).reshape(shape))
    relu = ir.node("Relu", [source], name=f"{clip.name}_relu")
    minimum = ir.node("Min", [relu.outputs[0], stored], name=f"{clip.name}_min")
    for node in (relu, minimum):
        node.outputs[0].shape, node.outputs[0].type = result.shape, result.type
    relu.outputs[0].name = f"{result.name}_rectified"
    minimum.outputs[0].name = f"{result.name}_limited"
    result.replace_all_uses_with(minimum.outputs[0])
    graph.insert_after(clip, [relu, minimum])
    graph.remove(clip, safe=True)
    return minimum


def _put(value: ir.Value | None, values: FloatArray) -> None:
    assert value is not None
    value.const_value = ir.tensor(values.astype(np.float32), name=value.name)
