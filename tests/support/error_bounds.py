"""How far a written model can be from the float one: worst-case errors from its step sizes alone.

The written graph is walked in order. Every value has a twin, what the float model computes in its place, and
a bound on the distance from it: half a step per quantizer, and what each operator makes of its inputs' bounds.
"""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from onnx_lapq.evaluation.session import open_session, run

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Mul")
_AT_MOST_AS_STEEP_AS_ONE = ("Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh")
"""Elementwise functions that never carry two values further apart."""

Arrays = dict[str, np.ndarray]


class ErrorBounds:
    """Worst-case errors of the values of a written model.

    Args:
        float_model: The prepared model.
        written: What it was written as, with 8-bit activations.
        feeds: Inputs of both.

    Attributes:
        twins: What the float model computes, by the names of the written model.
        bounds: How far from it the written model can be, by the same names and of the same shapes.
    """

    def __init__(self, float_model: ir.Model, written: onnx.ModelProto, feeds: Arrays) -> None:
        self._opsets = written.opset_import
        self.twins = {**feeds, **_constants(ir.to_proto(float_model)), **_values(float_model, feeds)}
        self.bounds = {name: np.zeros_like(values) for name, values in feeds.items()}
        for name, stored in _constants(written).items():
            self._compare(name, stored, self.twins.get(name, stored))
        for node in written.graph.node:
            match node.op_type:
                case "QuantizeLinear":
                    self._quantize(node)
                case "DequantizeLinear":
                    self._dequantize(node)
                case _:
                    self._compute(node)

    def _compare(self, name: str, stored: np.ndarray, twin: np.ndarray) -> None:
        self.twins[name] = twin
        self.bounds[name] = np.abs(stored - twin) if _is_float(twin) else np.zeros(twin.shape, np.float32)

    def _quantize(self, node: onnx.NodeProto) -> None:
        """Half a step, and what lies outside the codes; the twin has passed a rectifier that is absorbed."""
        source, scale, zero_point = node.input
        step, zero, limits = self.twins[scale], self.twins[zero_point], np.iinfo(self.twins[zero_point].dtype)
        low, high = (float(step) * (float(limit) - float(zero)) for limit in (limits.min, limits.max))
        twin = self.twins.get(node.output[0].removesuffix("_codes"), self.twins[source])
        outside = np.abs(twin - np.clip(twin, low, high))
        self.twins[node.output[0]] = twin
        self.bounds[node.output[0]] = self.bounds[source] + outside + step / 2

    def _dequantize(self, node: onnx.NodeProto) -> None:
        """Activations pass; a constant is as far from its float twin as it is."""
        codes, result = node.input[0], node.output[0]
        if _is_float(self.twins[codes]):
            self.twins[result], self.bounds[result] = self.twins[codes], self.bounds[codes]
        else:
            (stored,) = self._apply(node, [self.twins[name] for name in node.input])
            self._compare(result, stored, self.twins[codes.removesuffix("_codes")])

    def _compute(self, node: onnx.NodeProto) -> None:
        present = [name for name in node.input if name]
        inputs, missed = [self.twins[name] for name in present], [self.bounds[name] for name in present]
        for name, bound in zip(node.output, self._missed(node, inputs, missed), strict=True):
            self.bounds[name] = bound
        if not all(name in self.twins for name in node.output):
            self.twins.update(zip(node.output, self._apply(node, inputs), strict=True))

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


def _values(model: ir.Model, feeds: Arrays) -> Arrays:
    observed = model.clone()
    values = [value for node in observed.graph for value in node.outputs]
    observed.graph.outputs[:] = values
    return dict(zip([value.name or "" for value in values], run(open_session(observed), feeds), strict=True))
