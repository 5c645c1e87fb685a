"""Put QuantizeLinear/DequantizeLinear pairs into a graph.

The same function writes the simulated network and the exported one, so what is simulated is what is
written. A quantizer of fewer than 8 bits is QuantizeLinear -> Clip -> DequantizeLinear on 8-bit codes:
Clip caps the codes, and integer kernels still fuse around it (docs/architecture.md, "Storage"). Caps of
channels need a Min, which takes integers from onnxruntime 1.24 on. Codes of 16 bits came with opset 21; in
older ones the operators are those of onnxruntime, which mean the same.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.graph.attributes import new_initializer
from onnx_lapq.graph.operator_sets import MICROSOFT, TYPED_CODES
from onnx_lapq.graph.placement.operators import channel_limits, is_rectifier
from onnx_lapq.graph.placement.sites import ActivationSite
from onnx_lapq.graph.writing.encodings import ActivationEncoding

__all__ = [
    "code_limits",
    "codes_name",
    "insert_activation_quantizers",
    "limits_name",
    "make_initializer",
    "scale_name",
]


def scale_name(site: str) -> str:
    """Name of the scale initializer of a quantizer."""
    return f"{site}_scale"


def limits_name(site: str) -> str:
    """Name of the largest codes that the channels of a quantizer take."""
    return f"{site}_limits"


def codes_name(site: str) -> str:
    """Name of the codes that an activation quantizer gives."""
    return f"{site}_codes"


def code_limits(site: ActivationSite, scale: float) -> npt.NDArray[np.uint8]:
    """The largest code of every channel of a quantizer that limits them, [channels]."""
    codes = np.rint(np.array(site.limits, dtype=np.float32) / np.float32(scale))
    limits: npt.NDArray[np.uint8] = np.minimum(codes, (1 << site.bits) - 1).astype(np.uint8)
    return limits


def insert_activation_quantizers(
    model: ir.Model, sites: Sequence[ActivationSite], encodings: Mapping[str, ActivationEncoding]
) -> None:
    """Quantize activations in place.

    A Relu, or a Clip from 0 to m, in front of a quantizer with zero point 0 is absorbed: unsigned codes
    saturate at zero, and the scale has to satisfy scale * (2^bits - 1) <= m. Limits per channel become those
    of the codes, which is the same, since rounding keeps the order.

    Args:
        model: A prepared model.
        sites: Where, glue quantizers before those chained behind them.
        encodings: Scale, zero point and bits by site name.
    """
    writer = _Writer(model.graph)
    for site in sites:
        writer.quantize(writer.values[site.value], site, encodings[site.name], site.name)
        for name in site.moved:
            writer.quantize(writer.values[name], site, encodings[site.name], name)


def make_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """The initializer of that name, made where it does not exist yet."""
    return graph.initializers[name] if name in graph.initializers else new_initializer(graph, name, array)


class _Writer:
    """Adds quantizers one by one; remembers what readers of a value read now."""

    def __init__(self, graph: ir.Graph) -> None:
        self.values = ir.convenience.create_value_mapping(graph, include_subgraphs=False)
        self._graph = graph
        self._dequantized: dict[ir.Value, ir.Value] = {}

    def quantize(
        self, value: ir.Value, site: ActivationSite, encoding: ActivationEncoding, name: str
    ) -> None:
        """Insert one quantizer of that name behind a value."""
        readers = [(node, index) for node, index in value.uses() if not site.edges]
        source = self._dequantized.get(value, value)
        if site.edges:
            readers = [(node, index) for node, index in source.uses() if (node.name, index) in site.edges]
        result = self._pair(self._absorb(source, encoding), name, site, encoding)
        for node, index in readers:
            node.replace_input_with(index, result)
        if not site.edges:
            self._dequantized[value] = result
        if site.outputs and value.is_graph_output():
            self._hand_over(value, result)

    def _hand_over(self, value: ir.Value, quantized: ir.Value) -> None:
        """Make a quantized value an output of the graph in place of the float one, under its name."""
        for index, output in enumerate(self._graph.outputs):
            if output is value:
                self._graph.outputs[index] = quantized
        value.name, quantized.name = f"{value.name}_unquantized", value.name

    def _pair(
        self, source: ir.Value, name: str, site: ActivationSite, encoding: ActivationEncoding
    ) -> ir.Value:
        scale = make_initializer(self._graph, scale_name(site.name), np.array(encoding.scale, np.float32))
        zero_point = make_initializer(
            self._graph, f"{site.name}_zero_point", _code(encoding.zero_point, encoding)
        )
        before, quantized = self._gate(source, name, site) or ([], [source, scale, zero_point])
        domain = self._domain(encoding)
        quantize = ir.node("QuantizeLinear", quantized, domain=domain, name=f"{name}_QuantizeLinear")
        nodes, codes = [*before, quantize], quantize.outputs[0]
        codes.name = codes_name(name)
        kind = ir.TensorType(ir.DataType.from_numpy(encoding.dtype))
        codes.shape, codes.type = source.shape, kind
        limit = self._limit(source, name, site, encoding)
        if limit is not None:
            codes.name = f"{name}_codes_8bit"
            nodes.append(_cap(codes, limit, name))
            codes = nodes[-1].outputs[0]
            codes.name = codes_name(name)
            codes.shape, codes.type = source.shape, kind
        parameters = [codes, scale, zero_point]
        nodes.append(ir.node("DequantizeLinear", parameters, domain=domain, name=f"{name}_DequantizeLinear"))
        result = nodes[-1].outputs[0]
        result.name = f"{name}_dequantized"
        result.shape, result.type = source.shape, source.type
        self._insert(source, nodes)
        return result

    def _domain(self, encoding: ActivationEncoding) -> str:
        """Where the operators of a pair are from."""
        if encoding.dtype.itemsize == 1 or self._graph.opset_imports.get("", 0) >= TYPED_CODES:
            return ""
        self._graph.opset_imports[MICROSOFT] = 1
        return MICROSOFT

    def _gate(
        self, source: ir.Value, name: str, site: ActivationSite
    ) -> tuple[list[ir.Node], list[ir.Value]] | None:
        """What to quantize instead of a HardSigmoid's output, with its node, scale and zero point.

        With codes that saturate at 0 and 1, ``code = (slope * x + offset) / step`` is a change of scale and
        zero point. A LeakyRelu of slope 1 between both pairs lets onnxruntime take a table for it.
        """
        producer = source.producer()
        if site.gate is None or site.step is None or producer is None:
            return None
        slope, offset = site.gate
        step, zero = np.array(site.step / slope, np.float32), math.ceil(offset / site.step - 0.5)
        scale = make_initializer(self._graph, f"{site.name}_input_scale", step)
        zero_point = make_initializer(self._graph, f"{site.name}_input_zero_point", np.array(zero, np.uint8))
        same = ir.node("LeakyRelu", [producer.inputs[0]], {"alpha": 1.0}, name=f"{name}_LeakyRelu")
        value = same.outputs[0]
        value.name, value.shape, value.type = f"{name}_input", source.shape, source.type
        return [same], [value, scale, zero_point]

    def _insert(self, source: ir.Value, nodes: list[ir.Node]) -> None:
        producer = source.producer()
        if producer is not None:
            self._graph.insert_after(producer, nodes)
        elif len(self._graph):
            self._graph.insert_before(self._graph[0], nodes)

    def _limit(
        self, source: ir.Value, name: str, site: ActivationSite, encoding: ActivationEncoding
    ) -> ir.Value | None:
        """The largest code, or that of each channel where limits of channels are absorbed."""
        if site.limits and encoding.zero_point == 0 and name == site.name:
            assert source.shape is not None
            codes = code_limits(site, encoding.scale)
            shape = (1, codes.size, *(1,) * (len(source.shape) - 2))
            return make_initializer(self._graph, limits_name(name), codes.reshape(shape))
        if encoding.bits >= 8:
            return None
        cap = _code((1 << encoding.bits) - 1, encoding)
        return make_initializer(self._graph, f"code_maximum_{cap}", cap)

    @staticmethod
    def _absorb(source: ir.Value, encoding: ActivationEncoding) -> ir.Value:
        """What to quantize instead of a rectifier's output: its input, as codes saturate where it does."""
        # Zero point 0 cuts at real zero, like a Relu, and the scale at the upper limit of a Clip. A Min of
        # limits per channel stands behind a Relu, which goes as well; no Min of onnxruntime takes uint16.
        producer = source.producer()
        if producer is None or encoding.zero_point != 0 or not is_rectifier(producer):
            return source
        before = producer.inputs[0] or source
        if channel_limits(producer) is None:
            return before
        return source if encoding.bits > 8 else _Writer._absorb(before, encoding)


def _cap(codes: ir.Value, limit: ir.Value, name: str) -> ir.Node:
    """The node that caps codes at a scalar, or at one limit for each channel."""
    if limit.shape is not None and limit.shape.rank():
        return ir.node("Min", [codes, limit], name=f"{name}_Min")
    return ir.node("Clip", [codes, None, limit], name=f"{name}_Clip")


def _code(code: int, encoding: ActivationEncoding) -> np.ndarray:
    """A code as it is written."""
    return np.array(code + np.iinfo(encoding.dtype).min, encoding.dtype)
