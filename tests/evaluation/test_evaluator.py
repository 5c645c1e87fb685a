import threading
from dataclasses import replace

import numpy as np
import pytest
from networks import quantized
from small_models import MODELS, feeds

from onnx_lapq.evaluation.evaluator import SegmentEvaluator
from onnx_lapq.graph.writing.segments import simulate
from onnx_lapq.method.losses import make_loss
from onnx_lapq.runtime.session import open_session, run

COUNT = 10


@pytest.fixture(params=MODELS)
def network(request):
    model = MODELS[request.param]()
    return quantized(model, feeds(model, COUNT), weight_bits=4, activation_bits=4)


def walk(network, moves: int):
    """Points as a coordinate search visits them: trials around a point that moves now and then."""
    random = np.random.default_rng(0)
    steps = dict(network.steps)
    names = sorted(steps)
    for _ in range(moves):
        name = names[random.integers(len(names))]
        for factor in (1.1, 0.9, 1.05):
            trial = {**steps, name: steps[name] * factor}
            yield network.network.point(trial)
        if random.random() < 0.7:
            steps = trial
    yield network.network.point(network.steps)


@pytest.mark.parametrize("memory", [0, 2000, 1 << 30])
@pytest.mark.parametrize("workers", [1, 3])
def test_incremental_evaluation_equals_a_full_one_bit_for_bit(network, workers, memory):
    incremental = network.evaluator(batch=3, workers=workers, memory=memory)
    for point in walk(network, moves=6):
        full = network.evaluator(batch=3, memory=0)
        np.testing.assert_array_equal(incremental.losses(point), full.losses(point))


@pytest.mark.parametrize("name", MODELS)
def test_cut_at_layers_only_no_more_segments_give_the_same_loss(name):
    model = MODELS[name]()
    network = quantized(model, feeds(model, COUNT))
    written = network.network.written(network.network.point(network.layerwise.minmax()))
    everywhere, by_layer = (simulate(written, network.placement, by_layer=by) for by in (False, True))
    assert len(by_layer.segments) < len(everywhere.segments) or name in ("recommender", "encoder")
    losses, same = (
        replace(network, simulation=simulation).evaluator().losses(network.point())
        for simulation in (everywhere, by_layer)
    )
    np.testing.assert_array_equal(losses, same)


def test_evaluations_are_counted(network):
    evaluator = network.evaluator()
    for expected in (1, 2, 3):
        evaluator.losses(network.point())
        assert evaluator.evaluations == expected


def test_loss_is_that_of_the_written_model(network):
    loss = make_loss("mse", network.outputs)
    inputs = network.samples.batch(0, COUNT)
    written = loss(run(open_session(network.written()), inputs), slice(0, COUNT))
    np.testing.assert_allclose(network.evaluator().losses(network.point()), written, rtol=1e-4, atol=1e-7)


def test_a_point_that_was_seen_twice_runs_nothing_again(network, monkeypatch):
    evaluator = network.evaluator()
    first = evaluator.losses(network.point())
    np.testing.assert_array_equal(evaluator.losses(network.point()), first)
    monkeypatch.setattr("onnx_lapq.evaluation.runner.run", None)
    np.testing.assert_array_equal(evaluator.losses(network.point()), first)


def test_what_is_forgotten_is_computed_again(network, monkeypatch):
    evaluator = network.evaluator()
    first = evaluator.losses(network.point())
    evaluator.losses(network.point())
    evaluator.forget()
    np.testing.assert_array_equal(evaluator.losses(network.point()), first)
    evaluator.forget()
    monkeypatch.setattr("onnx_lapq.evaluation.runner.run", None)
    with pytest.raises(TypeError):
        evaluator.losses(network.point())


@pytest.mark.parametrize("begin_with_observe", [False, True])
@pytest.mark.parametrize("memory", [0, 2000, 20000])
def test_remembered_values_never_take_more_than_the_budget(network, memory, begin_with_observe, monkeypatch):
    evaluator = network.evaluator(batch=3, memory=memory)
    held = []
    run_batch = SegmentEvaluator._run_batch

    def watched(self, index, plan, outputs, store):
        values, kept = run_batch(self, index, plan, outputs, store)
        remembered = sum(part.nbytes for _, parts in self._cache._entries.values() for part in parts)
        new = sum(self._cache.sizes[name] for name in store) if store <= self._cache.sizes.keys() else 0
        held.append(remembered + new)
        return values, kept

    monkeypatch.setattr(SegmentEvaluator, "_run_batch", watched)
    if begin_with_observe:
        for probe in network.simulation.probes.values():
            list(evaluator.observe(probe, network.point(), lambda values, where: None))
    for point in walk(network, moves=6):
        evaluator.losses(point)
    assert max(held) <= memory
    assert (memory < 20000) or max(held) > 0


def test_no_batch_is_begun_once_one_has_failed(network):
    failed, begun = threading.Event(), []

    def loss(outputs, where):
        begun.append(where.start)
        if where.start:
            failed.wait(timeout=60)
        else:
            raise ZeroDivisionError
        return np.zeros(where.stop - where.start)

    evaluator = network.evaluator(batch=1, loss=loss)
    with pytest.raises(ZeroDivisionError):
        evaluator.losses(network.point())
    failed.set()
    evaluator._pool.shutdown()
    assert len(begun) <= 2  # the one that failed, and one that may have begun by then


def test_a_probe_sees_the_input_of_a_layer(network):
    evaluator = network.evaluator(batch=4)
    for probe in network.simulation.probes.values():
        parts = evaluator.observe(probe, network.point(), lambda values, where: values)
        assert sum(len(part) for part in parts) == COUNT


def test_losses_of_some_batches_are_those_of_all_there(network):
    evaluator = network.evaluator(batch=2)
    losses = evaluator.some_losses(network.point(), [0, 2, 4])
    np.testing.assert_array_equal(losses, evaluator.losses(network.point())[[0, 1, 4, 5, 8, 9]])
    assert evaluator.evaluations == 2
