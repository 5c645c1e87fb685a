import numpy as np
import pytest
from networks import quantized
from small_models import MODELS, feeds

from onnx_lapq.calibrate import float_runs
from onnx_lapq.evaluation.session import open_session, run
from onnx_lapq.rounding import Rounder

COUNT = 32


@pytest.fixture(params=MODELS)
def network(request):
    model = MODELS[request.param]()
    return quantized(model, feeds(model, COUNT), weight_bits=3, activation_bits=4, first_last="same")


def rounded(network, batch: int = 8):
    """Compensate a network; returns the evaluator that was used."""
    evaluator = network.evaluator(batch=batch)
    runs = float_runs(network.network.model, network.samples, batch, 1)
    rounder = Rounder(
        network.network, evaluator, network.simulation.probes, np.arange(0, COUNT, 5), runs, COUNT
    )
    network.steps.update(rounder.round(network.steps, lambda done, steps: None))
    return evaluator


def test_compensation_lowers_the_loss(network):
    before = network.evaluator().losses(network.point()).mean()
    assert rounded(network).losses(network.point()).mean() < before


def test_what_is_simulated_is_what_is_written_after_compensation(network):
    rounded(network)
    inputs = network.samples.batch(0, COUNT)
    simulated = network.simulated_outputs()
    written = run(open_session(network.written(), fuse_integers=True), inputs)[0]
    np.testing.assert_allclose(written, simulated, rtol=0, atol=1e-5 * np.ptp(simulated))


def test_codes_do_not_depend_on_the_batch_size(network):
    rounded(network, batch=8)
    first = network.point()
    rounded(network, batch=32)
    for name, encoding in network.point().weights.items():
        assert np.mean(encoding.codes != first.weights[name].codes) < 0.02


def test_compensated_codes_stay_when_the_scale_moves(network):
    rounded(network)
    before = network.point().weights
    steps = {name: 1.1 * step if name in before else step for name, step in network.steps.items()}
    after = network.network.point(steps).weights
    layers = [name for name, encoding in before.items() if encoding.biases]
    for name in layers:
        np.testing.assert_array_equal(after[name].codes, before[name].codes)
        np.testing.assert_allclose(after[name].scale, 1.1 * before[name].scale, rtol=1e-6)


def test_without_bias_correction_biases_stay(network):
    for layer in network.network.layers.values():
        if layer.bias is not None:
            object.__setattr__(layer.bias, "windows", None)
    rounded(network)
    for name, encoding in network.point().weights.items():
        for bias in encoding.biases.values():
            step = 0.0 if bias.scale is None else np.max(bias.scale)
            wanted = network.network.layers[name].bias.values
            np.testing.assert_allclose(bias.values, wanted, rtol=1e-6, atol=0.51 * step)
