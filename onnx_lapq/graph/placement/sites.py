"""Where quantizers sit: on constant operands, on activations, and all of them in a network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnx_lapq.graph.placement.options import WIDE_BITS
from onnx_lapq.graph.placement.roles import Edge, FloatNode, name_of
from onnx_lapq.graph.subgraphs import users
from onnx_lapq.method.step_sizes.curve import Curve

__all__ = ["MANY_BITS", "ActivationSite", "Placement", "WeightSite", "WideSite", "quantizer_of_edges"]

MANY_BITS = 7
"""From here on little is lost, and there is little to make up for."""


@dataclass(frozen=True)
class WeightSite:
    """A quantizer on a constant operand.

    Attributes:
        name: The initializer's name, which also names the quantizer.
        layers: Names of the nodes that read it.
        bits: 2 to 8.
        axis: Output-channel axis of the tensor.
        per_channel: One scale per output channel instead of one per tensor.
        input_site: The quantizer that its only layer reads, or None.
        in_float: Whether no integer kernel reads its codes, which are unpacked when the model is loaded.
        block: Inputs of an output channel that share a scale; 0 for all of them. The tensor is a matrix of
            [inputs, output channels] then, of at most `BLOCK_BITS`, and its codes are INT4.
        apart: How far apart in a row of its layers two codes are that share what 16 bits hold
            (`onnx_lapq.method.pairs`); 0 where none do.
    """

    name: str
    layers: tuple[str, ...]
    bits: int
    axis: int
    per_channel: bool
    input_site: str | None = None
    in_float: bool = False
    block: int = 0
    apart: int = 0


@dataclass(frozen=True)
class WideSite:
    """A constant operand that is stored in `WIDE_BITS`, in the smallest steps that clip nothing.

    Attributes:
        name: The initializer's name.
        axis: Output-channel axis of the tensor; each channel has a scale.
    """

    name: str
    axis: int


@dataclass(frozen=True)
class ActivationSite:
    """A quantizer on an activation.

    Attributes:
        name: Name of the quantizer, unique in the graph.
        value: The value whose distribution decides the grid and the scale.
        bits: 2 to 8, or `WIDE_BITS`.
        searched: Whether the joint optimisation moves its step size; False for glue and for `WIDE_BITS`.
        after: Name of the glue quantizer that this one is chained behind, or None.
        moved: Other values in codes of the same scale: what nodes that move data make of the value, and the
            pieces of a Concat that writes it.
        edges: The edges that read this quantizer; empty means every reader of the value.
        maximum: Upper limit of a rectifier that the quantizer absorbs (6 for Relu6), else infinity.
        curve: What the readers compute from the value, where that is flat towards an end.
        limits: Upper limit of every channel, where the rectifier has such limits.
        gate: Slope and offset of the HardSigmoid that the quantizer computes, where it does; its codes then
            reach from 0 to 1.
        cuts_off: Whether its codes may end before the values do; not where a Mul takes channels back to
            their ranges, whose factors say how much each channel counts.
        outputs: Whether the graph's outputs among these values are quantized too.
        writer: The node whose kernel writes the codes, where one does.
    """

    name: str
    value: str
    bits: int
    searched: bool
    after: str | None = None
    moved: tuple[str, ...] = ()
    edges: tuple[Edge, ...] = ()
    maximum: float = float("inf")
    curve: Curve | None = None
    limits: tuple[float, ...] = ()
    gate: tuple[float, float] | None = None
    cuts_off: bool = True
    outputs: bool = False
    writer: str | None = None

    @property
    def step(self) -> float | None:
        """The step size, where it is given: that of a gate."""
        return None if self.gate is None else 1 / ((1 << self.bits) - 1)

    @property
    def is_wide(self) -> bool:
        """Whether its codes have 16 bits."""
        return self.bits == WIDE_BITS


@dataclass(frozen=True)
class Placement:
    """All quantizers of a network, in topological order, and the nodes that none of them reaches.

    Attributes:
        weights: Quantizers on constant operands.
        activations: Quantizers on activations.
        layers: Names of all layers.
        in_float: Nodes that compute in float.
        wide: Constant operands of 16 bits, which no search moves.
        arithmetic: Names of the nodes between layers that run on codes.
    """

    weights: tuple[WeightSite, ...]
    activations: tuple[ActivationSite, ...]
    layers: tuple[str, ...]
    in_float: tuple[FloatNode, ...] = ()
    wide: tuple[WideSite, ...] = ()
    arithmetic: tuple[str, ...] = ()

    @property
    def bits(self) -> tuple[set[int], set[int]]:
        """Bits of the quantizers on constant operands, and of those on activations."""
        return {site.bits for site in self.weights}, {site.bits for site in self.activations}

    @property
    def has_few_bits(self) -> bool:
        """Whether a tensor that the search moves has fewer than 7 bits."""
        bits = [site.bits for site in self.weights]
        bits += [site.bits for site in self.activations if site.searched]
        return any(width < MANY_BITS for width in bits)

    @property
    def bits_by_name(self) -> dict[str, int]:
        """Bits of all quantizers by name: weights, then activations."""
        weights = {site.name: site.bits for site in self.weights}
        return weights | {site.name: site.bits for site in self.activations}

    def layers_of(self, model: ir.Model) -> dict[str, tuple[str, ...]]:
        """The layers that read each quantizer; none for some between layers."""
        return self._readers(model, self.layers)

    def readers_of(self, model: ir.Model) -> dict[str, tuple[str, ...]]:
        """The nodes that read each quantizer's codes, which decide its bits."""
        return self._readers(model, (*self.layers, *self.arithmetic))

    def _readers(self, model: ir.Model, nodes: Iterable[str]) -> dict[str, tuple[str, ...]]:
        found = {site.name: dict.fromkeys(site.layers) for site in self.weights}
        found |= {site.name: {} for site in self.activations}
        known = set(nodes)
        for (node, _), site in quantizer_of_edges(model.graph, users(model.graph), self.activations).items():
            if node in known:
                found[site][node] = None
        return {name: tuple(readers) for name, readers in found.items()}

    def bits_of_edges(self, model: ir.Model) -> dict[Edge, int]:
        """Bits of the codes that every quantized edge of the model carries."""
        bits = {site.name: site.bits for site in self.activations}
        read = quantizer_of_edges(model.graph, users(model.graph), self.activations)
        return {edge: bits[site] for edge, site in read.items()}


def quantizer_of_edges(
    graph: ir.Graph, readers: Mapping[ir.Value, list[tuple[ir.Node, int]]], sites: tuple[ActivationSite, ...]
) -> dict[Edge, str]:
    """The name of the quantizer that every edge reads, where there is one.

    Args:
        graph: The graph.
        readers: The nodes that read each value, and at which input.
        sites: The quantizers on activations.
    """
    values = ir.convenience.create_value_mapping(graph, include_subgraphs=False)
    read: dict[Edge, str] = {}
    for site in sites:
        carriers = () if site.edges else (site.value, *site.moved)
        edges = [(name_of(node), index) for name in carriers for node, index in readers.get(values[name], [])]
        read.update(dict.fromkeys([*edges, *site.edges], site.name))
    return read
