"""Random float networks for property tests: layers, arithmetic, data movement and odd nodes in any order."""

from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import strategies as st
from small_models import Builder

_OPSETS = (13, 15, 17, 19, 21)


@dataclass(frozen=True)
class Feature:
    """An image-like value [N, channels, size, size]."""

    name: str
    channels: int
    size: int


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """A network of one or two images [N, 3, 8, 8] with one or two outputs; its weights are random."""
    b = Builder(draw(st.integers(0, 1000)))
    inputs = [Feature(name, 3, 8) for name in ("image", "other image")[: draw(st.integers(1, 2))]]
    found = list(inputs)
    for _ in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(sorted(_STEPS)))
        source = found[draw(st.integers(0, len(found) - 1))]
        found.extend(_STEPS[kind](draw, b, source, found))
    last = _joined(b, found, inputs)
    outputs: dict[str, list[int | str]] = {_head(draw, b, last): ["N", 5]}
    if found[-1] not in inputs and draw(st.booleans()):
        outputs[found[-1].name] = ["N", found[-1].channels, found[-1].size, found[-1].size]
    shapes: dict[str, list[int | str]] = {one.name: ["N", 3, 8, 8] for one in inputs}
    return b.model(shapes, outputs, opset=draw(st.sampled_from(_OPSETS)))


def _conv(draw: st.DrawFn, b: Builder, x: Feature, found: list[Feature]) -> list[Feature]:
    outputs = draw(st.sampled_from([x.channels, 4, 6]))
    depthwise = outputs == x.channels and draw(st.booleans())
    stride = draw(st.sampled_from([1, 2])) if x.size % 2 == 0 and x.size > 2 else 1
    name = b.conv(
        x.name,
        x.channels,
        outputs,
        size=draw(st.sampled_from([1, 3])),
        bias=draw(st.booleans()),
        strides=[stride] * 2,
        group=x.channels if depthwise else 1,
    )
    return [Feature(_activation(draw, b, name), outputs, -(-x.size // stride))]


def _activation(draw: st.DrawFn, b: Builder, x: str) -> str:
    kind = draw(st.sampled_from(["none", "relu", "relu6", "leaky", "silu", "sigmoid", "hardswish", "tanh"]))
    if kind == "silu":
        return b.node("Mul", [x, b.node("Sigmoid", [x])])
    if kind == "relu6":
        return b.relu6(x)
    operators = {"relu": "Relu", "leaky": "LeakyRelu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
    if kind == "hardswish":
        return b.node("Mul", [x, b.node("HardSigmoid", [x], alpha=1 / 6)])
    return b.node(operators[kind], [x]) if kind in operators else x


def _upsample(draw: st.DrawFn, b: Builder, x: Feature, found: list[Feature]) -> list[Feature]:
    if x.size > 8:
        return []
    weight = b.weight(x.channels, 4, 2, 2)
    return [Feature(b.node("ConvTranspose", [x.name, weight], strides=[2, 2]), 4, 2 * x.size)]


def _arithmetic(draw: st.DrawFn, b: Builder, x: Feature, found: list[Feature]) -> list[Feature]:
    like = [other for other in found if (other.channels, other.size) == (x.channels, x.size)]
    other = like[draw(st.integers(0, len(like) - 1))]
    return [Feature(b.node(draw(st.sampled_from(["Add", "Mul"])), [x.name, other.name]), x.channels, x.size)]


def _by_a_constant(draw: st.DrawFn, b: Builder, x: Feature, found: list[Feature]) -> list[Feature]:
    constant = b.constant(b.random.uniform(0.5, 1.5, (1, x.channels, 1, 1)).astype(np.float32))
    return [Feature(b.node(draw(st.sampled_from(["Add", "Mul"])), [x.name, constant]), x.channels, x.size)]


def _concat(draw: st.DrawFn, b: Builder, x: Feature, found: list[Feature]) -> list[Feature]:
    like = [other for other in found if other.size == x.size]
    other = like[draw(st.integers(0, len(like) - 1))]
    joined = b.node("Concat", [x.name, other.name], axis=1)
    return [Feature(joined, x.channels + other.channels, x.size)]


def _pool(draw: st.DrawFn, b: Builder, x: Feature, found: list[Feature]) -> list[Feature]:
    operator = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    name = b.node(operator, [x.name], kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    return [Feature(name, x.channels, x.size)]


def _move(draw: st.DrawFn, b: Builder, x: Feature, found: list[Feature]) -> list[Feature]:
    kind = draw(st.sampled_from(["transpose", "reshape", "slice", "resize", "split"]))
    if kind == "transpose":
        return [Feature(b.node("Transpose", [x.name], perm=[0, 1, 3, 2]), x.channels, x.size)]
    if kind == "reshape":
        flat = b.node("Flatten", [x.name])
        shape = b.constant(np.array([0, x.channels, x.size, x.size], np.int64))
        return [Feature(b.node("Reshape", [flat, shape]), x.channels, x.size)]
    if kind == "slice":
        bounds = [b.constant(np.array([value], np.int64)) for value in (0, max(x.channels // 2, 1), 1)]
        return [Feature(b.node("Slice", [x.name, *bounds]), max(x.channels // 2, 1), x.size)]
    if kind == "resize" and x.size <= 8:
        scales = b.constant(np.array([1, 1, 2, 2], np.float32))
        return [Feature(b.node("Resize", [x.name, "", scales], mode="nearest"), x.channels, 2 * x.size)]
    if kind == "split" and x.channels > 1:
        sizes = [1, x.channels - 1]
        first, rest = f"split{len(b.nodes)}a", f"split{len(b.nodes)}b"
        b.nodes.append(
            onnx.helper.make_node("Split", [x.name, b.constant(np.array(sizes))], [first, rest], axis=1)
        )
        return [Feature(first, 1, x.size), Feature(rest, x.channels - 1, x.size)]
    return []


def _attention(draw: st.DrawFn, b: Builder, x: Feature, found: list[Feature]) -> list[Feature]:
    keys = b.node("Transpose", [x.name], perm=[0, 1, 3, 2])
    scores = b.node("Softmax", [b.node("MatMul", [x.name, keys])], axis=-1)
    return [Feature(b.node("MatMul", [scores, x.name]), x.channels, x.size)]


def _stack(draw: st.DrawFn, b: Builder, x: Feature, found: list[Feature]) -> list[Feature]:
    """A product with a matrix for every channel."""
    return [Feature(b.node("MatMul", [x.name, b.weight(x.channels, x.size, x.size)]), x.channels, x.size)]


def _normalise(draw: st.DrawFn, b: Builder, x: Feature, found: list[Feature]) -> list[Feature]:
    statistics = [b.constant(b.random.uniform(0.5, 2, x.channels).astype(np.float32)) for _ in range(4)]
    return [Feature(b.node("BatchNormalization", [x.name, *statistics]), x.channels, x.size)]


_STEPS = {
    "arithmetic": _arithmetic,
    "attention": _attention,
    "constant": _by_a_constant,
    "concat": _concat,
    "conv": _conv,
    "move": _move,
    "normalise": _normalise,
    "pool": _pool,
    "stack": _stack,
    "upsample": _upsample,
}


def _joined(b: Builder, found: list[Feature], inputs: list[Feature]) -> Feature:
    """The last value beside every input, so that nothing is left unread."""
    pooled = [b.node("GlobalAveragePool", [one.name]) for one in (found[-1], *inputs)]
    channels = found[-1].channels + sum(one.channels for one in inputs)
    return Feature(b.node("Concat", pooled, axis=1), channels, 1)


def _with_one_weight(b: Builder, flat: str, channels: int) -> str:
    """Two layers with the same weight and biases of their own."""
    first = b.gemm(flat, channels, channels)
    again = [b.node("Tanh", [first]), b.nodes[-2].input[1], b.constant(np.ones(channels, np.float32))]
    return b.gemm(b.node("Gemm", again, transB=1), channels, 5)


def _head(draw: st.DrawFn, b: Builder, x: Feature) -> str:
    flat = b.node("Flatten", [x.name])
    if draw(st.booleans()):
        return b.gemm(flat, x.channels, 5)
    if draw(st.booleans()):
        return _with_one_weight(b, flat, x.channels)
    weight = b.constant((b.random.standard_normal((x.channels, 5)) / np.sqrt(x.channels)).astype(np.float32))
    bias = b.constant(b.random.standard_normal(5).astype(np.float32))
    return b.node("Add", [b.node("MatMul", [flat, weight]), bias])
