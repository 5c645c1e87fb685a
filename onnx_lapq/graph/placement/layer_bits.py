"""What the user wants quantized, node by node of a graph."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import onnx_ir as ir

from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.layer_kinds import LayerKind, kind_of, kinds_of, weights_of
from onnx_lapq.graph.placement import operators
from onnx_lapq.graph.placement.fixed_transforms import is_fixed_transform, reads_a_spectrum
from onnx_lapq.graph.placement.narrow_convolutions import quicker_in_float
from onnx_lapq.graph.placement.options import FLOAT_BITS, GLUE_BITS, WIDE_BITS, BitsRule, PlacementOptions
from onnx_lapq.graph.placement.soft_argmax import is_soft_argmax

__all__ = ["SAFE_BITS", "LayerBits", "check_patterns", "is_layer"]

FIRST_LAST_BITS = 8
SAFE_BITS = 7
"""Weights of so many, times activations of 8, never overflow a sum of two products in 16 bits."""


def is_layer(node: ir.Node) -> bool:
    """Whether the node is a compute layer: it has a constant weight, or multiplies two activations."""
    layer = kind_of(node)
    return bool(weights_of(node)) or (layer is not None and len(operators.activation_inputs(node)) == 2)


class LayerBits:
    """Bits of every compute layer's weight and input, and which other nodes take part.

    Args:
        model: A prepared model.
        options: What the user asked for.
    """

    def __init__(self, model: ir.Model, options: PlacementOptions) -> None:
        self.layers = [node for node in model.graph if is_layer(node)]
        compute = set(self.layers)
        self.arithmetic = operators.ARITHMETIC | (operators.GATES if options.rescales else set())
        self._options = options
        free = [node for node in self.layers if self.takes_part(node) and self.rule(node) is None]
        self.fixed_transforms = {node for node in free if is_fixed_transform(node)}
        readings = {node for node in self.layers if is_soft_argmax(node)}
        self.soft_argmaxes = readings & set(free)
        self._behind_a_spectrum = {
            node for node in free if self.fixed_transforms and reads_a_spectrum(node, self.fixed_transforms)
        } - self.fixed_transforms
        upstream = _reached(model.graph, compute, forward=True)
        self.before_a_layer = _reached(model.graph, compute - readings, forward=False)
        self._ends = {node for node in self.layers if node not in upstream or node not in self.before_a_layer}
        self._left = self.fixed_transforms | self.soft_argmaxes
        self.quicker_in_float = self._find_quicker_in_float(free) if options.float_narrow else set()
        self._left |= self.quicker_in_float

    def weight(self, layer: LayerKind) -> int:
        """Bits that the options give a layer's weight."""
        chosen = None if layer.weight is None else self._options.chosen.get(layer.weight.name or "")
        if chosen is not None:
            return chosen
        rule = self.rule(layer.node)
        return self._of(layer.node, self._options.weight_bits, rule.weights if rule else None)

    def written(self, layers: Sequence[LayerKind]) -> tuple[int, int]:
        """Bits that a weight takes, and how far apart in a row codes are that share what 16 bits hold.

        Args:
            layers: All that read the weight.

        Returns:
            The bits, and 0 where no codes share anything.
        """
        bits = max(map(self.weight, layers))
        apart = {(layer.apart, layer.axis) for layer in layers if bits == 8 and self._adds_pairs(layer)}
        if not apart:
            return bits, 0
        (first, axis), *others = apart
        # Which codes are neighbours is looked up along the rows of the first layer.
        is_clear = first is not None and not others and axis == layers[0].axis
        return (bits, first or 0) if is_clear else (SAFE_BITS, 0)

    def _adds_pairs(self, layer: LayerKind) -> bool:
        """Whether a processor may add products of the codes in 16 bits."""
        adds_codes = layer.apart != 0 and not self.in_float(layer)
        return self._options.adds_pairs and adds_codes and self.activation(layer.node) <= GLUE_BITS

    def activation(self, node: ir.Node) -> int:
        """Bits of the inputs of a layer, or of a node between layers."""
        if node in self._behind_a_spectrum or self.is_float_product(node):
            return FLOAT_BITS
        rule = self.rule(node)
        return self._of(node, self._options.activation_bits, rule.activations if rule else None)

    def kernel(self, node: ir.Node) -> int:
        """Bits of the integers that a node computes on; its codes may have fewer."""
        return WIDE_BITS if self.activation(node) == WIDE_BITS else GLUE_BITS

    def in_float(self, layer: LayerKind) -> bool:
        """Whether a layer computes in float, by its kind or for the range of what it reads."""
        return layer.in_float or layer.node in self._behind_a_spectrum

    def is_float_product(self, node: ir.Node) -> bool:
        """Whether a node multiplies two activations, and the target does that in float."""
        is_product = node.op_type == "MatMul" and len(operators.activation_inputs(node)) == 2
        return is_product and self._options.float_products

    def rule(self, node: ir.Node) -> BitsRule | None:
        """What the options say of a node, if anything."""
        return next((rule for rule in reversed(self._options.bits) if _matches(node, rule.pattern)), None)

    def takes_part(self, node: ir.Node) -> bool:
        """Whether the options leave a node in."""
        options = self._options
        if options.op_types and node.op_type not in options.op_types:
            return False
        if options.include and not any(_matches(node, pattern) for pattern in options.include):
            return False
        return not any(_matches(node, pattern) for pattern in options.exclude)

    def may_run_on_codes(self, node: ir.Node) -> bool:
        """Whether the options leave a node between layers to an integer kernel."""
        rule = self.rule(node)
        return self.takes_part(node) and (rule is None or rule.activations != FLOAT_BITS)

    def _find_quicker_in_float(self, free: Sequence[ir.Node]) -> set[ir.Node]:
        """Those among some layers that are left in float for speed; none where nothing else is quantized."""
        on_codes = {node for node in self.layers if self._is_quantized(node)}
        found = quicker_in_float(on_codes.intersection(free), set(self.layers) - on_codes)
        return found if found < on_codes else set()

    def _is_quantized(self, node: ir.Node) -> bool:
        """Whether a layer's input or a weight of it has codes."""
        weights = (layer for layer in kinds_of(node) if layer.weight is not None)
        return self.activation(node) != FLOAT_BITS or any(self.weight(each) != FLOAT_BITS for each in weights)

    def _of(self, node: ir.Node, asked: int, exception: int | None) -> int:
        if not self.takes_part(node) or node in self._left:
            return FLOAT_BITS
        if exception is not None:
            return exception
        if asked == FLOAT_BITS or node not in self._ends or self._options.first_last == "same":
            return asked
        return FLOAT_BITS if self._options.first_last == "float" else max(asked, FIRST_LAST_BITS)


def check_patterns(model: ir.Model, options: PlacementOptions) -> None:
    """Refuse patterns that match nothing, before a rewriting takes away what they name.

    Args:
        model: The prepared model, as `onnx-lapq inspect` lists it.
        options: What the user asked for.

    Raises:
        ConfigError: A pattern matches no node.
    """
    nodes = list(model.graph)
    patterns = [("--include", pattern) for pattern in options.include]
    patterns += [("--exclude", pattern) for pattern in options.exclude]
    patterns += [("--bits", rule.pattern) for rule in options.bits]
    for option, pattern in patterns:
        if not any(_matches(node, pattern) for node in nodes):
            raise ConfigError(
                f"{option} {pattern!r} matches no node; `onnx-lapq inspect` lists the names of the nodes"
            )
    missing = set(options.op_types) - {node.op_type for node in nodes}
    if missing:
        raise ConfigError(
            f"--op-types {min(missing)!r}: the model has no such operator; "
            "`onnx-lapq inspect` lists its layers"
        )


def _matches(node: ir.Node, pattern: str) -> bool:
    return fnmatchcase(node.name or "", pattern) or node.op_type == pattern


def _reached(graph: ir.Graph, sources: set[ir.Node], *, forward: bool) -> set[ir.Node]:
    """Nodes with a source strictly before (forward) or after (backward) them."""
    reached: set[ir.Node] = set()
    for node in graph if forward else reversed(graph):
        neighbours = node.predecessors() if forward else node.successors()
        if any(other in reached or other in sources for other in neighbours):
            reached.add(node)
    return reached
