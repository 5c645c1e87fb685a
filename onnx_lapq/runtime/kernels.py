"""Which kernels onnxruntime runs a model on, read from the graph that it makes of it."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnx_lapq.runtime.session import open_file

__all__ = ["Kernel", "kernels", "lacks_integer_kernel"]

_INTEGER_PREFIXES = ("QLinear", "QGemm", "QAttention", "DynamicQuantize", "MatMulInteger", "ConvInteger")
_WITH_INTEGER_KERNEL = {
    *("Add", "AveragePool", "Concat", "Conv", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul", "Mul"),
    *("Sigmoid", "Softmax"),
}
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Cast")
_MOVEMENT = {
    *("DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "NhwcMaxPool", "ReduceMax"),
    *("Reshape", "Resize", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    *("ReorderInput", "ReorderOutput"),
}
_MATRIX = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul", "NhwcFusedConv": "Conv"}


@dataclass(frozen=True)
class Kernel:
    """A node of the graph that onnxruntime runs.

    Attributes:
        name: The node's name after optimisation.
        op_type: Its operator, ``QLinearConv`` or ``Conv``.
        integer: Whether it computes on integers.
        between: Whether it lies between the first and the last quantizer.
        reason: Why it computes in float; empty where it does not.
    """

    name: str
    op_type: str
    integer: bool
    between: bool
    reason: str = ""


def lacks_integer_kernel(op_type: str) -> bool:
    """Whether an operator of ONNX computes, and onnxruntime can do so in float only."""
    return op_type not in _WITH_INTEGER_KERNEL and op_type not in _MOVEMENT


def kernels(path: Path) -> list[Kernel]:
    """The compute nodes of a model on the CPU at default optimisation, in the order they run.

    Conversions, nodes that only move data and arithmetic on shapes are left out.

    Raises:
        ModelError: Onnxruntime does not load the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_file(path, optimized=optimized)
        graph = onnx.load(optimized, load_external_data=False).graph
    return list(_Reader(graph).kernels())


class _Reader:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes = list(graph.node)
        self._producer = {name: node for node in self._nodes for name in node.output}
        self._constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        integers = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL}
        self._shapes = {
            value.name for value in graph.input if value.type.tensor_type.elem_type in integers
        } | {name for name, kind in self._constants.items() if kind in integers}

    def kernels(self) -> Iterator[Kernel]:
        inside, before = self._after_a_quantizer(), self._before_a_quantizer()
        for index, node in enumerate(self._nodes):
            if self._is_about_shapes(node) or self._limits_codes(node):
                continue
            if node.op_type in (*_CONVERSIONS, *_MOVEMENT):
                continue
            integer = node.op_type.startswith(_INTEGER_PREFIXES)
            between = index in inside and index in before
            reason = "" if integer else self._reason(node)
            yield Kernel(node.name or node.output[0], node.op_type, integer, between, reason)

    def _is_about_shapes(self, node: onnx.NodeProto) -> bool:
        names = [name for name in node.input if name]
        found = node.op_type in ("Shape", "Size", "Constant", "ConstantOfShape") or (
            bool(names) and all(name in self._shapes for name in names) and node.op_type != "Cast"
        )
        if found:
            self._shapes.update(node.output)
        return found

    def _limits_codes(self, node: onnx.NodeProto) -> bool:
        """Whether the node belongs to a quantizer of fewer bits than its container has."""
        codes = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
        return node.op_type in ("Clip", "Max", "Min") and any(
            self._constants.get(name) in codes for name in node.input
        )

    def _after_a_quantizer(self) -> set[int]:
        reached: set[str] = set()
        found = set()
        for index, node in enumerate(self._nodes):
            if any(name in reached for name in node.input):
                found.add(index)
            if index in found or self._is_quantized(node):
                reached.update(node.output)
        return found

    def _before_a_quantizer(self) -> set[int]:
        """Nodes whose output, or that of a node behind them, is quantized or goes into an integer kernel."""
        reached: set[str] = set()
        found = set()
        for index in reversed(range(len(self._nodes))):
            node = self._nodes[index]
            if any(name in reached for name in node.output):
                found.add(index)
            if index in found or self._is_quantized(node):
                reached.update(node.input)
        return found

    @staticmethod
    def _is_quantized(node: onnx.NodeProto) -> bool:
        return node.op_type == "QuantizeLinear" or node.op_type.startswith(_INTEGER_PREFIXES)

    def _is_wide(self, dequantize: onnx.NodeProto) -> bool:
        """Whether codes of 16 bits are read."""
        kinds = (onnx.TensorProto.INT16, onnx.TensorProto.UINT16)
        return any(self._constants.get(name) in kinds for name in dequantize.input[2:])

    def _reason(self, node: onnx.NodeProto) -> str:
        kind = _FUSED.get(node.op_type, node.op_type)
        if kind == "MatMulNBits":
            return "its input is float; its weight stays in codes"
        if kind not in _WITH_INTEGER_KERNEL:
            return f"onnxruntime has no integer kernel for {kind} on the CPU"
        for name in node.input[: 2 if kind in _MATRIX else None]:
            source = self._producer.get(name)
            if name in self._constants:
                return f"its operand {name!r} is a float constant"
            if source is None or source.op_type != "DequantizeLinear":
                return f"its input {name!r} is not quantized"
            if self._is_wide(source):
                return "onnxruntime has no integer kernels for activations of 16 bits on the CPU"
            if self._constants.get(source.input[0]) not in (
                None,
                onnx.TensorProto.INT8,
                onnx.TensorProto.UINT8,
            ):
                return f"its weight {source.input[0]!r} is packed; integer kernels take 8-bit containers"
        if any(
            reader.op_type != "QuantizeLinear"
            for name in node.output
            for reader in self._readers.get(name, [])
        ):
            return "its output is not quantized"
        return "onnxruntime does not fuse it with its quantizers"
