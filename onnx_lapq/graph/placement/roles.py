"""What each node does in a quantized network, and why it may stay in float."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnx_lapq.graph.layer_kinds import kind_of, kinds_of
from onnx_lapq.graph.placement import operators
from onnx_lapq.graph.placement.integer_nodes import nodes_on_codes
from onnx_lapq.graph.placement.layer_bits import LayerBits, is_layer
from onnx_lapq.graph.placement.options import FLOAT_BITS
from onnx_lapq.graph.subgraphs import users

__all__ = ["Edge", "FloatNode", "Roles", "in_float", "name_of"]

Edge = tuple[str, int]
"""A node's name and the index of one of its inputs."""

_BEFORE_SOFTMAX = ("Add", "Cast", "Div", "Mul", "Tanh", "Where")


@dataclass(frozen=True)
class FloatNode:
    """A node that computes in float.

    Attributes:
        name: The node's name.
        op_type: Its operator.
        reason: Why.
    """

    name: str
    op_type: str
    reason: str


class Roles:
    """A graph with the readers of its values and the bits of its layers."""

    def __init__(self, model: ir.Model, bits: LayerBits) -> None:
        self.graph = model.graph
        self.bits = bits
        self._users = users(model.graph)
        self._before_softmax = self._find_before_softmax()
        self._arithmetic = nodes_on_codes(
            [node for node in model.graph if self._may_run_on_codes(node)],
            self._users,
            writes_codes=self.writes_codes,
            reads_codes=lambda node, index: self.width(node, index) is not None,
        )

    def users(self, value: ir.Value) -> list[tuple[ir.Node, int]]:
        """Nodes that read a value, and at which input; -1 where a sub-graph of theirs does."""
        return self._users.get(value, [])

    def width(self, node: ir.Node, index: int) -> int | None:
        """Bits that an edge asks for; None where it is not the quantized input of a layer."""
        if not is_layer(node) or index not in operators.activation_inputs(node):
            return None
        width = self.bits.activation(node)
        return None if width == FLOAT_BITS else width

    def writes_codes(self, node: ir.Node) -> bool:
        """Whether the kernel of a layer needs a quantizer behind it; Gemm and MatMul write float too."""
        layer = kind_of(node)
        return (
            layer is not None
            and layer.writes_codes
            and layer.weight is not None
            and self.bits.activation(node) != FLOAT_BITS
        )

    def is_arithmetic(self, node: ir.Node) -> bool:
        """Whether the node runs on 8-bit codes between layers."""
        return node in self._arithmetic

    def _may_run_on_codes(self, node: ir.Node) -> bool:
        return (
            node.domain == ""
            and node.op_type in self.bits.arithmetic
            and len(operators.activation_inputs(node)) == len(node.inputs)
            and self.bits.may_run_on_codes(node)
            and not operators.is_function_of_itself(node)
            and (node.op_type not in operators.GATES or operators.gate(node) is not None)
            and not self.feeds_softmax(node)
        )

    def feeds_softmax(self, node: ir.Node) -> bool:
        """Whether a Softmax reads a node, at most behind a scale, a mask or a soft cap.

        Masks reach down to minus infinity there, which no step size takes.
        """
        return node in self._before_softmax

    def _find_before_softmax(self) -> set[ir.Node]:
        found: set[ir.Node] = set()
        for node in reversed(self.graph):
            readers = (reader for value in node.outputs for reader, _ in self.users(value))
            if any(
                reader.op_type == "Softmax" or (reader.op_type in _BEFORE_SOFTMAX and reader in found)
                for reader in readers
            ):
                found.add(node)
        return found


def in_float(roles: Roles, weights: set[str], quantized: set[Edge]) -> Iterator[FloatNode]:
    """The nodes that compute in float, each with the reason.

    Args:
        roles: Of all nodes.
        weights: Names of the quantized weights.
        quantized: Edges that read a quantizer.
    """
    for node in roles.graph:
        reason = _why_float(roles, node, weights, quantized)
        if reason is not None:
            yield FloatNode(name_of(node), node.op_type, reason)


def name_of(thing: ir.Node | ir.Value | None) -> str:
    """The name of a node or value; a prepared model has one for each."""
    assert thing is not None
    assert thing.name is not None
    return thing.name


def _why_float(roles: Roles, node: ir.Node, weights: set[str], quantized: set[Edge]) -> str | None:
    if node.domain != "":
        return f"operators of domain {node.domain!r} are not known"
    if node.op_type in operators.CONTROL_FLOW:
        return "control flow and its sub-graphs stay in float"
    if not any(operators.is_activation(value) for value in (*node.inputs, *node.outputs)):
        return None
    if not roles.bits.takes_part(node):
        return "left out by the options"
    if is_layer(node):
        return _why_float_layer(roles, node, weights, quantized)
    if operators.is_data_movement(node) or operators.is_rectifier(node) or roles.is_arithmetic(node):
        return None
    if kind_of(node) is not None:
        on_the_left = node.op_type == "MatMul" and not operators.is_activation(node.inputs[0])
        return f"its weight {'is its first factor' if on_the_left else 'is not a constant float tensor'}"
    if operators.scales(node):
        return "takes divided channels back to their ranges (--keep-scales leaves it out)"
    if node.op_type not in roles.bits.arithmetic:
        return "onnxruntime has no integer kernel for it, or it is worth more in float"
    if not roles.bits.may_run_on_codes(node):
        return "32 bits asked for it"
    if node not in roles.bits.before_a_layer:
        return "behind the last layer"
    if operators.is_function_of_itself(node):
        return "part of an activation function"
    if roles.feeds_softmax(node):
        return "scores of a Softmax, which stays in float"
    if len(operators.activation_inputs(node)) < len(node.inputs):
        return "one of its inputs is a constant"
    return "between nodes that compute in float"


def _why_float_layer(roles: Roles, node: ir.Node, weights: set[str], quantized: set[Edge]) -> str | None:
    if node in roles.bits.fixed_transforms:
        return "a fixed transform of sound, which needs more than 8 bits"
    if node in roles.bits.soft_argmaxes:
        return "it only reads a position off probabilities"
    if node in roles.bits.quicker_in_float:
        return "with few channels, or many groups, it is quicker in float (--bits NAME=8 puts it on integers)"
    for layer in kinds_of(node):
        if layer.weight is not None and name_of(layer.weight) not in weights:
            if roles.bits.weight(layer) == FLOAT_BITS:
                return "32 bits asked for its weight"
            return "its weight is also read by a node that does not quantize it"
        if layer.in_float:
            return "recurrent operators compute in float, on weights that are stored in codes"
        if roles.bits.in_float(layer):
            return "it reads a spectrum, whose quiet parts need more than 8 bits"
    if roles.bits.is_float_product(node):
        return "products of two activations are faster in float"
    if roles.bits.activation(node) == FLOAT_BITS:
        return "32 bits asked for its input"
    if any((name_of(node), place) not in quantized for place in operators.activation_inputs(node)):
        return "its input is not quantized"
    return None
