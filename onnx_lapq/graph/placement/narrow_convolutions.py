"""Convolutions whose integer kernels take longer than float, on x86.

An integer kernel gains by its products and loses by what it does once for each value that it writes. A
convolution of few channels, or of many groups, has few products (docs/measurements/speed.md, "Narrow
convolutions").
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from onnx_lapq.graph.layer_kinds import LayerKind, kind_of
from onnx_lapq.graph.placement import operators

__all__ = ["quicker_in_float"]

_FEW_PRODUCTS = 32
"""For each value written: so few are not worth codes for what float reads."""

_FEW_PRODUCTS_OF_GROUPS = 48
"""Windows of several groups, unless each has one channel, are arranged for every group apart."""


def quicker_in_float(nodes: Iterable[ir.Node]) -> set[ir.Node]:
    """The convolutions that are quicker in float.

    Those of several groups of channels and few products are so everywhere. Those of few products that write
    more channels than they read are so where all that reads them computes in float: an activation function
    that is made of the value and a gate, as HardSwish and SiLU are, an operator without an integer kernel, or
    another one of them. Depthwise convolutions are so where they read float, too.

    Args:
        nodes: The nodes of a prepared graph to choose from.
    """
    layers = [layer for node in nodes if node.op_type == "Conv" and (layer := kind_of(node)) is not None]
    known = [layer for layer in layers if layer.weight is not None]
    grouped = {layer.node for layer in known if _has_narrow_groups(layer)}
    narrow = [layer for layer in known if _is_narrow(layer)]
    while True:
        around = _Around(grouped | {layer.node for layer in narrow})
        fit = [layer for layer in narrow if around.is_better_in_float(layer)]
        if len(fit) == len(narrow):
            return around.in_float
        narrow = fit


@dataclass(frozen=True)
class _Around:
    """What is computed in float around layers, given those that are.

    Attributes:
        in_float: These layers.
    """

    in_float: set[ir.Node]

    def is_better_in_float(self, layer: LayerKind) -> bool:
        """Whether codes would be for nothing."""
        reads_float = not layer.is_depthwise or self._is_written_in_float(layer.node.inputs[0])
        return reads_float and self._is_read_in_float(layer.node.outputs[0])

    def _is_written_in_float(self, value: ir.Value | None) -> bool:
        producer = None if value is None else value.producer()
        if producer is None or producer in self.in_float:
            return True
        if operators.is_rectifier(producer) or operators.is_data_movement(producer):
            return self._is_written_in_float(producer.inputs[0])
        gated = next((source for source in producer.inputs if _product_with_own_gate(source) is value), None)
        if gated is not None:
            return self._is_written_in_float(gated)
        return _has_no_kernel(producer)

    def _is_read_in_float(self, value: ir.Value) -> bool:
        readers = [node for node, _ in value.uses()]
        if not readers or value.is_graph_output():
            return False
        return _product_with_own_gate(value) is not None or all(map(self._reads_float, readers))

    def _reads_float(self, node: ir.Node) -> bool:
        if operators.is_rectifier(node) or operators.is_data_movement(node):
            return all(map(self._is_read_in_float, node.outputs))
        return node in self.in_float or _has_no_kernel(node)


def _has_narrow_groups(layer: LayerKind) -> bool:
    _, inputs, *taps = layer.shape
    is_split = layer.groups > 1 and not layer.is_depthwise and prod(taps) > 1
    return is_split and inputs * prod(taps) <= _FEW_PRODUCTS_OF_GROUPS


def _is_narrow(layer: LayerKind) -> bool:
    outputs, inputs, *taps = layer.shape
    widens = inputs * prod(taps) <= _FEW_PRODUCTS and outputs > inputs * layer.groups
    return layer.is_depthwise or widens


def _product_with_own_gate(value: ir.Value | None) -> ir.Value | None:
    """What an activation function makes of a value, where it is one with a gate that nothing else reads."""
    found = None if value is None else operators.own_gate(value)
    return None if found is None else found[1]


def _has_no_kernel(node: ir.Node) -> bool:
    """Whether no integer kernel computes what a node does with its inputs."""
    has_constants = len(operators.activation_inputs(node)) < len(node.inputs)
    is_float = operators.is_function_of_itself(node) or not operators.has_integer_kernel(node)
    return is_float or (has_constants and kind_of(node) is None)
