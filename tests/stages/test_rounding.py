from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from networks import quantized
from small_models import MODELS, Builder, depthwise, feeds

from onnx_lapq.evaluation.runner import Runner
from onnx_lapq.network.layer_windows import rounded_layers
from onnx_lapq.runtime.session import open_session, run
from onnx_lapq.stages import rounder
from onnx_lapq.stages.found import Attempt
from onnx_lapq.stages.rounder import Rounder

COUNT = 32


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def network(name):
    return fresh(name)


def fresh(name: str):
    """A network whose weights have no codes yet."""
    model = MODELS[name]()
    return quantized(model, feeds(model, COUNT), weight_bits=3, activation_bits=4, first_last="same")


def loss_of(network) -> float:
    return network.evaluator().losses(network.point()).mean()


def test_compensation_lowers_the_loss(network):
    after = network.rounded()
    assert loss_of(after) < loss_of(network)


def test_what_is_simulated_is_what_is_written_after_compensation(network):
    network = network.rounded()
    inputs = network.samples.batch(0, COUNT)
    simulated = network.simulated_outputs()
    written = run(open_session(network.written(), fuse_integers=True), inputs)[0]
    np.testing.assert_allclose(written, simulated, rtol=0, atol=1e-5 * np.ptp(simulated))


@pytest.mark.parametrize(("bits", "damping"), [(2, 0.1), (3, 0.1), (4, 0.01), (8, 0.01)])
def test_errors_of_coarse_codes_are_pushed_on_less_far(monkeypatch, bits, damping):
    dampings, compensated = [], rounder.compensated_codes

    def recorded(*given):
        dampings.append(given[4])
        return compensated(*given)

    monkeypatch.setattr(rounder, "compensated_codes", recorded)
    model = MODELS["residual"]()
    quantized(model, feeds(model, COUNT), weight_bits=bits, activation_bits=4, first_last="same").rounded()
    assert set(dampings) == {damping}


def test_codes_do_not_depend_on_the_batch_size(name):
    small, large = fresh(name).rounded(batch=8), fresh(name).rounded(batch=32)
    first = small.point().weights
    for weight, encoding in large.point().weights.items():
        assert np.mean(encoding.codes != first[weight].codes) < 0.02


def test_a_network_whose_rows_are_no_samples_runs_in_batches_of_one_size():
    b = Builder()
    turned = b.node("Transpose", ["x"], perm=[1, 0, 2])
    dense = b.relu(b.node("MatMul", [turned, b.weight(64, 256)]))
    y = b.node("Transpose", [b.node("MatMul", [dense, b.weight(256, 8)])], perm=[1, 0, 2])
    time_first = b.model({"x": ["N", 16384, 64]}, {y: ["N", 16384, 8]})
    b = Builder()
    dense = b.relu(b.node("MatMul", ["x", b.weight(64, 256)]))
    y = b.node("MatMul", [dense, b.weight(256, 8)])
    plain = b.model({"x": ["N", 16384, 64]}, {y: ["N", 16384, 8]})
    few = {"x": np.zeros((6, 16384, 64), np.float32)}
    sizes = [quantized(model, few).batches for model in (time_first, plain)]
    assert sizes[0].observed == sizes[0].plain
    assert sizes[1].observed < sizes[1].plain


def test_codes_are_the_same_where_a_float_run_holds_fewer_samples(name):
    network = fresh(name)
    bench = network.bench(batch=8, guard=slice(0, None, 5))
    attempt = Attempt(None, network.steps)
    alike, fewer = (
        Rounder(some).round(attempt, lambda done, attempt: None).codes
        for some in (bench, replace(bench, outputs=network.layer_outputs(bench.guard, batch=2)))
    )
    for weight, fixed in alike.items():
        assert np.mean(fixed.codes != fewer[weight].codes) < 0.02


def test_codes_do_not_depend_on_the_number_of_workers(name):
    one, three = fresh(name).rounded(), fresh(name).rounded(workers=3)
    first = one.point().weights
    for weight, encoding in three.point().weights.items():
        assert encoding.digest == first[weight].digest


@pytest.mark.parametrize("seed", [2, 4])
def test_without_a_guard_layers_of_a_depthwise_network_make_up_for_those_before(seed):
    model = depthwise(seed)
    network = quantized(model, feeds(model, COUNT), weight_bits=4, activation_bits=4, first_last="same")
    assert loss_of(network.rounded(guard=slice(0))) < 0.6 * loss_of(network)


def test_compensated_codes_stay_when_the_scale_moves(network):
    network = network.rounded()
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
    network = network.rounded()
    for name, encoding in network.point().weights.items():
        for bias in encoding.biases.values():
            step = 0.0 if bias.scale is None else np.max(bias.scale)
            wanted = network.network.layers[name].bias.values
            np.testing.assert_allclose(bias.values, wanted, rtol=1e-6, atol=0.51 * step)


def test_a_layer_of_many_outputs_holds_no_more_of_them_than_of_inputs(monkeypatch):
    most = 8 * COUNT * 16
    monkeypatch.setattr("onnx_lapq.network.layer_windows._LAYER_FLOATS", most)
    b = Builder()
    b.node("MatMul", ["x", b.weight(4, 64)])
    model = b.model({"x": ["N", 32, 4]}, {b.nodes[-1].output[0]: ["N", 32, 64]})
    network = quantized(model, feeds(model, COUNT), weight_bits=4, activation_bits=8, first_last="same")
    outputs, layers = network.layer_outputs(np.arange(3)), rounded_layers(network.network.layers.values())
    held = [sum(part.size for part in outputs.of(layer)) for layer in layers]
    assert 0 < max(held) <= most


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_the_walk_runs_no_part_of_the_quantized_network_twice(network, memory, monkeypatch):
    runs = Counter()
    run_segment = Runner.run

    def counted(self, values):
        runs[self.segment.output] += 1
        return run_segment(self, values)

    monkeypatch.setattr(Runner, "run", counted)
    bench = replace(network, config=replace(network.config, memory=memory)).bench(batch=8)
    Rounder(bench).round(Attempt(None, network.steps), lambda done, attempt: None)
    batches = len(bench.evaluator.batches)
    lasting = {segment.output for segment in network.simulation.segments}
    assert max(count for name, count in runs.items() if name in lasting) <= batches


def test_codes_do_not_depend_on_the_memory(name):
    ample, none = fresh(name), fresh(name)
    none = replace(none, config=replace(none.config, memory=0))
    first = ample.rounded().point().weights
    for weight, encoding in none.rounded().point().weights.items():
        assert encoding.digest == first[weight].digest


@pytest.mark.parametrize("least", [0.3, 1e6])
def test_where_the_data_choose_the_rows_or_none_weights_are_rounded_to_nearest(least):
    b = Builder()
    first = b.relu(b.node("MatMul", ["x", b.weight(16, 24)]))
    rows = b.node("Reshape", [first, b.constant(np.array([-1, 24]))])
    score = b.node("Gather", [rows, b.constant(np.array(0))], axis=1)
    large = b.node("NonZero", [b.node("Greater", [score, b.constant(np.array(least, np.float32))])])
    taken = b.node("Gather", [rows, b.node("Reshape", [large, b.constant(np.array([-1]))])])
    inner = b.relu(b.node("MatMul", [taken, b.weight(24, 24)]))
    pooled = b.node("ReduceSum", [inner, b.constant(np.array([0]))], keepdims=1)
    b.node("MatMul", [pooled, b.weight(24, 6)], "y")
    model = b.model({"x": [1, 20, 16]}, {"y": [1, 6]})
    samples = {"x": np.random.default_rng(0).standard_normal((COUNT, 20, 16)).astype(np.float32)}
    network = quantized(model, samples, weight_bits=4, activation_bits=4, first_last="same")
    codes = network.rounded(batch=1).network.codes
    layers = network.network.layers
    middle = list(layers)[1]
    given = network.point().weights
    np.testing.assert_array_equal(codes[middle].codes, given[middle].codes)
    assert (codes[middle].wanted == codes[middle].given).all()
    first_codes = next(iter(layers))
    assert (codes[first_codes].codes != given[first_codes].codes).any()


def test_a_bias_that_is_computed_takes_up_no_mean():
    random = np.random.default_rng(0)
    rises = []
    for seed in range(3):
        b = Builder(seed)
        shifted = b.node("Add", [b.relu(b.gemm("x", 16, 32)), b.constant(np.ones(32, np.float32))])
        bias = b.node("Mul", ["s", b.constant(random.standard_normal(32).astype(np.float32))])
        b.node("Gemm", [shifted, b.weight(32, 32), bias], "y")
        model = b.model({"x": ["N", 16], "s": ["N", 1]}, {"y": ["N", 32]})
        samples = {
            name: random.standard_normal((COUNT, size)).astype(np.float32)
            for name, size in (("x", 16), ("s", 1))
        }
        network = quantized(model, samples, weight_bits=2, activation_bits=8, first_last="same")
        outputs = network.rounded(batch=COUNT).simulated_outputs()
        rises.append(float(np.abs((outputs - network.outputs[0]).mean(axis=0)).mean()))
    assert np.mean(rises) < 0.3
