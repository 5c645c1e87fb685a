"""Small float networks with random weights, for tests."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Writes an ONNX graph node by node; every call returns the name of the node's output."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def constant(self, values: np.ndarray, name: str | None = None) -> str:
        name = name or f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op: str, inputs: Sequence[str], name: str | None = None, **attributes: object) -> str:
        output = name or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"node_{output}", **attributes))
        return output

    def weight(self, *shape: int) -> str:
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        return self.constant((self.random.standard_normal(shape) * scale).astype(np.float32))

    def conv(
        self, x: str, inputs: int, outputs: int, size: int = 3, *, bias: bool = True, **attributes: object
    ) -> str:
        groups = int(attributes.get("group", 1))  # type: ignore[call-overload]
        names = [x, self.weight(outputs, inputs // groups, size, size)]
        if bias:
            names.append(self.constant(self.random.standard_normal(outputs).astype(np.float32) * 0.1))
        return self.node("Conv", names, **{"pads": [size // 2] * 4, **attributes})

    def relu(self, x: str) -> str:
        return self.node("Relu", [x])

    def relu6(self, x: str) -> str:
        limits = [self.constant(np.array(limit, dtype=np.float32)) for limit in (0, 6)]
        return self.node("Clip", [x, *limits])

    def gemm(self, x: str, inputs: int, outputs: int) -> str:
        bias = self.constant(self.random.standard_normal(outputs).astype(np.float32) * 0.1)
        return self.node("Gemm", [x, self.weight(outputs, inputs), bias], transB=1)

    def model(
        self,
        inputs: dict[str, Sequence[int | str]],
        outputs: dict[str, Sequence[int | str]],
        opset: int = 17,
        types: dict[str, int] | None = None,
        domains: Sequence[str] = (),
    ) -> onnx.ModelProto:
        kinds = types or {}
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
            [
                helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s)
                for n, s in outputs.items()
            ],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def residual(seed: int = 0) -> onnx.ModelProto:
    """Image [N, 3, 8, 8] -> 10 scores: residual add, strided and depthwise convolutions, Relu and Relu6."""
    b = Builder(seed)
    stem = b.relu(b.conv("image", 3, 8))
    wide = b.relu6(b.conv(stem, 8, 16, size=1))
    deep = b.relu6(b.conv(wide, 16, 16, group=16))
    narrow = b.conv(deep, 16, 8, size=1)
    added = b.node("Add", [stem, narrow])
    down = b.relu(b.conv(added, 8, 12, strides=[2, 2], bias=False))
    pooled = b.node("GlobalAveragePool", [down])
    flat = b.node("Flatten", [pooled])
    logits = b.gemm(flat, 12, 10)
    b.nodes[-1].output[0] = logits = "logits"
    return b.model({"image": ["N", 3, 8, 8]}, {logits: ["N", 10]})


def branching(seed: int = 0) -> onnx.ModelProto:
    """Image [N, 3, 8, 8] -> 10 scores: three branches that meet in a Concat, grouped convolution, MaxPool."""
    b = Builder(seed)
    stem = b.relu(b.conv("image", 3, 8))
    left = b.relu(b.conv(stem, 8, 4, size=1))
    middle = b.relu(b.conv(b.relu(b.conv(stem, 8, 8, size=1)), 8, 4, 5, group=2))
    pool = b.node("MaxPool", [stem], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    right = b.relu(b.conv(pool, 8, 4, size=1))
    joined = b.node("Concat", [left, middle, right], axis=1)
    pooled = b.node("AveragePool", [b.relu(b.conv(joined, 12, 8))], kernel_shape=[8, 8])
    flat = b.node("Flatten", [pooled])
    b.gemm(flat, 8, 10)
    b.nodes[-1].output[0] = "logits"
    return b.model({"image": ["N", 3, 8, 8]}, {"logits": ["N", 10]})


def depthwise(seed: int = 0, blocks: int = 6) -> onnx.ModelProto:
    """Image [N, 3, 8, 8] -> 10 scores: inverted residuals."""
    b = Builder(seed)
    x = b.relu(b.conv("image", 3, 8))
    for _ in range(blocks):
        wide = b.relu6(b.conv(x, 8, 24, size=1))
        deep = b.relu6(b.conv(wide, 24, 24, group=24))
        x = b.node("Add", [x, b.conv(deep, 24, 8, size=1)])
    b.gemm(b.node("Flatten", [b.node("GlobalAveragePool", [b.relu(x)])]), 8, 10)
    b.nodes[-1].output[0] = "logits"
    return b.model({"image": ["N", 3, 8, 8]}, {"logits": ["N", 10]})


def squeeze_and_excitation(
    wide: float = 30.0, *, rectifier: bool = False, pool: str = "GlobalAveragePool", seed: int = 0
) -> onnx.ModelProto:
    """A depthwise convolution with a wide channel that its gate closes; ``gated`` is their product."""
    channels, widths = 8, np.ones((8, 1, 1, 1), np.float32)
    widths[2] = wide
    b = Builder(seed)
    x = b.relu(b.conv("image", 3, channels))
    kernel = b.random.standard_normal((channels, 1, 3, 3)).astype(np.float32) / 3 * widths
    bias = b.constant(0.1 * widths.ravel())
    x = b.node("Conv", [x, b.constant(kernel), bias], name="inner", group=channels, pads=[1] * 4)
    x = b.relu(x) if rectifier else x
    gate = b.relu(b.conv(b.node(pool, [x]), channels, 4, 1))
    opened = np.full(channels, 3, np.float32)
    opened[2] = -4
    gate = b.node("Conv", [gate, b.weight(channels, 4, 1, 1), b.constant(opened)])
    x = b.node("Mul", [x, b.node("Sigmoid", [gate])], name="gated")
    x = b.node("Flatten", [b.node("GlobalAveragePool", [b.relu(b.conv(x, channels, 16))])])
    b.node("Identity", [b.gemm(x, 16, 10)], name="logits")
    return b.model({"image": ["N", 3, 8, 8]}, {"logits": ["N", 10]})


def activated_images(kind: str = "HardSwish", wide: float = 20.0) -> onnx.ModelProto:
    """A convolution with a wide channel, ``inner``, an activation function, and layers that even it out."""
    channels, widths = 8, np.ones((8, 1, 1, 1), np.float32)
    widths[2] = wide
    b = Builder(0)
    weight = b.random.standard_normal((channels, 3, 5, 5)).astype(np.float32) / 9 * widths
    b.node("Conv", ["image", b.constant(weight), b.constant(widths.ravel() / 5)], name="inner", pads=[2] * 4)
    if kind == "SiLU on codes":
        x = b.node("Mul", ["inner", b.node("Sigmoid", ["inner"])])
    else:
        x = b.node(kind.split()[0], ["inner"])
    if kind == "HardSwish":  # and what PP-LCNet has behind it, which keeps it in float
        x = b.node(
            "Add",
            [
                b.node("Mul", [x, b.constant(np.array(1.2, np.float32))]),
                b.constant(np.array(0.1, np.float32)),
            ],
        )
    evened = b.random.standard_normal((channels, 1, 3, 3)).astype(np.float32) / widths
    zeros = b.constant(np.zeros(channels, np.float32))
    x = b.node("Conv", [x, b.constant(evened), zeros], group=channels, pads=[1] * 4)
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x])])
    b.node("Identity", [b.gemm(x, channels, 10)], name="logits")
    return b.model({"image": ["N", 3, 8, 8]}, {"logits": ["N", 10]})


def recommender(seed: int = 0) -> onnx.ModelProto:
    """Two integer inputs [N] -> one score [N]: embedding tables, Concat, Mul, Gemm and MatMul."""
    b = Builder(seed)
    user, item = (b.node("Gather", [b.weight(30, 8), name]) for name in ("user", "item"))
    joined = b.node("Concat", [user, item], axis=1)
    deep = b.relu(b.gemm(joined, 16, 8))
    wide = b.node("Mul", [user, item])
    both = b.node("Concat", [deep, wide], axis=1)
    score = b.node("MatMul", [both, b.weight(16, 1)])
    axes = b.constant(np.array([1], dtype=np.int64))
    b.node("Squeeze", [score, axes], name="score")
    integers = {"user": TensorProto.INT64, "item": TensorProto.INT64}
    return b.model({"user": ["N"], "item": ["N"]}, {"score": ["N"]}, types=integers)


def encoder(
    seed: int = 0, *, width: int = 16, heads: int = 2, length: int = 6, blocks: int = 1
) -> onnx.ModelProto:
    """Tokens [N, length] -> 5 scores: transformer blocks as exporters write them, GELU in pieces, a mask."""
    b = Builder(seed)
    embedded = b.node("Gather", [b.weight(30, width), "tokens"])
    x = b.node("Add", [embedded, b.constant(b.random.standard_normal((1, length, width)).astype(np.float32))])
    for _ in range(blocks):
        x = _block(b, x, width, heads, length)
    pooled = b.node("ReduceMean", [_layer_norm(b, x, width)], axes=[1], keepdims=0)
    b.gemm(pooled, width, 5)
    b.nodes[-1].output[0] = "scores"
    return b.model({"tokens": ["N", length]}, {"scores": ["N", 5]}, types={"tokens": TensorProto.INT64})


def _block(b: Builder, x: str, width: int, heads: int, length: int) -> str:
    """Attention and a dense layer, both added to what they read."""
    normal = _layer_norm(b, x, width)
    query, key, value = (_heads(b, _linear(b, normal, width, width), length, heads) for _ in range(3))
    keys = b.node("Transpose", [key], perm=[0, 1, 3, 2])
    scores = b.node("MatMul", [query, keys])
    scaled = b.node("Div", [scores, b.constant(np.array(np.sqrt(width / heads), np.float32))])
    bias = b.node("Where", [_is_padding(b), b.constant(np.array(-np.inf, np.float32)), _zero(b)])
    attention = b.node("Softmax", [b.node("Add", [scaled, bias])], axis=-1)
    mixed = b.node("Transpose", [b.node("MatMul", [attention, value])], perm=[0, 2, 1, 3])
    shape = b.constant(np.array([0, length, width], np.int64))
    joined = _linear(b, b.node("Reshape", [mixed, shape]), width, width)
    x = b.node("Add", [x, joined])
    wide = _gelu(b, _linear(b, _layer_norm(b, x, width), width, 2 * width))
    return b.node("Add", [x, _linear(b, wide, 2 * width, width)])


def tagger(cell: str = "LSTM", seed: int = 0) -> onnx.ModelProto:
    """Tokens [N, 6] -> 5 scores each: an embedding, a recurrent layer in both directions, a dense layer."""
    b = Builder(seed)
    width, hidden, gates = 12, 8, {"LSTM": 4, "GRU": 3, "RNN": 1}[cell]
    steps = b.node("Transpose", [b.node("Gather", [b.weight(30, width), "tokens"])], perm=[1, 0, 2])
    kernel = [b.weight(2, gates * hidden, inner) for inner in (width, hidden)]
    bias = b.constant(b.random.standard_normal((2, 2 * gates * hidden)).astype(np.float32) * 0.1)
    states = b.node(cell, [steps, *kernel, bias], hidden_size=hidden, direction="bidirectional")
    moved = b.node("Transpose", [states], perm=[2, 0, 1, 3])
    joined = b.node("Reshape", [moved, b.constant(np.array([0, 0, -1], np.int64))])
    b.node("Add", [_linear(b, joined, 2 * hidden, 5), b.constant(np.zeros(5, np.float32))], name="scores")
    return b.model({"tokens": ["N", 6]}, {"scores": ["N", 6, 5]}, types={"tokens": TensorProto.INT64})


def _linear(b: Builder, x: str, inputs: int, outputs: int) -> str:
    product = b.node("MatMul", [x, b.constant(_matrix(b, inputs, outputs))])
    return b.node("Add", [b.constant(b.random.standard_normal(outputs).astype(np.float32) * 0.1), product])


def _matrix(b: Builder, inputs: int, outputs: int) -> np.ndarray:
    return (b.random.standard_normal((inputs, outputs)) / np.sqrt(inputs)).astype(np.float32)


def _layer_norm(b: Builder, x: str, width: int) -> str:
    gain = b.constant(b.random.uniform(0.5, 1.5, width).astype(np.float32))
    return b.node("LayerNormalization", [x, gain, b.constant(np.zeros(width, np.float32))], axis=-1)


def _heads(b: Builder, x: str, length: int, heads: int) -> str:
    shape = b.constant(np.array([0, length, heads, -1], np.int64))
    return b.node("Transpose", [b.node("Reshape", [x, shape])], perm=[0, 2, 1, 3])


def _is_padding(b: Builder) -> str:
    """[N, 1, 1, length]: tokens above 26 are padding."""
    axes = b.constant(np.array([1, 2], np.int64))
    return b.node("Unsqueeze", [b.node("Greater", ["tokens", b.constant(np.array(26, np.int64))]), axes])


def _zero(b: Builder) -> str:
    return b.constant(np.array(0, np.float32))


def _gelu(b: Builder, x: str) -> str:
    inner = b.node("Erf", [b.node("Div", [x, b.constant(np.array(np.sqrt(2), np.float32))])])
    gate = b.node("Mul", [x, b.node("Add", [inner, b.constant(np.array(1, np.float32))])])
    return b.node("Mul", [gate, b.constant(np.array(0.5, np.float32))])


MODELS = {"residual": residual, "branching": branching, "recommender": recommender, "encoder": encoder}


def feeds(model: onnx.ModelProto, count: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Random inputs for one of the models above."""
    random = np.random.default_rng(seed)
    result = {}
    for value in model.graph.input:
        shape = [count] + [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
        if value.type.tensor_type.elem_type == TensorProto.INT64:
            result[value.name] = random.integers(0, 30, shape)
        else:
            result[value.name] = random.standard_normal(shape).astype(np.float32)
    return result
