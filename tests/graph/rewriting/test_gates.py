"""Scales of channels move into gates without changing what the network computes."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from small_models import feeds, squeeze_and_excitation

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.rewriting.gates import divide_gated, gated_values
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run


def found_in(model, **options):
    prepared = prepare(ir.from_proto(model))
    placement = place(prepared, QuantizationConfig(**options).placement_options())
    return prepared, gated_values(prepared, placement)


@pytest.mark.parametrize("rectifier", [False, True])
def test_divisors_go_into_the_gate_and_into_what_reads_the_mean(rectifier):
    model = squeeze_and_excitation(rectifier=rectifier)
    prepared, (gated,) = found_in(model)
    assert [layer.node.op_type for layer in gated.product.layers] == ["Conv"]
    x, random = feeds(model, 3), np.random.default_rng(0)
    wanted = run(open_session(prepared), x)
    divide_gated(prepared.graph, gated, random.uniform(1, 20, gated.channels))
    np.testing.assert_allclose(run(open_session(prepared), x)[0], wanted[0], rtol=1e-4, atol=1e-6)
    (again,) = gated_values(prepared, place(prepared, QuantizationConfig().placement_options()))
    assert again.names[1].endswith("_scaled")


def test_two_products_with_one_gate_share_its_factors():
    model = squeeze_and_excitation()
    mul = next(node for node in model.graph.node if node.output[0] == "gated")
    twice = helper.make_node("Mul", [mul.input[1], "inner"], ["twice"], name="node_twice")
    at = list(model.graph.node).index(mul)
    model.graph.node.insert(at + 1, twice)
    reader = next(node for node in model.graph.node if "gated" in node.input)
    both = helper.make_node("Add", ["gated", "twice"], ["both"], name="node_both")
    reader.input[0] = "both"
    model.graph.node.insert(at + 2, both)
    prepared, (gated,) = found_in(model)
    assert len(gated.gates) == 2
    before, x = len(list(prepared.graph)), feeds(model, 3)
    wanted = run(open_session(prepared), x)
    divide_gated(prepared.graph, gated, np.linspace(1, 9, gated.channels))
    assert len(list(prepared.graph)) == before + 1
    np.testing.assert_allclose(run(open_session(prepared), x)[0], wanted[0], rtol=1e-4, atol=1e-6)


def with_another_reader(model):
    model.graph.node.append(helper.make_node("Tanh", ["inner"], ["other"], name="node_other"))
    model.graph.output.append(helper.make_tensor_value_info("other", 1, ["N", 8, 8, 8]))
    return model


def with_a_mean_that_is_given(model):
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    model.graph.output.append(helper.make_tensor_value_info(pool.output[0], 1, ["N", 8, 1, 1]))
    return model


def with_the_value_given(model):
    model.graph.output.append(helper.make_tensor_value_info("inner", 1, ["N", 8, 8, 8]))
    return model


def in_a_branch():
    """The product is chosen by an input, and stands in both branches of an If."""
    model = squeeze_and_excitation()
    mul = next(node for node in model.graph.node if node.output[0] == "gated")
    branches = {}
    for name in ("then", "else"):
        product = helper.make_node("Mul", list(mul.input), [f"{name}_gated"], name=f"node_{name}")
        output = helper.make_tensor_value_info(f"{name}_gated", TensorProto.FLOAT, ["N", 8, 8, 8])
        branches[f"{name}_branch"] = helper.make_graph([product], name, [], [output])
    at = list(model.graph.node).index(mul)
    chosen = helper.make_node("If", ["flag"], ["gated"], name="node_if", **branches)
    model.graph.node.insert(at + 1, chosen)
    model.graph.node.remove(mul)
    model.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    return model


@pytest.mark.parametrize("options", [{"exclude": ("node_gated",)}, {"activation_bits": 16, "target": "qnn"}])
def test_products_that_do_not_run_on_codes_of_8_bits_stay(options):
    assert len(found_in(squeeze_and_excitation())[1]) == 1
    assert found_in(squeeze_and_excitation(), **options)[1] == []


@pytest.mark.parametrize(
    "model",
    [
        in_a_branch(),
        with_another_reader(squeeze_and_excitation()),
        with_a_mean_that_is_given(squeeze_and_excitation()),
        with_the_value_given(squeeze_and_excitation()),
        squeeze_and_excitation(pool="GlobalMaxPool"),
    ],
)
def test_values_that_anything_else_reads_stay(model):
    assert found_in(model)[1] == []
