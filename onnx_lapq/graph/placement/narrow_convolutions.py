"""Convolutions of images that are quicker in float than on integers, on x86.

An integer kernel gains by its products and loses by what it does once for each value that it writes. A
convolution of few channels, or of many groups, has few products (docs/measurements/speed.md, "Narrow
convolutions").
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from onnx_lapq.graph.layer_kinds import LayerKind, kind_of
from onnx_lapq.graph.placement import operators

__all__ = ["quicker_in_float"]

_FEW_PRODUCTS = 32
"""For each value written: so few are not worth codes for what float reads."""

_FEW_PRODUCTS_IN_DEPTH = 49
"""The same where each channel is by itself."""

_FEW_BEFORE_DEPTH, _LARGE_KERNEL = 16, 25
"""Products in front of a depthwise convolution of so many taps, which gains most by float."""

_FEW_PRODUCTS_OF_GROUPS = 48
"""Windows of groups of several channels are arranged for every group apart."""

_AXES_OF_IMAGE = 2


def quicker_in_float(nodes: Iterable[ir.Node], left: Collection[ir.Node]) -> set[ir.Node]:
    """The convolutions that are quicker in float.

    Those of groups, not of one channel each, and few products are so everywhere. Those of few products that
    write more channels than they read, and depthwise ones, are so where all that reads them computes in
    float: an activation function that is made of the value and a gate, as HardSwish and SiLU are, an operator
    without an integer kernel, or another one of them. They have to read float, too, but for those of windows
    of all channels, and those of fewest products in front of depthwise ones with large kernels.

    Args:
        nodes: The nodes of a prepared graph to choose from.
        left: Layers that compute in float in any case.
    """
    layers = [layer for node in nodes if node.op_type == "Conv" and (layer := kind_of(node)) is not None]
    found = [layer for layer in layers if layer.weight is not None and _is_narrow(layer)]
    while True:
        chosen = {layer.node for layer in found}
        around = _Around(chosen.union(left))
        fit = [layer for layer in found if around.is_better_in_float(layer)]
        if len(fit) == len(found):
            return chosen
        found = fit


@dataclass(frozen=True)
class _Around:
    """What is computed in float around layers, given those that are.

    Attributes:
        in_float: These layers.
    """

    in_float: set[ir.Node]

    def is_better_in_float(self, layer: LayerKind) -> bool:
        """Whether codes would be for nothing."""
        assert layer.weight is not None
        if not all(reader in self.in_float for reader, _ in layer.weight.uses()):
            return False
        if _is_split(layer):
            return True
        sees_all = prod(layer.shape[2:]) > 1 and not layer.is_depthwise
        begins = sees_all or self._is_before_depth(layer)
        reads_float = begins or self._is_written_in_float(layer.node.inputs[0])
        return reads_float and self._is_read_in_float(layer.node.outputs[0])

    def _is_before_depth(self, layer: LayerKind) -> bool:
        """Whether it has few products, and a large depthwise kernel reads what a gate makes of its output."""
        result = _of_own_gate(layer.node.outputs[0])
        readers = [] if result is None else [node for node, _ in result.uses()]
        is_small = not layer.is_depthwise and prod(layer.shape[1:]) <= _FEW_BEFORE_DEPTH
        return is_small and bool(readers) and all(map(self._is_large, readers))

    def _is_large(self, node: ir.Node) -> bool:
        layer = kind_of(node) if node in self.in_float else None
        return layer is not None and layer.is_depthwise and prod(layer.shape[2:]) >= _LARGE_KERNEL

    def _is_written_in_float(self, value: ir.Value | None) -> bool:
        producer = None if value is None else value.producer()
        while producer is not None and producer not in self.in_float:
            gated = next((source for source in producer.inputs if _of_own_gate(source) is value), None)
            if gated is None and not _passes_on(producer):
                return _has_no_kernel(producer)
            value = gated or producer.inputs[0]
            producer = None if value is None else value.producer()
        return True

    def _is_read_in_float(self, value: ir.Value) -> bool:
        pending = [value]
        for each in pending:
            readers = [node for node, _ in each.uses()]
            if not readers or each.is_graph_output():
                return False
            if _of_own_gate(each) is not None:
                continue
            passing = [node for node in readers if _passes_on(node)]
            if not all(node in self.in_float or _has_no_kernel(node) for node in set(readers) - set(passing)):
                return False
            pending.extend(output for node in passing for output in node.outputs if output not in pending)
        return True


def _is_narrow(layer: LayerKind) -> bool:
    outputs, inputs, *taps = layer.shape
    if len(taps) < _AXES_OF_IMAGE:
        return False
    products = inputs * prod(taps)
    if layer.groups == 1:
        return outputs > inputs and products <= _FEW_PRODUCTS
    if _is_split(layer):
        return products <= _FEW_PRODUCTS_OF_GROUPS
    return layer.is_depthwise and products <= _FEW_PRODUCTS_IN_DEPTH


def _is_split(layer: LayerKind) -> bool:
    """Whether there are groups that an integer kernel works on one by one."""
    return layer.groups > 1 and not layer.is_depthwise and prod(layer.shape[2:]) > 1


def _of_own_gate(value: ir.Value | None) -> ir.Value | None:
    """What an activation function makes of a value, where it is one with a gate that nothing else reads."""
    found = None if value is None else operators.own_gate(value)
    return None if found is None else found[1]


def _passes_on(node: ir.Node) -> bool:
    """Whether what reads the node's output decides how it is computed."""
    return operators.is_rectifier(node) or operators.is_data_movement(node) or operators.scales(node)


def _has_no_kernel(node: ir.Node) -> bool:
    """Whether no integer kernel computes what a node does with its inputs."""
    has_constants = len(operators.activation_inputs(node)) < len(node.inputs)
    is_float = operators.is_function_of_itself(node) or not operators.has_integer_kernel(node)
    return is_float or (has_constants and kind_of(node) is None)
