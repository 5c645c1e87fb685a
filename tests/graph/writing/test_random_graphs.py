"""Properties of every network, on random ones."""

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_errors import local_errors
from networks import quantized
from random_graphs import networks
from small_models import feeds

from onnx_lapq.graph.placement.targets import TARGETS
from onnx_lapq.runtime.session import open_session, run

COUNT = 8
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def signature(model: onnx.ModelProto) -> list[bytes]:
    return [value.SerializeToString() for value in (*model.graph.input, *model.graph.output)]


@SETTINGS
@given(
    model=networks(),
    weights=st.sampled_from([2, 3, 4, 8]),
    activations=st.sampled_from([3, 4, 8]),
    per_channel=st.booleans(),
    placement=st.sampled_from(["integer", "integer", "paper"]),
    target=st.sampled_from(sorted(TARGETS)),
)
def test_written_model_is_valid_and_computes_what_was_simulated(
    model, weights, activations, per_channel, placement, target
):
    inputs = feeds(model, COUNT)
    activations = activations if TARGETS[target].low_bit_activations else 8
    network = quantized(
        model,
        inputs,
        weight_bits=weights,
        activation_bits=activations,
        per_channel=per_channel,
        placement=placement,
        target=target,
    )
    written = network.written()
    onnx.checker.check_model(written, full_check=True)
    assert signature(written) == signature(model)
    session = open_session(written, precise=network.network.target.needs_precise_kernels)
    simulated = network.simulated_outputs()
    np.testing.assert_allclose(
        run(session, inputs)[0], simulated, rtol=0, atol=1e-6 * max(np.ptp(simulated), 1e-3)
    )


@SETTINGS
@given(model=networks(), per_channel=st.booleans())
def test_weights_are_within_half_a_step(model, per_channel):
    network = quantized(model, feeds(model, COUNT), per_channel=per_channel).network
    for name, layer in network.layers.items():
        scale = network.encoder.encode(name, np.max(np.abs(layer.values)) / 63, None)
        missed = layer.rows(layer.values) - layer.rows(scale.values)
        assert np.abs(missed).max() <= 0.5 * scale.scale.max() * (1 + 1e-5)


@SETTINGS
@given(model=networks())
def test_at_8_bits_the_model_stays_close_to_float(model):
    network = quantized(model, feeds(model, COUNT), p=4.0)
    float_outputs = network.outputs[0]
    error = np.sqrt(np.mean((network.simulated_outputs() - float_outputs) ** 2))
    assert error <= 0.1 * np.std(float_outputs) + 1e-6


@SETTINGS
@given(model=networks(), per_channel=st.booleans())
def test_at_8_bits_every_value_lies_within_what_the_step_sizes_imply(model, per_channel):
    inputs = feeds(model, COUNT)
    network = quantized(model, inputs, per_channel=per_channel)
    for name, error in local_errors(network.network.model, network.written(), inputs).items():
        assert (error.missed <= error.bound * (1 + 1e-4) + 1e-5).all(), name
