"""What the bits of a tensor cost, and which nodes decide them."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_lapq.graph.layer_kinds import kinds_of
from onnx_lapq.graph.placement.layer_bits import LayerBits, is_layer
from onnx_lapq.graph.placement.options import FLOAT_BITS
from onnx_lapq.graph.writing.packing import packed_bytes
from onnx_lapq.network.bench import Bench
from onnx_lapq.stages.sensitivity import Kind

__all__ = ["Cost", "Deciders", "costs_of", "deciders_of", "widths_of"]

_BYTES_OF_A_FLOAT = 4
_OTHER: dict[Kind, Kind] = {"weight": "activation", "activation": "weight"}


@dataclass(frozen=True)
class Deciders:
    """The nodes whose bits are those of a quantizer.

    Attributes:
        readers: Those that read its codes.
        writer: The one whose kernel writes them, where one does and no rule gives its bits; else nothing.
        may_be_float: Whether no rule keeps codes there.
    """

    readers: tuple[str, ...]
    writer: tuple[str, ...] = ()
    may_be_float: bool = True

    def at(self, bits: int) -> tuple[str, ...]:
        """The nodes that have to have so many bits; a kernel writes codes until its node is in float."""
        return (*self.readers, *self.writer) if bits == FLOAT_BITS or not self.readers else self.readers


def deciders_of(bench: Bench) -> dict[str, Deciders]:
    """The nodes that decide the bits of each quantizer, but for those whose bits a rule gives."""
    placement, model = bench.network.placement, bench.network.model
    asked = LayerBits(model, bench.config.placement_options())
    rules = {node.name: asked.rule(node) for node in model.graph}
    weights = {name for name, rule in rules.items() if rule is not None and rule.weights is not None}
    activations = {name for name, rule in rules.items() if rule is not None and rule.activations is not None}
    writers = {site.name: (site.writer,) for site in placement.activations if site.writer is not None}
    found = {}
    for name, readers in placement.readers_of(model).items():
        writer: tuple[str, ...] = writers.get(name, ())
        may_be_float = activations.isdisjoint((*readers, *writer))
        writer = tuple(node for node in writer if node not in activations)
        fixed = weights if name in bench.network.layers else activations
        if (readers or writer) and fixed.isdisjoint(readers):
            found[name] = Deciders(readers, writer, may_be_float)
    return found


@dataclass(frozen=True)
class Cost:
    """What the bits of a tensor take.

    Attributes:
        codes: Elements of a weight.
        time: Bytes that stand for the time in float of the nodes that read it.
        writer: The same of the node that writes it.
        other: Bits of what it is multiplied by.
    """

    codes: int
    time: float
    writer: float
    other: int

    def at(self, bits: int) -> int:
        """Bytes at a width: those in the file, and as many as the time of products of so many bits counts."""
        if bits == FLOAT_BITS:
            return _BYTES_OF_A_FLOAT * self.codes + round(self.time + self.writer)
        return packed_bytes(self.codes, bits) + round(self.time * bits * self.other / FLOAT_BITS**2)


def costs_of(bench: Bench, names: Collection[str], deciders: Mapping[str, Deciders]) -> dict[str, Cost]:
    """What the bits of tensors take.

    Args:
        bench: The network at the bits asked for.
        names: The tensors.
        deciders: The nodes that decide their bits.
    """
    network = bench.network
    asked = LayerBits(network.model, bench.config.placement_options())
    nodes = {node.name or "": node for node in network.model.graph}
    sizes = {name: layer.values.size for name, layer in network.layers.items()}
    total = sum(_products(nodes[name]) for name in network.placement.layers) or 1
    floats = _BYTES_OF_A_FLOAT * sum(sizes.values())

    def time(names: Sequence[str]) -> float:
        return floats * sum(_products(nodes[name]) for name in names) / total

    def cost(name: str) -> Cost:
        of, other = deciders[name], _OTHER["weight" if name in sizes else "activation"]
        widths = [widths_of(nodes[node], asked) for node in of.readers or of.writer]
        by = max(width[other] or width["activation"] for width in widths)
        return Cost(sizes.get(name, 0), time(of.readers), time(of.writer), by)

    return {name: cost(name) for name in names}


def _products(node: ir.Node) -> int:
    """Multiplications of a layer, or elements of any other node's output; sizes that are open count as 1."""
    output = math.prod(_sizes(node.outputs[0]))
    with_weight = [kind for kind in kinds_of(node) if kind.weight is not None]
    if with_weight:
        inputs = [math.prod(kind.shape) // kind.output_channels for kind in with_weight if kind.multiplies]
        return sum(inputs) * output
    return output * next(reversed(_sizes(node.inputs[0])), 1) if is_layer(node) else output


def _sizes(value: ir.Value | None) -> list[int]:
    shape = () if value is None or value.shape is None else value.shape
    return [size if isinstance(size, int) else 1 for size in shape]


def widths_of(node: ir.Node, bits: LayerBits) -> dict[Kind, int]:
    """Bits that a node has, whatever the target makes of them; 0 of a weight that it has not."""
    weights = [bits.weight(kind) for kind in kinds_of(node) if kind.weight is not None]
    return {"weight": max(weights, default=0), "activation": bits.activation(node)}
