"""Cut the quantized network into segments, at its quantizers or at those that its layers read.

A segment is a small model from integer codes to integer codes: the nodes of the *written* graph between
quantizers, with the scales, weights and biases of some step sizes. Onnxruntime runs it on the same integer
kernels as the whole model, so what is simulated is what is written, and it runs faster than float. Running
all segments in order is the quantized network; an evaluator that remembers the values at the cuts re-runs
only what a changed step size touches.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import Float32Array
from onnx_lapq.graph.placement.operators import activation_inputs
from onnx_lapq.graph.placement.sites import ActivationSite, Placement
from onnx_lapq.graph.subgraphs import captured, users
from onnx_lapq.graph.writing.export import weight_codes_name
from onnx_lapq.graph.writing.qdq import codes_name, limits_name, scale_name

__all__ = ["InputCodes", "Segment", "Simulation", "simulate"]


@dataclass(frozen=True)
class Segment:
    """A part of the simulated network that runs as one session.

    Attributes:
        output: Name of the value at its end: codes, a float value shared by segments, or a graph output.
        inputs: Names of the cut values and graph inputs that it reads.
        sites: Activation quantizers whose scales it holds.
        limited: Those of them that limit each channel.
        weights: Quantized weights that it holds, with their biases.
        model: The graph, at some step sizes.
    """

    output: str
    inputs: tuple[str, ...]
    sites: tuple[str, ...]
    weights: tuple[str, ...]
    model: ir.Model
    limited: tuple[ActivationSite, ...] = ()


@dataclass(frozen=True)
class InputCodes:
    """Codes at a cut that a layer reads as they are, so that no segment need end in its input.

    Attributes:
        output: Name of the codes.
        site: Their activation quantizer.
        zero_point: The code of real zero, as it is written.
    """

    output: str
    site: str
    zero_point: int

    def dequantized(self, codes: np.ndarray, scale: float) -> Float32Array:
        """What DequantizeLinear makes of codes, of any shape."""
        values = codes.astype(np.float32)
        values -= np.float32(self.zero_point)
        values *= np.float32(scale)
        return values


@dataclass(frozen=True)
class Simulation:
    """A quantized network in parts.

    Attributes:
        segments: In topological order; the last ones end in the graph's outputs.
        probes: For layers with a quantized weight, what shows the input of the layer.
    """

    segments: tuple[Segment, ...]
    probes: Mapping[str, Segment | InputCodes]


def simulate(quantized: ir.Model, placement: Placement, *, by_layer: bool = False) -> Simulation:
    """Cut a written model at its quantizers.

    Args:
        quantized: What `export` gives, at any step sizes; left as it is.
        placement: The quantizers.
        by_layer: Cut only at codes that a layer with a quantized weight reads. The fewer segments run faster
            one after another; where one step size changes, more runs again.
    """
    model = quantized.clone()
    graph = model.graph
    read = (site.input_site for site in placement.weights)
    sites = read if by_layer else (site.name for site in placement.activations)
    cuts = _cuts(graph, {codes_name(name) for name in sites if name is not None})
    parameters = {scale_name(site.name): site.name for site in placement.activations}
    for site in placement.weights:  # a table is looked up in one segment, and dequantized in its readers'
        parameters |= dict.fromkeys((weight_codes_name(site.name), scale_name(site.name)), site.name)

    def segment(end: ir.Value) -> Segment:
        return _segment(model, end, cuts, parameters, placement)

    segments = [segment(value) for node in graph for value in node.outputs if value in cuts]
    layers = [name for site in placement.weights for name in site.layers]
    codes = {codes_name(site.name): site.name for site in placement.activations}
    probes = {
        name: _input_codes(graph, name, cuts, codes) or segment(_probe(graph, name))
        for name in layers
        if 0 in activation_inputs(graph.node(name))
    }
    return Simulation(tuple(segments), probes)


def _input_codes(
    graph: ir.Graph, layer: str, cuts: set[ir.Value], sites: Mapping[str, str]
) -> InputCodes | None:
    """The codes that the first input of a layer is dequantized from, where they are at a cut."""
    source = graph.node(layer).inputs[0]
    node = None if source is None else source.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] not in cuts:
        return None
    codes, _, zero_point = node.inputs
    if codes is None or zero_point is None or zero_point.const_value is None or _name(codes) not in sites:
        return None
    return InputCodes(_name(codes), sites[_name(codes)], int(zero_point.const_value.numpy()))


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

    What unpacks codes belongs to every segment that reads it, so that a cut stays at the codes.
    """
    cuts = {
        value for node in graph for value in node.outputs if value.name in codes or value.is_graph_output()
    }
    readers = users(graph)
    # home[node] is the value at the end of the segment that the node runs in. Going backwards, the segments
    # of all readers are known: where they are one, the node joins it; where they are several, the node's
    # outputs become cuts, so that it runs once.
    home: dict[ir.Node, ir.Value] = {}
    for node in reversed(graph):
        if _is_shared(node):
            continue
        ends = {value for value in node.outputs if value in cuts}
        homes = {
            home[user] for value in node.outputs for user in _readers(value, readers) if value not in cuts
        }
        if len(ends | homes) > 1 or len(ends) > 1:
            cuts.update(node.outputs)
            ends = set(node.outputs)
        if ends | homes:
            home[node] = min(ends | homes, key=_name)
    return cuts


def _is_shared(node: ir.Node) -> bool:
    """Whether every segment that reads the node has one of its own."""
    if node.outputs[0].is_graph_output():
        return False
    return node.op_type == "DequantizeLinear" or _unpacks_a_weight(node)


def _unpacks_a_weight(node: ir.Node) -> bool:
    """Whether the node is one of those that `export` puts between stored codes and a float kernel."""
    sources = [value for value in node.inputs if value is not None and not value.is_initializer()]
    return node.op_type in ("Cast", "Mul", "Reshape") and all(
        (producer := value.producer()) is not None and _unpacks_a_weight(producer) for value in sources
    )


def _readers(value: ir.Value, users_of: Mapping[ir.Value, list[tuple[ir.Node, int]]]) -> list[ir.Node]:
    """Nodes that read a value, seen through those that unpack codes."""
    readers = []
    for node, _ in users_of.get(value, []):
        readers.extend(_readers(node.outputs[0], users_of) if _is_shared(node) else [node])
    return readers


def _segment(
    model: ir.Model, end: ir.Value, cuts: set[ir.Value], parameters: Mapping[str, str], placement: Placement
) -> Segment:
    """The nodes between a value and the cuts and graph inputs before it."""
    inputs: dict[str, ir.Value] = {}
    held: dict[str, None] = {}
    stack, seen = [end.producer()], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for value in (*node.inputs, *captured(node)):
            if value is None:
                continue
            if value in cuts or value.is_graph_input():
                inputs[_name(value)] = value
            elif value.is_initializer():
                held |= {parameters[name]: None for name in [_name(value)] if name in parameters}
            else:
                stack.append(value.producer())
    weights = {site.name for site in placement.weights}
    graph = ir.convenience.extract(model.graph, list(inputs.values()), [end])
    return Segment(
        output=_name(end),
        inputs=tuple(inputs),
        sites=tuple(name for name in held if name not in weights),
        weights=tuple(name for name in held if name in weights),
        model=ir.Model(graph, ir_version=model.ir_version),
        limited=tuple(site for site in placement.activations if limits_name(site.name) in graph.initializers),
    )


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name
