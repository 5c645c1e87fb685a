"""Scales of channels move without changing what the network computes."""

import numpy as np
import onnx_ir as ir
import pytest
from small_models import Builder, encoder, feeds

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.rewriting.activation_scales import divide, products
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run

WIDTH = 16


def found_in(model):
    prepared = prepare(ir.from_proto(model))
    return prepared, products(prepared, place(prepared, QuantizationConfig().placement_options()))


def normalised(*, shared: bool):
    b = Builder()
    gain, bias = (b.constant(b.random.uniform(0.5, 1.5, WIDTH).astype(np.float32)) for _ in range(2))
    normal = b.node("LayerNormalization", ["x", gain, bias], axis=-1)
    product = b.node("MatMul", [normal, b.weight(WIDTH, WIDTH)])
    b.node(
        "Add", [normal, product] if shared else [product, b.constant(np.ones(WIDTH, np.float32))], name="y"
    )
    return b.model({"x": ["N", 4, WIDTH]}, {"y": ["N", 4, WIDTH]})


def stacked(between: str, *, flat: bool):
    b = Builder()
    first = b.node("MatMul", ["x", b.weight(WIDTH, WIDTH)])
    first = b.node("Add", [first, b.constant(b.random.standard_normal(WIDTH).astype(np.float32))])
    inner = b.node(between, [first])
    b.node(
        "Add", [b.node("MatMul", [inner, b.weight(WIDTH, 5)]), b.constant(np.ones(5, np.float32))], name="y"
    )
    shape = ["N"] if flat else ["N", 4]
    return b.model({"x": [*shape, WIDTH]}, {"y": [*shape, 5]})


@pytest.mark.parametrize(
    ("model", "writers"),
    [
        (normalised(shared=False), ["LayerNormalization", "LayerNormalization"]),
        (normalised(shared=True), []),
        (stacked("Relu", flat=True), ["Gemm", "Gemm"]),
        (stacked("Relu", flat=False), ["MatMul", "Add"]),
        (stacked("Identity", flat=False), ["MatMul", "Add"]),
        (stacked("Tanh", flat=False), []),
    ],
)
def test_divisors_go_where_they_cost_nothing(model, writers):
    prepared, found = found_in(model)
    last = found[-1]
    assert [node.op_type for node, _ in last.writers] == writers
    before, x = len(list(prepared.graph)), feeds(model, 3)
    wanted = run(open_session(model), x)[0]
    random = np.random.default_rng(0)
    divide(prepared.graph, last, random.uniform(1, 5, WIDTH))
    np.testing.assert_allclose(run(open_session(prepared), x)[0], wanted, rtol=1e-4, atol=1e-5)
    assert len(list(prepared.graph)) == before + (not writers)


def depthwise(between: str):
    b = Builder()
    x = b.conv("image", 3, WIDTH, size=1)
    match between:
        case "Relu":
            x = b.relu(x)
        case "an affine step":
            x = b.node("Mul", [b.node("HardSwish", [x]), b.constant(np.array(1.5, np.float32))])
            x = b.node("Add", [b.constant(np.array(0.25, np.float32)), x])
        case "HardSwish":
            x = b.node("HardSwish", [x])
    b.node("Identity", [b.conv(x, WIDTH, WIDTH, group=WIDTH)], name="y")
    return b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", WIDTH, 8, 8]})


@pytest.mark.parametrize(
    ("between", "writers"),
    [("nothing", ["Conv", "Conv"]), ("Relu", ["Conv", "Conv"]), ("an affine step", ["Add", "Mul"])],
)
def test_divisors_before_a_depthwise_convolution_go_into_what_is_there(between, writers):
    model = depthwise(between)
    prepared, found = found_in(model)
    (last,) = (product for product in found if product.layers[0].is_depthwise)
    assert [node.op_type for node, _ in last.writers] == writers
    x = feeds(model, 3)
    wanted = run(open_session(model), x)[0]
    divide(prepared.graph, last, np.linspace(1, 5, WIDTH))
    np.testing.assert_allclose(run(open_session(prepared), x)[0], wanted, rtol=1e-4, atol=1e-5)


def test_images_get_no_node_of_their_own():
    _, found = found_in(depthwise("HardSwish"))
    assert not any(product.layers[0].is_depthwise for product in found)


def test_all_products_of_a_transformer_may_be_divided():
    model = encoder()
    prepared, found = found_in(model)
    assert len(found) >= 3
    x = feeds(model, 3)
    wanted = run(open_session(model), x)[0]
    for product in found:
        divide(
            prepared.graph, product, np.linspace(1, 3, product.layers[0].shape[1 - product.layers[0].axis])
        )
    np.testing.assert_allclose(run(open_session(prepared), x)[0], wanted, rtol=1e-3, atol=1e-4)


def test_a_weight_that_two_layers_read_is_left_alone():
    b = Builder()
    weight = b.weight(WIDTH, WIDTH)
    first = b.node("Tanh", [b.node("MatMul", ["x", weight])])
    b.node("MatMul", [first, weight], name="y")
    _, found = found_in(b.model({"x": ["N", 4, WIDTH]}, {"y": ["N", 4, WIDTH]}))
    assert found == []


def test_other_convolutions_are_left_alone():
    b = Builder()
    b.node("Identity", [b.conv(b.relu(b.conv("image", 3, WIDTH)), WIDTH, 4)], name="y")
    _, found = found_in(b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]}))
    assert found == []


def test_kernels_of_different_sizes_on_one_value_are_left_alone():
    b = Builder()
    x = b.conv("image", 3, WIDTH, size=1)
    both = [b.conv(x, WIDTH, WIDTH, size=size, group=WIDTH) for size in (3, 5)]
    b.node("Add", both, name="y")
    _, found = found_in(b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", WIDTH, 8, 8]}))
    assert found == []


def test_the_last_constant_of_a_gelu_is_left_alone():
    _, found = found_in(encoder())
    gelus = [product for product in found if product.value.producer().op_type == "Mul"]
    assert [product.writers for product in gelus] == [()]
