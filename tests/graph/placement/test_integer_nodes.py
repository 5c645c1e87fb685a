"""Which arithmetic runs on codes."""

import numpy as np
import onnx_ir as ir
from small_models import Builder

from onnx_lapq.graph.placement.options import PlacementOptions
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare

IMAGE = ["N", 4, 8, 8]


def in_float(b: Builder):
    model = prepare(ir.from_proto(b.model({"image": IMAGE}, {"y": ["N", 4, 8, 8]})))
    return [node.op_type for node in place(model, PlacementOptions()).in_float]


def ended(b: Builder, x: str, channels: int = 4) -> Builder:
    b.node("Identity", [b.conv(x, channels, 4)], name="y")
    return b


def test_a_sum_of_a_convolution_and_a_float_value_stays_in_float():
    b = Builder()
    assert in_float(ended(b, b.node("Add", [b.conv("image", 4, 4), b.node("Tanh", ["image"])]))) == [
        "Tanh",
        "Add",
    ]


def test_a_chain_of_sums_runs_on_codes_where_it_begins_and_ends_at_convolutions():
    b = Builder()
    x = b.conv("image", 4, 4)
    for _ in range(3):
        x = b.node("Add", [x, b.conv(x, 4, 4)])
    assert in_float(ended(b, x)) == []


def test_a_chain_of_sums_that_ends_at_a_float_operator_stays_in_float():
    b = Builder()
    x = b.conv("image", 4, 4)
    for _ in range(3):
        x = b.node("Add", [x, b.node("Tanh", [b.conv(b.node("Tanh", [x]), 4, 4)])])
    assert in_float(ended(b, b.node("Tanh", [x]))).count("Add") == 3


def test_one_input_in_codes_is_enough_for_a_concat():
    b = Builder()
    joined = b.node("Concat", [b.conv("image", 4, 4), b.node("Tanh", ["image"])], axis=1)
    assert in_float(ended(b, joined, 8)) == ["Tanh"]


def test_the_sum_of_the_inputs_of_a_graph_runs_on_codes():
    b = Builder()
    pooled = b.node("MaxPool", ["image"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    assert in_float(ended(b, b.node("Add", ["image", pooled]))) == []


def test_the_sum_of_a_value_and_its_gated_self_runs_on_codes():
    b = Builder()
    x = b.conv("image", 4, 4)
    gate = b.node("Sigmoid", [b.conv(b.node("GlobalAveragePool", [x]), 4, 4, size=1)])
    assert in_float(ended(b, b.node("Add", [x, b.node("Mul", [x, gate])]))) == []


def test_pieces_of_an_input_are_joined_in_float():
    b = Builder()
    ends, axes, steps = (b.constant(np.array([value])) for value in (4, 1, 2))
    starts = [b.constant(np.array([start])) for start in (0, 1)]
    halves = [b.node("Slice", ["image", start, ends, axes, steps]) for start in starts]
    assert in_float(ended(b, b.node("Concat", halves, axis=1))) == ["Concat"]


def test_a_pool_behind_the_last_product_stays_in_float():
    b = Builder()
    x = b.conv("image", 4, 4)
    b.node("MaxPool", [b.node("Mul", [x, b.node("Sigmoid", [x])])], kernel_shape=[1, 1], name="y")
    assert in_float(b) == ["Sigmoid", "Mul", "MaxPool"]


def test_a_pool_in_front_of_a_float_operator_stays_in_float():
    b = Builder()
    pooled = b.node("MaxPool", [b.relu(b.conv("image", 4, 4))], kernel_shape=[1, 1])
    assert "MaxPool" in in_float(ended(b, b.node("LRN", [pooled], size=3)))


def test_a_pool_behind_a_float_operator_stays_in_float():
    b = Builder()
    normal = b.node("LRN", [b.relu(b.conv("image", 4, 4))], size=3)
    pooled = b.node("MaxPool", [normal], kernel_shape=[1, 1])
    assert "MaxPool" in in_float(ended(b, pooled))


def test_a_pool_between_integer_kernels_stays_on_codes():
    b = Builder()
    pooled = b.node("MaxPool", [b.relu(b.conv("image", 4, 4))], kernel_shape=[1, 1])
    assert in_float(ended(b, b.node("Transpose", [pooled], perm=[0, 1, 3, 2]))) == []
