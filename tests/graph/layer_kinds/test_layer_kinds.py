"""Every kind of layer is a product of matrices: its inputs times its rows are what onnxruntime computes."""

import numpy as np
import onnx_ir as ir
import pytest
from small_models import Builder

from onnx_lapq.graph.layer_kinds import kind_of, weights_of
from onnx_lapq.method.rounding.bias_correction import mean_output
from onnx_lapq.runtime.session import open_session, run

EVERY = 1 << 20
"""More windows than there are."""

PRODUCTS = {
    "convolution": ("Conv", (6, 4, 3, 2), {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}),
    "valid": ("Conv", (6, 4, 3, 3), {"auto_pad": "VALID"}),
    "same upper": ("Conv", (6, 4, 3, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 1]}),
    "same lower": ("Conv", (6, 4, 2, 2), {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
    "grouped": ("Conv", (6, 2, 3, 3), {"group": 2}),
    "depthwise": ("Conv", (4, 1, 3, 3), {"group": 4}),
    "depthwise, two of each": ("Conv", (8, 1, 3, 3), {"group": 4}),
    "transposed": ("ConvTranspose", (4, 6, 3, 3), {"strides": [2, 2], "pads": [1, 1, 0, 1]}),
    "transposed, valid": ("ConvTranspose", (4, 6, 3, 3), {"auto_pad": "VALID", "strides": [2, 2]}),
    "transposed, grouped": ("ConvTranspose", (4, 3, 2, 2), {"group": 2, "strides": [3, 2]}),
    "transposed, longer": ("ConvTranspose", (4, 6, 3, 3), {"strides": [2, 2], "output_padding": [1, 0]}),
    "matrix": ("Gemm", (6, 5), {}),
    "matrix, transposed": ("Gemm", (5, 6), {"transB": 1}),
    "rows": ("MatMul", (6, 5), {}),
}
OTHERS = {
    "stack": ("MatMul", (4, 6, 5), {}),
    "scaled matrix": ("Gemm", (6, 5), {"alpha": 2.0}),
    "transposed input": ("Gemm", (6, 5), {"transA": 1}),
    "output shape": ("ConvTranspose", (4, 6, 3, 3), {"output_shape": [6, 8]}),
    "transposed, same": ("ConvTranspose", (4, 6, 3, 3), {"auto_pad": "SAME_UPPER"}),
}


def layer_of(name: str):
    """The layer, what it reads, what it writes, and its weight."""
    op, shape, attributes = {**PRODUCTS, **OTHERS}[name]
    random = np.random.default_rng(0)
    sizes = [6, 6] if "transA" in attributes else [6, 6] if op == "Gemm" else [3, 4, 5, 6]
    values = random.standard_normal(sizes).astype(np.float32) + 1
    b = Builder()
    weight = b.weight(*shape)
    b.node(op, ["x", weight], "y", **attributes)
    model = b.model({"x": sizes}, {"y": [None] * len(sizes)})
    (outputs,) = run(open_session(model), {"x": values})
    kind = kind_of(ir.from_proto(model).graph[0])
    assert kind is not None
    return kind, values, outputs, kind.weight.const_value.numpy()


@pytest.mark.parametrize("name", PRODUCTS)
def test_inputs_times_rows_are_outputs(name):
    kind, values, outputs, weight = layer_of(name)
    assert kind.is_product
    q = kind.inputs(values, 0, EVERY)
    rows = kind.rows(weight).reshape(kind.groups, -1, q.shape[2])
    channels = np.moveaxis(outputs, 1 if kind.node.op_type.startswith("Conv") else -1, -1)
    y = np.swapaxes(channels.reshape(-1, kind.groups, rows.shape[1]), 0, 1)
    np.testing.assert_allclose(q @ np.swapaxes(rows, 1, 2), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PRODUCTS)
def test_mean_inputs_give_the_mean_output(name):
    kind, values, outputs, weight = layer_of(name)
    means = kind.mean_inputs(values.mean(axis=0, dtype=np.float64))
    axis = 1 if kind.node.op_type.startswith("Conv") else -1
    expected = np.moveaxis(outputs, axis, 0).reshape(kind.output_channels, -1).mean(axis=1)
    np.testing.assert_allclose(mean_output(kind.rows(weight), means), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*PRODUCTS, *OTHERS])
def test_rows_go_there_and_back(name):
    kind, _, _, weight = layer_of(name)
    rows = kind.rows(weight)
    assert len(rows) == kind.output_channels
    np.testing.assert_array_equal(kind.from_rows(rows), weight)
    scale = np.arange(weight.shape[kind.axis], dtype=np.float32)
    by_axis = np.moveaxis(np.broadcast_to(scale, np.moveaxis(weight, kind.axis, -1).shape), -1, kind.axis)
    np.testing.assert_array_equal(kind.rows(by_axis)[:, 0], kind.scale_of_rows(scale))


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_product_of_input_and_rows_says_so(name):
    assert not layer_of(name)[0].is_product


@pytest.mark.parametrize("name", OTHERS)
def test_means_that_are_not_known_are_none(name):
    kind, values, _, _ = layer_of(name)
    assert kind.mean_inputs(values.mean(axis=0)) is None


@pytest.mark.parametrize("name", [name for name in PRODUCTS if name != "rows"])
def test_channels_lie_where_the_shapes_say(name):
    """Scaling the channels of an axis scales the outputs, or makes up for scaled inputs."""
    kind, _, _, weight = layer_of(name)
    split, kept = kind.channel_shapes(kind.axis)
    factors = np.arange(1, kind.output_channels + 1)
    scaled = (weight.reshape(split) * factors.reshape(kept)).reshape(weight.shape)
    np.testing.assert_allclose(kind.rows(scaled), kind.rows(weight) * factors[:, None], rtol=1e-6)
    split, kept = kind.channel_shapes(1 - kind.axis)
    factors = np.arange(1, np.prod(kept) + 1)
    scaled = kind.rows((weight.reshape(split) * factors.reshape(kept)).reshape(weight.shape))
    width = scaled.shape[1] * kind.groups // len(factors)
    by_input = np.repeat(factors, width).reshape(kind.groups, 1, -1)
    expected = kind.rows(weight).reshape(kind.groups, -1, scaled.shape[1]) * by_input
    np.testing.assert_allclose(scaled, expected.reshape(scaled.shape), rtol=1e-6)


def test_a_layer_needs_a_constant_float_matrix_and_a_known_operator():
    b = Builder()
    table = b.constant(np.zeros((3, 2), np.float32))
    found = b.node("Gather", [table, "i"])
    b.node("MatMul", [found, "w"], "y")
    gather, product = ir.from_proto(b.model({"i": ["N"], "w": [2, 2]}, {"y": ["N", 2]}, types={"i": 7})).graph
    assert weights_of(gather) == (gather.inputs[0],)
    assert weights_of(product) == ()
    assert kind_of(product) is not None
    product.domain = "com.microsoft"
    assert kind_of(product) is None
