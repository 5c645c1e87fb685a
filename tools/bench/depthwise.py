"""A MobileNet-V2 of full width for 224x224 images, with random weights: for measuring speed, not accuracy."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["depthwise_network"]

_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and first stride of each stage (Sandler et al. 2018, Table 2)."""
_STEM, _LAST, _CLASSES = 32, 1280, 1000


def depthwise_network(random: np.random.Generator) -> onnx.ModelProto:
    """Image [N, 3, 224, 224] -> 1000 scores; batch norms folded, opset 17."""
    net = _Builder(random)
    x = net.conv("image", 3, _STEM, size=3, stride=2)
    channels = _STEM
    for expansion, outputs, blocks, stride in _STAGES:
        for block in range(blocks):
            x = net.block(x, channels, outputs, expansion, stride if block == 0 else 1)
            channels = outputs
    x = net.conv(x, channels, _LAST)
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x])])
    net.node("Gemm", [x, *net.weights(_CLASSES, _LAST)], "scores", transB=1)
    graph = helper.make_graph(
        net.nodes,
        "depthwise",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", _CLASSES])],
        net.initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class _Builder:
    def __init__(self, random: np.random.Generator) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._random = random

    def block(self, x: str, inputs: int, outputs: int, expansion: int, stride: int) -> str:
        """An inverted residual."""
        wide = inputs * expansion
        inner = self.conv(x, inputs, wide) if expansion > 1 else x
        inner = self.conv(inner, wide, wide, size=3, stride=stride, groups=wide)
        inner = self.conv(inner, wide, outputs, rectify=False)
        return self.node("Add", [x, inner]) if stride == 1 and inputs == outputs else inner

    def conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        *,
        size: int = 1,
        stride: int = 1,
        groups: int = 1,
        rectify: bool = True,
    ) -> str:
        weights = self.weights(outputs, inputs // groups, size, size)
        pads = [size // 2] * 4
        result = self.node("Conv", [x, *weights], pads=pads, strides=[stride] * 2, group=groups)
        return self.node("Clip", [result, self._constant(0.0), self._constant(6.0)]) if rectify else result

    def weights(self, *shape: int) -> list[str]:
        """A weight and a bias; the weight keeps the variance of its input through a rectifier."""
        deviation = np.sqrt(2 / np.prod(shape[1:]))
        weight = (self._random.standard_normal(shape) * deviation).astype(np.float32)
        bias = (self._random.standard_normal(shape[0]) * 0.1).astype(np.float32)
        return [self._constant(weight), self._constant(bias)]

    def node(self, op_type: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        output = output or f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, values: np.ndarray | float) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name
