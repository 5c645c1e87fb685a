"""Move scales of channels from a value into the gate that it is multiplied by.

In squeeze and excitation a gate, one number for each channel of a sample, multiplies what a convolution
writes. The product stays the same where each channel of the value is divided by some number and that of the
gate multiplied by it. Layers that read the mean of the value take the numbers into their weights.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.layer_kinds import LayerKind, kind_of
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.rewriting.activation_scales import (
    CHANNELS,
    Product,
    divide,
    insert_factors,
    of_channels,
    written_images,
)
from onnx_lapq.graph.simplify.idioms.affine_steps import read_by_one

__all__ = ["Gated", "divide_gated", "gated_values"]


@dataclass(frozen=True, eq=False)
class Gated:
    """A quantized value, [N, C, *spatial], that gates multiply, and that nothing else reads but its mean.

    Attributes:
        channels: C.
        product: The value with what writes it and the layers that read its mean.
        gates: The Muls, and at which input each has its gate, [N, C, 1, ...]; at least one.
    """

    channels: int
    product: Product
    gates: tuple[tuple[ir.Node, int], ...]

    @property
    def names(self) -> list[str]:
        """Names of the value and of each gate."""
        gates = [node.inputs[index] for node, index in self.gates]
        return [gate.name or "" for gate in (self.product.value, *gates) if gate is not None]


def gated_values(model: ir.Model, placement: Placement) -> list[Gated]:
    """The gated values whose channels may be scaled.

    Args:
        model: A prepared model.
        placement: Its quantizers.
    """
    weights = {name: site for site in placement.weights for name in site.layers}
    found = []
    for image in written_images(model, placement):
        value = image.value
        gates = tuple((node, 1 - at) for node, at in value.uses() if _is_gate(value, node, 1 - at))
        multiplied = {node for node, _ in gates}
        layers = _behind_means(node for node, _ in value.uses() if node not in multiplied)
        if layers is None or value.is_graph_output():
            continue
        if not any(node.name in placement.arithmetic for node in multiplied):  # all products are in float
            continue
        own = tuple(weights.get(layer.node.name or "") for layer in layers)
        product = Product(value, CHANNELS, layers, image.site.bits, own, image.writers)
        found.append(Gated(image.channels, product, gates))
    return found


def divide_gated(graph: ir.Graph, gated: Gated, divisors: FloatArray) -> None:
    """Divide the channels of a value, and multiply its gates and what reads its mean, in place.

    Args:
        graph: Where they stand.
        gated: As `gated_values` found it.
        divisors: float64 [channels], > 0.
    """
    divide(graph, gated.product, divisors)
    readers: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
    for node, index in gated.gates:
        gate = node.inputs[index]
        assert gate is not None
        readers.setdefault(gate, []).append((node, index))
    for gate, its in readers.items():
        insert_factors(graph, gate, of_channels(gate, divisors), its)


def _is_gate(value: ir.Value, node: ir.Node, index: int) -> bool:
    """Whether a node multiplies the value by one number for each channel, which its input at the index is."""
    if node.op_type != "Mul" or node.domain != "" or value.shape is None:
        return False
    gate, producer = node.inputs[index], value.producer()
    if gate is None or gate is value or gate.shape is None or constant(gate) is not None:
        return False
    if producer is None or node.graph is not producer.graph:  # it stands in a sub-graph
        return False
    return list(gate.shape)[1:] == [value.shape[CHANNELS], *[1] * (len(value.shape) - 2)]


def _behind_means(readers: Iterable[ir.Node]) -> tuple[LayerKind, ...] | None:
    """The layers that read the means that these nodes take; None where anything else is read."""
    found = []
    for node in readers:
        if node.op_type != "GlobalAveragePool" or node.outputs[0].is_graph_output():
            return None
        for reader, index in node.outputs[0].uses():
            fits = index == 0 and reader.op_type == "Conv" and reader.graph is node.graph
            layer = kind_of(reader) if fits else None
            if layer is None or layer.weight is None or layer.groups > 1 or not read_by_one(layer.weight):
                return None
            found.append(layer)
    return tuple(found)
