import numpy as np
import onnx
import pytest

from onnx_lapq.graph.loading import load
from onnx_lapq.graph.simplify.prepare import prepare

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g'
BRANCHES = """<
    then_branch = yes () => (float[N, 24] a) { a = Squeeze(x, axis) },
    else_branch = no () => (float[N, 1, 24] b) { b = Tanh(x) }
>"""


def operators(text: str, **values: float) -> list[str]:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model)
    return [node.op_type for node in prepare(load(model), values=values).graph]


def test_a_branch_that_a_constant_chooses_is_all_that_is_left():
    text = f"""{HEAD} (float[N, 1, 24] x) => (float[N, M] y) <bool chosen = {{1}}, int64[1] axis = {{1}}>
    {{ y = If (chosen) {BRANCHES} }}"""
    assert operators(text) == ["Squeeze"]


@pytest.mark.parametrize(
    "size",
    [
        "sizes = Shape(x)\n size = Gather(sizes, one)",
        "size = Shape<start = 1, end = 2>(x)",
        "sizes = Shape(x)\n size = Slice(sizes, axis, end)",
    ],
)
def test_a_condition_on_a_known_size_is_settled_beside_an_open_one(size):
    text = f"""{HEAD} (float[N, 1, 24] x) => (float[N, M] y)
    <int64 one = {{1}}, int64[1] axis = {{1}}, int64[1] end = {{2}}>
    {{ {size}
       squeezed = Equal(size, one)
       y = If (squeezed) {BRANCHES} }}"""
    assert operators(text) == ["Squeeze"]


def test_a_condition_on_an_open_size_stays():
    text = f"""{HEAD} (float[N, L, 24] x) => (float[N, M] y) <int64 one = {{1}}, int64[1] axis = {{1}}>
    {{ sizes = Shape(x)
       size = Gather(sizes, one)
       squeezed = Equal(size, one)
       y = If (squeezed) {BRANCHES} }}"""
    assert "If" in operators(text)


def test_branches_within_branches_are_settled_by_a_number_that_is_set():
    text = f"""{HEAD} (float[N, 1, 24] x, int64 sr) => (float[N, M] y)
    <int64 usual = {{16000}}, int64 one = {{1}}, int64[1] axis = {{1}}>
    {{ fast = Equal(sr, usual)
       y = If (fast) <
           then_branch = then () => (float[N, M] c) {{
               sizes = Shape(x)
               size = Gather(sizes, one)
               squeezed = Equal(size, one)
               c = If (squeezed) {BRANCHES}
           }},
           else_branch = other () => (float[N, 1, 24] d) {{ d = Relu(x) }}
       > }}"""
    assert "If" in operators(text)
    assert operators(text, sr=16000) == ["Squeeze"]
    assert operators(text, sr=8000) == ["Relu"]


def test_a_set_input_stays_and_its_readers_get_the_number():
    text = f"""{HEAD} (float[N] x, int64 factor) => (float[N] y)
    {{ number = Cast<to = 1>(factor)
       y = Mul(x, number) }}"""
    prepared = prepare(load(onnx.parser.parse_model(text)), values={"factor": 3})
    assert [value.name for value in prepared.graph.inputs] == ["x", "factor"]
    (node,) = prepared.graph
    assert [value.const_value.numpy() for value in node.inputs if value.const_value is not None] == [
        np.float32(3)
    ]


def test_the_constant_of_a_set_input_takes_a_free_name():
    text = f"""{HEAD} (float[N] x, float factor) => (float[N] y)
    <float[1] factor_set = {{2.0}}>
    {{ number = Add(factor, factor_set)
       y = Mul(x, number) }}"""
    (node,) = prepare(load(onnx.parser.parse_model(text)), values={"factor": 3}).graph
    (number,) = [value.const_value.numpy() for value in node.inputs if value.const_value is not None]
    assert number == np.float32(5)
