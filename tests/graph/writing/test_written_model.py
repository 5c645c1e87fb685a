"""What is simulated is what is written."""

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from onnx import TensorProto
from small_models import MODELS, Builder, feeds, recommender, residual

from onnx_lapq.runtime.session import open_session, run

COUNT = 16


def outputs_of(model: onnx.ModelProto, inputs, *, fuse_integers: bool) -> np.ndarray:
    return run(open_session(model, fuse_integers=fuse_integers), inputs)[0]


def cases():
    for name, policy, per_channel in itertools.product(MODELS, ("integer", "paper"), (False, True)):
        for bits in range(2, 9):
            yield name, policy, per_channel, bits, bits
    for name, (weights, activations) in itertools.product(MODELS, [(4, 8), (8, 4), (4, 32), (32, 4)]):
        yield name, "integer", False, weights, activations


@pytest.mark.parametrize(("name", "policy", "per_channel", "weights", "activations"), list(cases()))
def test_written_model_computes_what_was_simulated(name, policy, per_channel, weights, activations):
    model = MODELS[name]()
    inputs = feeds(model, COUNT)
    network = quantized(
        model,
        inputs,
        weight_bits=weights,
        activation_bits=activations,
        per_channel=per_channel,
        placement=policy,
        first_last="same",
    )
    simulated = network.simulated_outputs()
    written = outputs_of(network.written(), inputs, fuse_integers=True)
    np.testing.assert_allclose(written, simulated, rtol=0, atol=1e-6 * np.ptp(simulated))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("name", MODELS)
def test_integer_kernels_compute_what_the_graph_says_up_to_ties(name, bits):
    """A sum in another order can round a value next to a tie the other way; on average outputs agree."""
    model = MODELS[name]()
    inputs = feeds(model, COUNT)
    network = quantized(model, inputs, weight_bits=bits, activation_bits=bits)
    fused, plain = (outputs_of(network.written(), inputs, fuse_integers=fuse) for fuse in (True, False))
    assert np.abs(fused - plain).mean() <= 1e-3 * np.ptp(plain)


@pytest.mark.parametrize("name", MODELS)
def test_written_model_is_valid_and_keeps_its_signature(name):
    model = MODELS[name]()
    written = quantized(model, feeds(model, COUNT), weight_bits=4, activation_bits=4).written()
    onnx.checker.check_model(written, full_check=True)
    for before, after in (
        (model.graph.input, written.graph.input),
        (model.graph.output, written.graph.output),
    ):
        assert [(v.name, v.type.tensor_type.elem_type) for v in before] == [
            (v.name, v.type.tensor_type.elem_type) for v in after
        ]


@pytest.mark.parametrize(("bits", "dtype"), [(2, np.int8), (4, np.int8), (7, np.int8), (8, np.uint8)])
def test_weights_are_stored_as_integers_within_their_range(bits, dtype):
    model = residual()
    written = quantized(
        model, feeds(model, COUNT), weight_bits=bits, first_last="same", full_range=True
    ).written()
    codes = [
        ir.tensor(t).numpy()
        for t in written.graph.initializer
        if t.name.endswith("_codes") and len(t.dims) > 1
    ]
    assert len(codes) == 6
    for array in codes:
        assert array.dtype == dtype
        centred = array.astype(int) - (128 if dtype == np.uint8 else 0)
        assert -(1 << (bits - 1)) <= centred.min() <= centred.max() < 1 << (bits - 1)


def test_an_embedding_table_stays_codes_and_only_what_is_looked_up_is_dequantized():
    model = recommender()
    written = quantized(model, feeds(model, COUNT)).written()
    producers = {name: node for node in written.graph.node for name in node.output}
    tables = {tensor.name for tensor in written.graph.initializer if list(tensor.dims) == [30, 8]}
    lookups = [node for node in written.graph.node if node.op_type == "Gather"]
    assert [node.input[0] in tables for node in lookups] == [True, True]
    readers = [node for node in written.graph.node if set(node.input) & tables]
    assert readers == lookups
    for node in written.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in ("gather0", "gather1"):
            assert producers[node.input[0]].op_type == "DequantizeLinear"


def test_a_stack_of_matrices_has_one_scale():
    b = Builder()
    b.node("MatMul", ["x", b.weight(3, 8, 4)], name="y")
    model = b.model({"x": ["N", 3, 5, 8]}, {"y": ["N", 3, 5, 4]})
    network = quantized(model, feeds(model, COUNT), per_channel=True)
    assert [site.per_channel for site in network.placement.weights] == [False]
    np.testing.assert_allclose(
        outputs_of(network.written(), network.samples.feeds, fuse_integers=True),
        network.outputs[0],
        atol=0.05 * np.ptp(network.outputs[0]),
    )


@pytest.mark.parametrize("opset", [17, 21])
def test_a_table_in_front_of_a_transpose_runs_at_every_opset(opset):
    b = Builder()
    moved = b.node("Transpose", [b.node("Gather", [b.weight(30, 8), "tokens"])], perm=[0, 2, 1])
    b.node("Tanh", [moved], name="y")
    model = b.model(
        {"tokens": ["N", 6]}, {"y": ["N", 8, 6]}, opset=opset, types={"tokens": TensorProto.INT64}
    )
    inputs = {"tokens": np.arange(30).reshape(5, 6)}
    network = quantized(model, inputs, activation_bits=32)
    np.testing.assert_allclose(
        run(open_session(network.written()), inputs)[0], network.outputs[0], rtol=0, atol=0.05
    )
