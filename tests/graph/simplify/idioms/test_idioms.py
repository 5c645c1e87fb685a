"""What exporters spell out becomes the operator it stands for, and computes the same."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from small_models import Builder, feeds

from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run


def kinds(model: onnx.ModelProto) -> list[str]:
    """Operators of the prepared model, once it is seen to compute what the given one does."""
    inputs = feeds(model, 3)
    expected = run(open_session(model), inputs)
    prepared = prepare(ir.from_proto(model))
    for wanted, found in zip(expected, run(open_session(prepared), inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    return [node.op_type for node in prepared.graph]


def model_of(b: Builder, y: str, shape, x=(3, 8, 8), opset: int = 17) -> onnx.ModelProto:
    assert b.nodes[-1].output[0] == y
    b.nodes[-1].output[0] = "y"
    return b.model({"x": ["N", *x]}, {"y": ["N", *shape]}, opset=opset)


def channels(b: Builder, *shape: int) -> str:
    return b.constant(b.random.uniform(0.5, 2, shape).astype(np.float32))


def number(b: Builder, value: float, *shape: int) -> str:
    return b.constant(np.full(shape, value, np.float32))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1), (4, 1, 1), (1, 4, 1, 1)])
def test_a_step_behind_a_convolution_is_part_of_it(op_type, shape, bias):
    b = Builder()
    y = b.node(op_type, [b.conv("x", 3, 4, bias=bias), channels(b, *shape)])
    assert kinds(model_of(b, y, (4, 8, 8))) == ["Conv"]


def test_a_step_behind_moves_of_a_convolution_is_part_of_it():
    b = Builder()
    y = b.node("Slice", [b.conv("x", 3, 4), *(b.constant(np.array([at])) for at in (1, 7, 2))])
    y = b.node("Transpose", [b.node("Unsqueeze", [y, b.constant(np.array([-1]))])], perm=[0, 2, 3, 4, 1])
    y = b.node("Squeeze", [y, b.constant(np.array([-2]))])
    y = b.node("Add", [y, channels(b, 4)])
    assert kinds(model_of(b, y, (6, 8, 4))) == ["Conv", "Slice", "Unsqueeze", "Transpose", "Squeeze"]


@pytest.mark.parametrize(
    ("starts", "ends", "more", "kept"),
    [
        ([0, 0, 0], [2**31 - 1, 3, 99], ([0, 1, 2],), False),
        ([0], [8], ([-1],), False),
        ([0, 0], [2**31 - 1, 3], (), False),
        ([0], [2**62], ([0], [1]), False),
        ([0], [7], ([3],), True),
        ([0], [9], ([0],), True),
        ([1], [8], ([3],), True),
    ],
)
def test_a_slice_that_keeps_everything_goes(starts, ends, more, kept):
    b = Builder()
    parts = [b.constant(np.array(values)) for values in (starts, ends, *more)]
    y = b.node("GlobalAveragePool", [b.node("Slice", [b.node("Relu", ["x"]), *parts])])
    wanted = ["Relu", "Slice", "GlobalAveragePool"] if kept else ["Relu", "GlobalAveragePool"]
    assert kinds(model_of(b, y, (3, 1, 1))) == wanted


def test_a_number_of_more_axes_behind_moves_stays():
    b = Builder()
    pooled = b.node("GlobalAveragePool", [b.conv("x", 3, 4)])
    y = b.node("Squeeze", [pooled, b.constant(np.array([2, 3]))])
    y = b.node("Mul", [y, number(b, 2, 1, 1, 1)])
    model = b.model({"x": ["N", 3, 8, 8]}, {y: [1, "N", 4]})
    assert kinds(model) == ["Conv", "GlobalAveragePool", "Squeeze", "Mul"]


def test_a_step_behind_moves_stays_where_it_is_none_of_channels():
    b = Builder()
    y = b.node("Transpose", [b.conv("x", 3, 4)], perm=[0, 2, 3, 1])
    y = b.node("Add", [y, channels(b, 8, 1)])
    assert kinds(model_of(b, y, (8, 8, 4))) == ["Conv", "Transpose", "Add"]


def test_a_constant_minus_a_convolution_is_a_convolution():
    b = Builder()
    y = b.node("Sub", [channels(b, 4, 1, 1), b.conv("x", 3, 4)])
    assert kinds(model_of(b, y, (4, 8, 8))) == ["Conv"]


@pytest.mark.parametrize("groups", [1, 2])
def test_steps_around_a_transposed_convolution_are_part_of_it(groups):
    b = Builder()
    before = b.node("Mul", ["x", channels(b, 1, 4, 1, 1)])
    y = b.node("ConvTranspose", [before, b.weight(4, 3, 2, 2)], strides=[2, 2], group=groups)
    y = b.node("Add", [b.node("Mul", [y, channels(b, 3 * groups, 1, 1)]), channels(b, 1, 3 * groups, 1, 1)])
    statistics = [channels(b, 3 * groups) for _ in range(4)]
    y = b.node("BatchNormalization", [y, *statistics])
    assert kinds(model_of(b, y, (3 * groups, 16, 16), x=(4, 8, 8))) == ["ConvTranspose"]


@pytest.mark.parametrize("groups", [1, 2])
def test_steps_before_a_convolution_without_padding_are_part_of_it(groups):
    b = Builder()
    scaled = b.node("Div", [b.node("Sub", ["x", channels(b, 1, 4, 1, 1)]), channels(b, 4, 1, 1)])
    y = b.conv(scaled, 4, 6, pads=[0] * 4, group=groups)
    assert kinds(model_of(b, y, (6, 6, 6), x=(4, 8, 8))) == ["Conv"]


def test_a_shift_before_a_padded_convolution_stays():
    b = Builder()
    y = b.conv(b.node("Add", [b.node("Relu", ["x"]), number(b, 1)]), 3, 4)
    assert kinds(model_of(b, y, (4, 8, 8))) == ["Relu", "Add", "Conv"]


def test_a_step_stays_where_the_convolution_is_read_elsewhere():
    b = Builder()
    conv = b.conv("x", 3, 4)
    y = b.node("Mul", [conv, b.node("Mul", [conv, channels(b, 4, 1, 1)])])
    assert kinds(model_of(b, y, (4, 8, 8))) == ["Conv", "Mul", "Mul"]


def test_a_step_that_differs_by_position_stays():
    b = Builder()
    y = b.node("Add", [b.conv("x", 3, 4), channels(b, 1, 1, 8, 8)])
    assert kinds(model_of(b, y, (4, 8, 8))) == ["Conv", "Add"]


def test_a_step_that_makes_the_tensor_larger_stays():
    b = Builder()
    y = b.node("Add", [b.conv("x", 3, 1), channels(b, 4, 1, 1)])
    assert kinds(model_of(b, y, (4, 8, 8))) == ["Conv", "Add"]


def test_a_weight_that_two_layers_read_is_changed_for_one_of_them():
    b = Builder()
    weight = b.weight(3, 3, 3, 3)
    first = b.node("Mul", [b.node("Conv", ["x", weight], pads=[1] * 4), number(b, 2)])
    y = b.node("Conv", [b.node("Relu", [first]), weight], pads=[1] * 4)
    assert kinds(model_of(b, y, (3, 8, 8))) == ["Conv", "Relu", "Conv"]


def test_gemm_without_factors():
    b = Builder()
    weight, bias = b.weight(5, 12), b.constant(b.random.standard_normal(5).astype(np.float32))
    y = b.node("Gemm", ["x", weight, bias], transB=1, alpha=0.5, beta=2.0)
    model = model_of(b, y, (5,), x=(12,))
    assert kinds(model) == ["Gemm"]
    (node,) = prepare(ir.from_proto(model)).graph
    assert not {"alpha", "beta"} & set(node.attributes)


def test_a_step_behind_a_gemm_whose_bias_is_a_row_is_part_of_it():
    b = Builder()
    y = b.node("Gemm", ["x", b.weight(5, 12), channels(b, 1, 5)], transB=1)
    assert kinds(model_of(b, b.node("Add", [y, number(b, 2.0)]), (5,), x=(12,))) == ["Gemm"]


@pytest.mark.parametrize("first", [False, True])
def test_a_product_of_matrices_and_a_vector_are_a_gemm(first):
    b = Builder()
    weight = b.constant(b.random.standard_normal((12, 5)).astype(np.float32))
    product = b.node("MatMul", ["x", weight])
    y = b.node("Add", [channels(b, 5), product] if first else [product, channels(b, 1, 5)])
    y = b.node("Mul", [y, number(b, 3)])
    assert kinds(model_of(b, y, (5,), x=(12,))) == ["Gemm"]


def test_a_product_of_stacks_of_matrices_stays():
    b = Builder()
    weight = b.constant(b.random.standard_normal((12, 5)).astype(np.float32))
    y = b.node("Add", [b.node("MatMul", ["x", weight]), channels(b, 5)])
    assert kinds(model_of(b, y, (4, 5), x=(4, 12))) == ["MatMul", "Add"]


@pytest.mark.parametrize("form", ["gate", "product", "swapped", "factor", "one node"])
def test_hard_swish(form):
    b = Builder()
    x = b.conv("x", 3, 4)
    gate = b.node("Clip", [b.node("Add", [x, number(b, 3, 1)]), number(b, 0), number(b, 6)])
    if form == "gate":
        y = b.node("Mul", [x, b.node("Div", [gate, number(b, 6)])])
    elif form == "factor":
        y = b.node("Mul", [b.node("Mul", [gate, x]), number(b, 1 / 6)])
    elif form == "one node":
        y = b.node("HardSwish", [x])
    else:
        y = b.node("Div", [b.node("Mul", [x, gate] if form == "product" else [gate, x]), number(b, 6, 1)])
    assert kinds(model_of(b, y, (4, 8, 8))) == ["Conv", "HardSigmoid", "Mul"]


def test_a_gate_that_is_no_hard_sigmoid_stays():
    b = Builder()
    gate = b.node("Clip", [b.node("Add", ["x", number(b, 3)]), number(b, 0), number(b, 6)])
    y = b.node("Div", [gate, number(b, 5)])
    assert kinds(model_of(b, y, (3, 8, 8))) == ["Add", "Clip", "Div"]


@pytest.mark.parametrize("square", ["Mul", "Pow"])
@pytest.mark.parametrize("division", ["Div", "Reciprocal"])
@pytest.mark.parametrize("opset", [13, 17, 18])
def test_layer_normalisation(square, division, opset):
    b = Builder()
    axes = [b.constant(np.array([-1], np.int64))] if opset > 17 else []
    attributes = {} if opset > 17 else {"axes": [-1]}
    x = b.node("Relu", ["x"])
    difference = b.node("Sub", [x, b.node("ReduceMean", [x, *axes], **attributes)])
    squared = b.node(square, [difference, difference if square == "Mul" else number(b, 2)])
    variance = b.node("ReduceMean", [squared, *axes], **attributes)
    deviation = b.node("Sqrt", [b.node("Add", [variance, number(b, 1e-5)])])
    if division == "Div":
        normal = b.node("Div", [difference, deviation])
    else:
        normal = b.node("Mul", [difference, b.node("Reciprocal", [deviation])])
    y = b.node("Add", [b.node("Mul", [normal, channels(b, 8)]), channels(b, 8)])
    found = kinds(model_of(b, y, (4, 8), x=(4, 8), opset=opset))
    assert ("LayerNormalization" in found) == (opset >= 17)
    assert opset < 17 or found == ["Relu", "LayerNormalization"]


def test_a_reshape_that_keeps_the_batch_has_a_constant_shape():
    b = Builder()
    x = b.conv("x", 3, 4)
    batch = b.node(
        "Unsqueeze",
        [b.node("Gather", [b.node("Shape", ["x"]), b.constant(np.array(0))]), b.constant(np.array([0]))],
    )
    shape = b.node("Concat", [batch, b.constant(np.array([-1]))], axis=0)
    y = b.node("Reshape", [x, shape])
    assert kinds(model_of(b, y, (256,))) == ["Conv", "Reshape"]


@pytest.mark.parametrize("layer", ["Conv", "Gemm"])
def test_a_gelu_before_a_layer_stays_whole(layer):
    b = Builder()
    x = b.conv("x", 3, 4) if layer == "Conv" else b.gemm("x", 4, 4)
    gate = b.node("Add", [b.node("Erf", [b.node("Div", [x, number(b, 2**0.5)])]), number(b, 1)])
    gelu = b.node("Mul", [b.node("Mul", [x, gate]), number(b, 0.5)])
    y = b.conv(gelu, 4, 4, size=1) if layer == "Conv" else b.gemm(gelu, 4, 4)
    model = model_of(b, y, *([(4, 8, 8)] if layer == "Conv" else [(4,), (4,)]))
    assert kinds(model) == [layer, "Div", "Erf", "Add", "Mul", "Mul", layer]


def test_a_gate_of_hard_sigmoid_leaves_its_factor_to_the_layer():
    b = Builder()
    x = b.conv("x", 3, 4)
    gated = b.node("Mul", [x, b.node("HardSigmoid", [x])])
    y = b.conv(b.node("Mul", [gated, number(b, 2)]), 4, 4)
    assert kinds(model_of(b, y, (4, 8, 8))) == ["Conv", "HardSigmoid", "Mul", "Conv"]


@pytest.mark.parametrize("opset", [19, 20])
@pytest.mark.parametrize("form", ["last", "first", "gate", "factor"])
def test_gelu(form, opset):
    b = Builder()
    x = b.node("Relu", ["x"])
    root = number(b, 2**0.5) if form != "factor" else number(b, 0.5**0.5)
    erf = b.node("Erf", [b.node("Mul" if form == "factor" else "Div", [x, root])])
    gate, half = b.node("Add", [number(b, 1), erf]), number(b, 0.5)
    if form == "first":
        y = b.node("Mul", [b.node("Mul", [x, half]), gate])
    elif form == "gate":
        y = b.node("Mul", [x, b.node("Mul", [gate, half])])
    else:
        y = b.node("Mul", [b.node("Mul", [x, gate]), half])
    found = kinds(model_of(b, y, (3, 8, 8), opset=opset))
    assert (found == ["Relu", "Gelu"]) == (opset >= 20)


@pytest.mark.parametrize("axis", [1, 2])
def test_softmax(axis):
    b = Builder()
    x = b.node("Relu", ["x"])
    largest = b.node("ReduceMax", [x], axes=[axis])
    exponential = b.node("Exp", [b.node("Sub", [x, largest])])
    total = b.node("ReduceSum", [exponential, b.constant(np.array([axis]))])
    y = b.node("Div", [exponential, total])
    assert kinds(model_of(b, y, (5, 6), x=(5, 6))) == ["Relu", "Softmax"]


@pytest.mark.parametrize("axis", [1, 2])
def test_softmax_of_opset_11(axis):
    b = Builder()
    b.node("Softmax", [b.node("Relu", ["x"])], name="y", axis=axis)
    model = b.model({"x": ["N", 5, 6]}, {"y": ["N", 5, 6]}, opset=11)
    kept = [node.op_type for node in prepare(ir.from_proto(model)).graph]
    assert (kept == ["Relu", "Softmax"]) == (axis == 2)


def test_softmax_as_jax_writes_it():
    b = Builder()
    x = b.node("Relu", ["x"])
    column, size = b.constant(np.array([-1, 1])), b.node("Shape", ["x"])
    floor = b.node("Max", [number(b, -np.inf), b.node("ReduceMax", [x], axes=[1], keepdims=0)])
    largest = b.node("Expand", [b.node("Reshape", [floor, column]), size])
    exponential = b.node("Exp", [b.node("Sub", [x, largest])])
    total = b.node("ReduceSum", [exponential, b.constant(np.array([1]))], keepdims=0)
    y = b.node("Div", [exponential, b.node("Expand", [b.node("Reshape", [total, column]), size])])
    assert kinds(model_of(b, y, (6,), x=(6,))) == ["Relu", "Softmax"]


def test_a_maximum_over_another_axis_is_no_softmax():
    b = Builder()
    exponential = b.node("Exp", [b.node("Sub", ["x", b.node("ReduceMax", ["x"], axes=[2])])])
    y = b.node("Div", [exponential, b.node("ReduceSum", [exponential, b.constant(np.array([1]))])])
    assert "Softmax" not in kinds(model_of(b, y, (5, 6), x=(5, 6)))
