"""Small networks with inputs that are no batch along their first axis, and samples of different lengths."""

import numpy as np
import onnx
from onnx import TensorProto, helper
from small_models import Builder

STATE = 6
"""Values of a state."""


def voice(batch: int | str = "batch") -> onnx.ModelProto:
    """A step of a voice detector: sound, a state [2, batch, 6], and a sample rate that chooses a branch."""
    b = Builder()
    rate = b.constant(np.array(16000))
    state, sound = [2, batch, STATE], [batch, 24]
    branches = [_branch(name, stride) for name, stride in (("fast", 4), ("slow", 2))]
    b.nodes.append(
        helper.make_node(
            "If",
            [b.node("Equal", ["sr", rate])],
            ["speech", "next"],
            name="by_rate",
            then_branch=branches[0],
            else_branch=branches[1],
        )
    )
    return b.model(
        {"sound": sound, "state": state, "sr": []},
        {"speech": [batch, 1], "next": state},
        types={"sr": TensorProto.INT64},
    )


def _branch(name: str, stride: int) -> onnx.GraphProto:
    """Convolution over the sound, a gated step of the state, and one score."""
    b = Builder(stride)
    zero, first, second = (b.constant(np.array([at])) for at in (0, 1, 2))
    sound = b.node("Unsqueeze", ["sound", first])
    seen = b.relu(b.node("Conv", [sound, b.weight(STATE, 1, 4)], strides=[stride]))
    pooled = b.node("ReduceMean", [seen], axes=[2], keepdims=0)
    hidden, cell = (b.node("Slice", ["state", *place, zero]) for place in ((zero, first), (first, second)))
    gate = b.node("Sigmoid", [b.node("Add", [pooled, hidden])])
    new = b.node("Tanh", [b.node("Add", [gate, cell])])
    following = b.node("Concat", [new, gate], axis=0)
    flat = b.node("Reshape", [new, b.constant(np.array([-1, STATE]))])
    speech = b.node("Sigmoid", [b.gemm(flat, STATE, 1)])
    outputs = [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in (speech, following)]
    graph = helper.make_graph(b.nodes, name, [], outputs, b.initializers)
    names = {each for node in graph.node for each in (*node.input, *node.output)} - {"sound", "state"}
    return _renamed(graph, {each: f"{name}_{each}" for each in names})


def _renamed(graph: onnx.GraphProto, names: dict[str, str]) -> onnx.GraphProto:
    for node in graph.node:
        node.input[:] = [names.get(each, each) for each in node.input]
        node.output[:] = [names.get(each, each) for each in node.output]
    for value in (*graph.initializer, *graph.output):
        value.name = names.get(value.name, value.name)
    return graph


def steps(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """What a loop feeds to `voice`, step by step."""
    random = np.random.default_rng(seed)
    return [
        {
            "sound": random.standard_normal((1, 24)).astype(np.float32),
            "state": random.uniform(-1, 1, (2, 1, STATE)).astype(np.float32),
            "sr": np.array(16000),
        }
        for _ in range(count)
    ]


def reader(*, time_first: bool = False) -> onnx.ModelProto:
    """A text reader: scores of 5 letters for every fourth column of pictures of any width."""
    b = Builder(1)
    x = b.relu(b.conv("picture", 1, 8, strides=[4, 4]))
    rows = b.node("Squeeze", [b.node("ReduceMean", [x], axes=[2], keepdims=1), b.constant(np.array([2]))])
    columns = b.node("Transpose", [rows], perm=[2, 0, 1] if time_first else [0, 2, 1])
    b.node("Softmax", [b.node("MatMul", [columns, b.weight(8, 5)])], "letters", axis=-1)
    shape = ["time", "batch", 5] if time_first else ["batch", "time", 5]
    return b.model({"picture": ["batch", 1, 8, "width"]}, {"letters": shape})


def lines(count: int, widths: tuple[int, ...] = (16, 12, 20), seed: int = 0) -> list[np.ndarray]:
    """Pictures of lines of text, of different widths."""
    random = np.random.default_rng(seed)
    return [
        random.standard_normal((1, 8, widths[at % len(widths)])).astype(np.float32) for at in range(count)
    ]
