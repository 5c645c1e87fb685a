"""Scales of channels move into gates without changing what the network computes."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from small_models import feeds, squeeze_and_excitation

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.rewriting.gates import divide_gated, gated_values
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run


def found_in(model):
    prepared = prepare(ir.from_proto(model))
    return prepared, gated_values(prepared, place(prepared, QuantizationConfig().placement_options()))


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
    factors = again.gate.producer()
    assert factors is not None
    assert factors.op_type == "Mul"


def test_two_products_with_one_gate_share_its_factors():
    model = squeeze_and_excitation()
    twice = helper.make_node("Mul", ["sigmoid8", "inner"], ["twice"], name="node_twice")
    mul = next(node for node in model.graph.node if node.output[0] == "gated")
    gate = mul.input[1]
    twice.input[0] = gate
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


@pytest.mark.parametrize(
    "model",
    [
        with_another_reader(squeeze_and_excitation()),
        with_a_mean_that_is_given(squeeze_and_excitation()),
        with_the_value_given(squeeze_and_excitation()),
        squeeze_and_excitation(pool="GlobalMaxPool"),
    ],
)
def test_values_that_anything_else_reads_stay(model):
    assert found_in(model)[1] == []
