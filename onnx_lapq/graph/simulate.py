"""Cut the simulated network into segments at its quantizers.

A segment is a small model from integer codes to integer codes: the nodes between quantizers, with the
scales of the activation quantizers as graph inputs (one session serves every candidate scale) and
weights as initializers (a new weight means a new session of that segment only). Running all segments in
order is the quantized network; an evaluator that remembers the values at the cuts re-runs only what a
changed step size touches.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnx_lapq.graph.encodings import ActivationEncoding
from onnx_lapq.graph.operators import activation_inputs
from onnx_lapq.graph.placement import Placement
from onnx_lapq.graph.qdq import insert_activation_quantizers, scale_name

__all__ = ["Segment", "Simulation", "simulate"]


@dataclass(frozen=True)
class Segment:
    """A part of the simulated network that runs as one session.

    Attributes:
        output: Name of the value at its end: codes, a float value shared by segments, or a graph output.
        inputs: Names of the cut values and graph inputs that it reads.
        sites: Activation quantizers whose scale it takes as an input named by `scale_name`.
        constants: Names of the weights and biases, subject to quantization, that it holds.
        model: The graph, with the float constants in place.
    """

    output: str
    inputs: tuple[str, ...]
    sites: tuple[str, ...]
    constants: tuple[str, ...]
    model: ir.Model


@dataclass(frozen=True)
class Simulation:
    """The simulated network.

    Attributes:
        segments: In topological order; the last ones end in the graph's outputs.
        probes: For layers with a quantized weight, a segment that ends in the input of the layer.
    """

    segments: tuple[Segment, ...]
    probes: Mapping[str, Segment]


def simulate(
    model: ir.Model,
    placement: Placement,
    encodings: Mapping[str, ActivationEncoding],
    constants: frozenset[str],
) -> Simulation:
    """Build the simulated network and cut it at its quantizers.

    Args:
        model: The prepared float model; left as it is.
        placement: The quantizers.
        encodings: Encodings of the activations; only zero points and bits count.
        constants: Names of the weights that a step size changes.
    """
    simulated = model.clone()
    codes = insert_activation_quantizers(simulated, placement.activations, encodings)
    common_passes.RemoveUnusedNodesPass()(simulated)
    graph = simulated.graph
    graph.sort()
    scales = {scale_name(site): site for site in codes}
    cuts = _cuts(graph, set(codes.values()))
    sources = {_name(value) for value in graph.inputs}

    def segment(end: ir.Value) -> Segment:
        return _segment(simulated, end, cuts, sources, scales, constants)

    segments = [segment(value) for node in graph for value in node.outputs if value in cuts]
    layers = [name for site in placement.weights for name in site.layers]
    probes = {
        name: segment(_probe(graph, name)) for name in layers if 0 in activation_inputs(graph.node(name))
    }
    return Simulation(tuple(segments), probes)


def _probe(graph: ir.Graph, layer: str) -> ir.Value:
    """A value that equals the first input of a layer and that nothing reads."""
    node = graph.node(layer)
    source = node.inputs[0]
    assert source is not None
    identity = ir.node("Identity", [source], name=f"{layer}_probe")
    identity.outputs[0].name = f"{layer}_input"
    identity.outputs[0].shape, identity.outputs[0].type = source.shape, source.type
    graph.insert_before(node, identity)
    return identity.outputs[0]


def _cuts(graph: ir.Graph, codes: set[str]) -> set[ir.Value]:
    """Codes, graph outputs, and values that nodes of more than one segment read.

    A DequantizeLinear belongs to every segment that reads it, so that a cut stays at the codes.
    """
    cuts = {
        value for node in graph for value in node.outputs if value.name in codes or value.is_graph_output()
    }
    home: dict[ir.Node, ir.Value] = {}
    for node in reversed(graph):
        if node.op_type == "DequantizeLinear":
            continue
        ends = {value for value in node.outputs if value in cuts}
        homes = {home[user] for value in node.outputs for user in _readers(value) if value not in cuts}
        if len(ends | homes) > 1 or len(ends) > 1:
            cuts.update(node.outputs)
            ends = set(node.outputs)
        if ends | homes:
            home[node] = min(ends | homes, key=_name)
    return cuts


def _readers(value: ir.Value) -> list[ir.Node]:
    """Nodes that read a value, seen through DequantizeLinear."""
    readers = []
    for node, _ in value.uses():
        through = node.op_type == "DequantizeLinear"
        readers.extend(_readers(node.outputs[0]) if through else [node])
    return readers


def _segment(
    simulated: ir.Model,
    end: ir.Value,
    cuts: set[ir.Value],
    sources: set[str],
    scales: Mapping[str, str],
    constants: frozenset[str],
) -> Segment:
    inputs: dict[str, ir.Value] = {}
    held: dict[str, None] = {}
    stack, seen = [end.producer()], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for value in node.inputs:
            if value is None:
                continue
            name = _name(value)
            if value in cuts or name in sources or name in scales:
                inputs[name] = value
            elif name in constants:
                held[name] = None
            else:
                stack.append(value.producer())
    graph = ir.convenience.extract(simulated.graph, list(inputs.values()), [end])
    sites = tuple(scales[name] for name in inputs if name in scales)
    for site in sites:
        graph.initializers.pop(scale_name(site))
    return Segment(
        output=_name(end),
        inputs=tuple(name for name in inputs if name not in scales),
        sites=sites,
        constants=tuple(held),
        model=ir.Model(graph, ir_version=simulated.ir_version),
    )


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name
