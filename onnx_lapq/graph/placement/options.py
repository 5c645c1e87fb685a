"""What the user wants quantized, node by node."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

import onnx_ir as ir

from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.layer_kinds import kind_of
from onnx_lapq.graph.placement import operators

__all__ = ["FLOAT_BITS", "BitsRule", "LayerBits", "PlacementOptions", "is_layer", "parse_bits_rule"]

FLOAT_BITS = 32
FIRST_LAST_BITS = 8

_WIDTHS = re.compile(r"w(?P<weights>\d+)|a(?P<activations>\d+)|w(?P<both_w>\d+)a(?P<both_a>\d+)|(?P<all>\d+)")


@dataclass(frozen=True)
class BitsRule:
    """Bits of the layers whose name or operator matches a glob; None leaves them as they are."""

    pattern: str
    weights: int | None
    activations: int | None


@dataclass(frozen=True)
class PlacementOptions:
    """What the user asked for; 32 bits means "leave in float".

    Attributes:
        weight_bits: 2 to 8, or 32.
        activation_bits: 2 to 8, or 32.
        per_channel: One weight scale per output channel instead of one per tensor.
        first_last: Bits of the first and last layers.
        policy: ``integer`` or ``paper``.
        include: Globs on node names and operators; where there are any, only nodes they match take part.
        exclude: Globs; nodes they match stay in float.
        op_types: Operators that take part; empty means all.
        bits: Exceptions to the bits above; the last rule that matches a layer holds, before `first_last`.
        widest_weight: Bits that weights of 8 bits take, but for embedding tables, which nothing multiplies.
        chosen: Bits of single weights by initializer name, which hold before all else.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = False
    first_last: Literal["8", "float", "same"] = "8"
    policy: Literal["integer", "paper"] = "integer"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    op_types: tuple[str, ...] = ()
    bits: tuple[BitsRule, ...] = ()
    widest_weight: int = 8
    chosen: Mapping[str, int] = field(default_factory=dict)


def parse_bits_rule(text: str) -> BitsRule:
    """Read ``PATTERN=BITS``, where BITS is ``8``, ``w4``, ``a8`` or ``w4a8``.

    Raises:
        ConfigError: The text has another form.
    """
    pattern, _, widths = text.rpartition("=")
    match = _WIDTHS.fullmatch(widths)
    if not pattern or match is None:
        raise ConfigError(f"bits {text!r}: give PATTERN=BITS, such as 'layer4*=8' or 'Gemm=w4a8'")
    found = {name: int(value) for name, value in match.groupdict().items() if value is not None}
    for bits in found.values():
        if bits != FLOAT_BITS and not 2 <= bits <= 8:
            raise ConfigError(
                f"bits {text!r}: {bits} is no bit width; give 2 to 8, or {FLOAT_BITS} for float"
            )
    weights = found.get("weights", found.get("both_w", found.get("all")))
    return BitsRule(pattern, weights, found.get("activations", found.get("both_a", found.get("all"))))


def is_layer(node: ir.Node) -> bool:
    """Whether the node is a compute layer: it has a constant weight, or multiplies two activations."""
    layer = kind_of(node)
    return layer is not None and (layer.weight is not None or len(operators.activation_inputs(node)) == 2)


class LayerBits:
    """Bits of every compute layer's weight and input, and which other nodes take part.

    Args:
        model: A prepared model.
        options: What the user asked for.

    Raises:
        ConfigError: A pattern matches no node.
    """

    def __init__(self, model: ir.Model, options: PlacementOptions) -> None:
        _require_matches(model, options)
        self.layers = [node for node in model.graph if is_layer(node)]
        compute = set(self.layers)
        upstream = _reached(model.graph, compute, forward=True)
        self.before_a_layer = _reached(model.graph, compute, forward=False)
        self._options = options
        self._ends = {node for node in self.layers if node not in upstream or node not in self.before_a_layer}

    def weight(self, node: ir.Node) -> int:
        """Bits of a layer's weight."""
        layer = kind_of(node)
        weight = None if layer is None else layer.weight
        chosen = None if weight is None else self._options.chosen.get(weight.name or "")
        if chosen is not None:
            return chosen
        rule = self._rule(node)
        bits = self._of(node, self._options.weight_bits, rule.weights if rule else None)
        narrowed = bits == 8 and layer is not None and layer.multiplies
        return self._options.widest_weight if narrowed else bits

    def activation(self, node: ir.Node) -> int:
        """Bits of a layer's inputs."""
        rule = self._rule(node)
        return self._of(node, self._options.activation_bits, rule.activations if rule else None)

    def takes_part(self, node: ir.Node) -> bool:
        """Whether the options leave a node in."""
        options = self._options
        if options.op_types and node.op_type not in options.op_types:
            return False
        if options.include and not any(_matches(node, pattern) for pattern in options.include):
            return False
        return not any(_matches(node, pattern) for pattern in options.exclude)

    def _rule(self, node: ir.Node) -> BitsRule | None:
        return next((rule for rule in reversed(self._options.bits) if _matches(node, rule.pattern)), None)

    def _of(self, node: ir.Node, asked: int, exception: int | None) -> int:
        if not self.takes_part(node):
            return FLOAT_BITS
        if exception is not None:
            return exception
        if asked == FLOAT_BITS or node not in self._ends or self._options.first_last == "same":
            return asked
        return FLOAT_BITS if self._options.first_last == "float" else FIRST_LAST_BITS


def _require_matches(model: ir.Model, options: PlacementOptions) -> None:
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
