"""How far a written model is from the float one, quantizer by quantizer, and how far its step sizes allow.

The written graph is walked in order. Behind a quantizer every value starts out as what the written model
computes; from there on it has a twin, what the float model would make of it, and a bound on the distance
between the two: the errors of the weights, and what each operator makes of its inputs' bounds.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from onnx_lapq.runtime.session import open_session, run

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Mul")
_AT_MOST_AS_STEEP_AS_ONE = ("Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh")
"""Elementwise functions that never carry two values further apart."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class LocalError:
    """At a quantizer or an output of the graph, both float32 of the value's shape."""

    missed: np.ndarray
    bound: np.ndarray


def local_errors(float_model: ir.Model, written: onnx.ModelProto, feeds: Arrays) -> dict[str, LocalError]:
    """Errors of a written model with 8-bit activations, by the names of quantized values and outputs."""
    walk = _Walk(ir.to_proto(float_model), written, feeds)
    for node in written.graph.node:
        match node.op_type:
            case "QuantizeLinear":
                walk.quantize(node)
            case "DequantizeLinear":
                walk.dequantize(node)
            case _:
                walk.compute(node)
    for output in written.graph.output:
        walk.compare(output.name, output.name, walk.bounds[output.name])
    return walk.errors


class _Walk:
    def __init__(self, float_model: onnx.ModelProto, written: onnx.ModelProto, feeds: Arrays) -> None:
        self.errors: dict[str, LocalError] = {}
        self.bounds = {name: np.zeros_like(values) for name, values in feeds.items()}
        self._opsets = written.opset_import
        self._dequantized = {
            node.input[0]: node.output[0] for node in written.graph.node if node.op_type == "DequantizeLinear"
        }
        self._float_nodes = {name: node for node in float_model.graph.node for name in node.output}
        self._constants = _constants(float_model)
        self._observed = {**feeds, **_values(written, feeds)}
        self._twins = dict(feeds)
        for name, stored in _constants(written).items():
            self._constant(name, stored, self._constants.get(name, stored))

    def _constant(self, name: str, stored: np.ndarray, twin: np.ndarray) -> None:
        self._twins[name] = twin
        self.bounds[name] = np.abs(stored - twin) if _is_float(twin) else np.zeros(twin.shape, np.float32)

    def compare(self, name: str, observed: str, bound: np.ndarray) -> None:
        """Put on record how far a value of the written model is from its twin."""
        self.errors[name] = LocalError(np.abs(self._observed[observed] - self._twins[name]), bound)

    def quantize(self, node: onnx.NodeProto) -> None:
        """Half a step, and what lies outside the codes; a rectifier that is absorbed comes first."""
        source, scale, zero_point = node.input
        step, zero, limits = (
            self._twins[scale],
            self._twins[zero_point],
            np.iinfo(self._twins[zero_point].dtype),
        )
        low, high = (float(step) * (float(limit) - float(zero)) for limit in (limits.min, limits.max))
        value, codes = node.output[0].removesuffix("_codes"), node.output[0]
        twin = self._twins[source]
        gate = self._float_nodes.get(value)
        if gate is not None and gate.op_type == "HardSigmoid" and source == f"{value}_input":
            self._quantize_gate(gate, node, float(step))
            return
        if value != source and value in self._float_nodes and source in self._float_nodes[value].input:
            twin = self._rectify(self._float_nodes[value], twin)
        outside = np.abs(twin - np.clip(twin, low, high))
        self._compare_codes(codes, twin, self.bounds[source] + outside + step / 2)

    def _quantize_gate(self, gate: onnx.NodeProto, node: onnx.NodeProto, step: float) -> None:
        """A HardSigmoid that the quantizer computes: a step of its slope, half of it for the zero point."""
        source, codes = node.input[0], node.output[0]
        slope = next((attribute.f for attribute in gate.attribute if attribute.name == "alpha"), 0.2)
        (twin,) = self._apply(gate, [self._twins[source]])
        self._compare_codes(codes, twin, slope * (self.bounds[source] + step))

    def _compare_codes(self, codes: str, twin: np.ndarray, bound: np.ndarray) -> None:
        self._twins[codes] = twin
        self._observed[codes] = self._observed[self._dequantized[codes]]
        self.compare(codes, codes, bound)

    def dequantize(self, node: onnx.NodeProto) -> None:
        """Activations start afresh; a constant is as far from its float twin as it is."""
        codes, result = node.input[0], node.output[0]
        if codes in self.errors:
            self._twins[result] = self._observed[result]
            self.bounds[result] = np.zeros_like(self._observed[result])
        else:
            self._constant(result, self._observed[result], self._constants[codes.removesuffix("_codes")])

    def compute(self, node: onnx.NodeProto) -> None:
        """What the float model makes of the twins of the inputs, and how far from it their bounds allow."""
        present = [name for name in node.input if name]
        inputs, missed = [self._twins[name] for name in present], [self.bounds[name] for name in present]
        self.bounds.update(zip(node.output, self._missed(node, inputs, missed), strict=True))
        self._twins.update(zip(node.output, self._apply(node, inputs), strict=True))

    def _rectify(self, node: onnx.NodeProto, values: np.ndarray) -> np.ndarray:
        limits = [self._constants[name] for name in node.input[1:]]
        return self._apply(node, [values, *limits])[0]

    def _missed(
        self, node: onnx.NodeProto, inputs: list[np.ndarray], missed: list[np.ndarray]
    ) -> list[np.ndarray]:
        if node.op_type in _PRODUCTS:
            first, second = (np.abs(values) for values in inputs[:2])
            without_bias = [np.zeros_like(bound) for bound in missed[2:]]
            (by_first,) = self._apply(node, [missed[0], second + missed[1], *without_bias])
            (by_second,) = self._apply(node, [first, *missed[1:]])
            return [by_first + by_second]
        if node.op_type in _AT_MOST_AS_STEEP_AS_ONE:
            return missed[:1]
        if node.op_type == "Resize":  # sizes and scales are no values
            return self._apply(node, [missed[0], *inputs[1:]])
        if node.op_type == "Softmax":
            return [np.broadcast_to(missed[0].max(axis=-1, keepdims=True) / 2, missed[0].shape)]
        if node.op_type == "BatchNormalization":
            zeros = np.zeros_like(inputs[1])
            return self._apply(node, [missed[0], np.abs(inputs[1]), zeros, zeros, inputs[4]])
        return self._apply(
            node, [bound if _is_float(x) else x for x, bound in zip(inputs, missed, strict=True)]
        )

    def _apply(self, node: onnx.NodeProto, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """What the node alone makes of other inputs."""
        alone, tensors, given = onnx.NodeProto(), [], iter(inputs)
        alone.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name:
                alone.input[index] = f"input{index}"
                tensors.append(numpy_helper.from_array(np.ascontiguousarray(next(given)), f"input{index}"))
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
        graph = helper.make_graph([alone], "alone", [], outputs, tensors)
        return run(open_session(helper.make_model(graph, opset_imports=self._opsets, ir_version=10)), {})


def _is_float(values: np.ndarray) -> bool:
    return values.dtype == np.float32


def _constants(model: onnx.ModelProto) -> Arrays:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _values(model: onnx.ModelProto, feeds: Arrays) -> Arrays:
    """Every float value that the graph computes, in float where integer kernels do not matter."""
    observed = ir.from_proto(model)
    values = [value for node in observed.graph for value in node.outputs]
    observed.graph.outputs[:] = values
    session = open_session(observed, fuse_integers=False)
    return dict(zip([value.name or "" for value in values], run(session, feeds), strict=True))
