"""A run that has had its minutes ends with the best model by then; a fake clock says when that is."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from image_folders import write_job
from networks import quantized
from small_models import feeds, residual

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.method.step_sizes.interpolation import quadratic_start
from onnx_lapq.network.layer_windows import rounded_layers
from onnx_lapq.progress import Clock
from onnx_lapq.stages.biases import matched_codes
from onnx_lapq.stages.found import Found
from onnx_lapq.stages.rounding import round_weights
from onnx_lapq.stages.run import run_stages
from onnx_lapq.stages.start import find_start

CONFIG = QuantizationConfig(
    weight_bits=3, activation_bits=4, p_values=(2.0, 3.0, 4.0), loss="mse", max_evaluations=8, workers=1
)


@pytest.fixture
def ticking(monkeypatch):
    """A clock that is a second on whenever it is asked; the seconds so far."""
    asked = []
    monkeypatch.setattr(Clock, "elapsed", lambda self: asked.append(0) or len(asked))
    return asked


def bench(seconds: float | None = None, **options):
    """A network to be rounded within some seconds."""
    model = residual()
    network = quantized(model, feeds(model, 16), weight_bits=3, activation_bits=4, first_last="same")
    minutes = None if seconds is None else seconds / 60
    config = replace(CONFIG, max_minutes=minutes, **options).resolved()
    return replace(network, config=config).bench(batch=8, guard=slice(0, None, 5))


def ignore(found: Found) -> None:
    pass


def test_minutes_count_from_the_beginning_of_the_run(monkeypatch):
    on = bench(seconds=90)
    for seconds, out in ((0.0, False), (89.9, False), (90.0, True)):
        monkeypatch.setattr(Clock, "elapsed", lambda self, seconds=seconds: seconds)
        assert on.out_of_time() is out
    monkeypatch.setattr(Clock, "elapsed", lambda self: 1e9)
    assert not bench().out_of_time()


def test_a_run_that_ends_in_time_is_the_same(ticking):
    free, bounded = (run_stages(bench(seconds), Found(), ignore) for seconds in (None, 1e6))
    assert bounded.stages == free.stages
    assert bounded.steps.keys() == free.steps.keys()
    assert all(np.array_equal(bounded.steps[name], free.steps[name]) for name in free.steps)


def test_time_may_end_in_front_of_within_and_behind_the_second_start(ticking):
    layers, outcomes = len(rounded_layers(bench().network.layers.values())), set()
    for seconds in (*range(6, 24), 1e6):
        ticking.clear()
        on = bench(seconds, p_values=(1.0, 3.0, 4.0))
        start = find_start(on, Found(), ignore)
        if len(start.attempts) == 2:
            found = round_weights(on, start, ignore)
            rounded = [stage for stage in found.stages if stage.stage.startswith("compensated")]
            outcomes.add((len(rounded), len(found.codes)))
            assert found.attempts == ()
            assert all(np.isfinite(stage.loss) for stage in rounded)
    assert {(0, 0), (1, layers), (2, layers)} <= outcomes


def test_time_goes_into_a_start_then_rounding_then_the_joint_step(ticking):
    done = []
    for seconds in (1, 2, 5, 8, 1e6):
        ticking.clear()
        found = run_stages(bench(seconds), Found(), ignore)
        names = [stage.stage for stage in found.stages]
        done.append((sum("p=" in name for name in names), len(found.codes), len(found.history)))
        assert np.isfinite(found.stages[-1].loss)
        assert {"float", "min-max", "p=2", "quadratic", "joint"} <= set(names)
    assert done[0] == (1, 0, 1)
    assert done[-1][1] == len(rounded_layers(bench().network.layers.values()))
    assert len(set(done)) >= 4
    assert [row[1] for row in done] == sorted(row[1] for row in done)


def test_layers_without_time_are_rounded_to_nearest_at_the_step_sizes_of_their_start(ticking):
    on = bench(seconds=4)
    start = find_start(bench(), Found(), ignore)
    ticking.clear()
    found = round_weights(on, start, ignore)
    left = [
        layer.site.name
        for layer in rounded_layers(on.network.layers.values())
        if layer.site.name not in found.codes
    ]
    assert 0 < len(left) < len(rounded_layers(on.network.layers.values()))
    assert found.stages[-1].stage == "compensated"
    steps = {attempt.p: attempt.steps for attempt in start.attempts}
    assert any(
        all(np.array_equal(found.start[name], given[name]) for name in left) for given in steps.values()
    )


def test_what_is_rounded_in_part_has_to_be_better_than_the_start(ticking):
    start = find_start(bench(), Found(), ignore)
    better = replace(start, stages=(replace(start.stages[-1], loss=0.0, guard_loss=0.0),))
    for given, codes in ((start, 1), (better, 0)):
        ticking.clear()
        found = round_weights(bench(seconds=3), given, ignore)
        assert (len(found.codes), found.attempts) == (codes, ())


def test_nothing_found_after_the_time_is_saved(ticking):
    saved = []
    run_stages(bench(seconds=1), Found(), saved.append)
    assert saved == []


def test_biases_without_time_stay(ticking):
    on = bench(seconds=2, rounding="nearest")
    steps = on.layerwise.minmax()
    assert len(matched_codes(on, steps, lambda done: None)) == 1
    assert len(matched_codes(bench(rounding="nearest"), steps, lambda done: None)) > 2


def test_a_start_rounded_to_nearest_tries_what_there_is_time_for(ticking):
    tried = []
    for seconds in (3, 6):
        ticking.clear()
        found = find_start(bench(seconds, rounding="nearest"), Found(), ignore)
        tried.append(len(found.stages))
        assert found.stages[-1].stage.startswith("start: ")
    assert tried == sorted(set(tried))


def test_a_grid_that_ends_early_gives_the_best_p_of_those_tried():
    asked = iter([False, True])
    fit = quadratic_start([2.0, 3.0, 4.0, 5.0], lambda p: (p - 5) ** 2, should_stop=lambda: next(asked))
    assert (fit.p, fit.samples) == (3.0, ((2.0, 9.0), (3.0, 4.0)))


def run(job, **options):
    # With a clip for each channel one layer of compensated codes is not yet better than none.
    config = replace(CONFIG, move_scales=False, **options)
    result = quantize(job / "model.onnx", job / "calib", config, state=job / "state")
    return result.save(job / "out.onnx")


def test_a_run_without_time_says_so_and_with_more_it_goes_on_to_the_same_bytes(tmp_path, ticking):
    job = write_job(tmp_path, classes=4, per_class=3)
    run(job)
    whole = (job / "out.onnx").read_bytes()
    (job / "state").unlink()
    cut = run(job, max_minutes=6 / 60)
    (said,) = [sentence for sentence in cut.warnings if "time was up" in sentence]
    assert said.startswith("time was up (--max-minutes 0.1): 1 of ")
    onnx.checker.check_model(onnx.load(job / "out.onnx"), full_check=True)
    assert (job / "out.onnx").read_bytes() != whole
    resumed = run(job, resume=True)
    assert (job / "out.onnx").read_bytes() == whole
    assert not any("time was up" in sentence for sentence in resumed.warnings)
