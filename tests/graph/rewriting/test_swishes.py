"""Channels of what a convolution writes go through HardSwish or SiLU into depthwise convolutions."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from small_models import activated_images, feeds

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.rewriting.swishes import Swish, divide_swish, swishes
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run

KINDS = ("HardSwish alone", "SiLU on codes")


def found_in(model: onnx.ModelProto, **options: object) -> tuple[ir.Model, list[Swish]]:
    prepared = prepare(ir.from_proto(model))
    placement = place(prepared, QuantizationConfig(**options).placement_options())  # type: ignore[arg-type]
    return prepared, swishes(prepared, placement)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_stays_the_same(kind):
    model = activated_images(kind)
    prepared, (swish,) = found_in(model)
    assert swish.product.value.name == "inner"
    before, x = [node.op_type for node in prepared.graph], feeds(model, 3)
    wanted = run(open_session(prepared), x)
    divide_swish(prepared.graph, swish, np.random.default_rng(0).uniform(1, 20, swish.channels))
    np.testing.assert_allclose(run(open_session(prepared), x)[0], wanted[0], rtol=1e-4, atol=1e-6)
    assert sorted(node.op_type for node in prepared.graph) == sorted([*before, "Mul"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_gate_is_what_the_network_computes(kind):
    model = activated_images(kind)
    prepared, (swish,) = found_in(model)
    (product,) = (node for node, _ in swish.gate.outputs[0].uses())
    prepared.graph.outputs.extend([swish.product.value, product.outputs[0]])
    value, gated = run(open_session(prepared), feeds(model, 3))[1:]
    np.testing.assert_allclose(value * swish.gates(value), gated, rtol=1e-5, atol=1e-5)


def test_the_end_of_the_function_is_known_and_moves_with_the_channels():
    prepared, (swish,) = found_in(activated_images("HardSwish alone"))
    assert swish.lowest == pytest.approx(-3, abs=0.05)
    divide_swish(prepared.graph, swish, np.full(8, 2.0))
    sites = {
        site.value: site for site in place(prepared, QuantizationConfig().placement_options()).activations
    }
    assert not sites["inner"].cuts_off
    assert sites["inner"].curve is not None
    assert sites["inner"].curve.lowest == pytest.approx(-1.5, abs=0.05)


def test_the_report_says_where_the_mul_is_from():
    prepared, (swish,) = found_in(activated_images("HardSwish alone"))
    divide_swish(prepared.graph, swish, np.full(8, 2.0))
    reasons = {
        node.name: node.reason for node in place(prepared, QuantizationConfig().placement_options()).in_float
    }
    assert "--keep-scales" in reasons["inner_scaled_Mul"]


def changed(kind: str) -> onnx.ModelProto:
    """A HardSwish of which something else reads a part, or that no depthwise convolution reads."""
    model = activated_images("HardSwish alone")
    nodes = {node.op_type: node for node in model.graph.node}
    swish, depthwise = nodes["HardSwish"].output[0], model.graph.node[2]
    assert depthwise.op_type == "Conv"
    if kind == "one group":
        (group,) = (attribute for attribute in depthwise.attribute if attribute.name == "group")
        group.i = 1
        (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == depthwise.input[1])
        values = np.repeat(onnx.numpy_helper.to_array(weight), 8, axis=1)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    else:
        output = {"the value": "inner", "the product": swish}[kind]
        model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 8, 8, 8]))
    return model


@pytest.mark.parametrize("kind", ["one group", "the value", "the product"])
def test_what_others_read_stays(kind):
    assert found_in(changed(kind))[1] == []


@pytest.mark.parametrize(
    "options",
    [{"per_channel": False}, {"activation_bits": 16, "target": "generic"}, {"activation_bits": 32}],
    ids=["one scale for the weight", "16 bits", "no quantizer"],
)
def test_other_bits_and_scales_stay(options):
    assert found_in(activated_images("HardSwish alone"), **options)[1] == []


def test_a_function_that_is_no_gate_stays():
    assert found_in(activated_images("Softplus"))[1] == []
