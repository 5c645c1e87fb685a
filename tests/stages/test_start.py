"""Which step sizes the weights are rounded from."""

import numpy as np
import pytest
from networks import bench_of
from small_models import residual

from onnx_lapq.network.bench import Bench
from onnx_lapq.stages.found import Found
from onnx_lapq.stages.start import find_start


@pytest.mark.parametrize("floor", [-5.0, 0.0, 5.0])
@pytest.mark.parametrize(
    ("bits", "rise", "starts"),
    [
        *((bits, 0.5, [2.0]) for bits in ((8, 8), (4, 8), (4, 4))),
        *((bits, 1.5, [3.0]) for bits in ((8, 8), (4, 8))),
        ((4, 4), 1.5, [3.0, 2.0]),
    ],
)
def test_the_smallest_p_is_rounded_from_unless_another_adds_far_less(monkeypatch, floor, bits, rise, starts):
    noise = np.random.default_rng(0).normal(0, 0.1, (5, 20))
    levels = iter(floor + np.array([2.0, 1.0 + rise, 1.0, 2.0, 3.0]))  # min-max, p = 2, 3, 4, and the vertex
    monkeypatch.setattr(Bench, "reference_losses", np.full(20, floor))
    noises = iter(noise - noise.mean(axis=1, keepdims=True))
    monkeypatch.setattr(Bench, "losses", lambda bench, steps: next(levels) + next(noises))
    weight_bits, activation_bits = bits
    bench = bench_of(
        residual(), p_values=(2.0, 3.0, 4.0), weight_bits=weight_bits, activation_bits=activation_bits
    )
    found = find_start(bench, Found(), lambda found: None)
    assert found.fit is not None
    assert found.fit.p == 3.0
    assert [attempt.p for attempt in found.attempts] == starts


@pytest.mark.parametrize(
    ("bits", "rounding", "count"),
    [((4, 4), "compensated", 4), ((4, 4), "nearest", 6), ((8, 8), "compensated", 1), ((8, 8), "nearest", 4)],
)
def test_fewer_p_are_tried_where_compensated_rounding_follows(bits, rounding, count):
    weight_bits, activation_bits = bits
    bench = bench_of(residual(), weight_bits=weight_bits, activation_bits=activation_bits, rounding=rounding)
    assert len(bench.p_values) == count
    assert bench.p_values[0] == 2.0


def test_a_loss_that_is_lower_by_chance_is_not_far_lower(monkeypatch):
    losses = 1.0 + np.random.default_rng(0).normal(0, 1e-2, (5, 20))
    each = iter(losses - losses.mean(axis=1, keepdims=True) + 1.001 - 1e-3 * np.arange(5)[:, None])
    monkeypatch.setattr(Bench, "reference_losses", np.full(20, 1.0))
    monkeypatch.setattr(Bench, "losses", lambda bench, steps: next(each))
    bench = bench_of(residual(), p_values=(2.0, 3.0, 4.0), weight_bits=4, activation_bits=4)
    assert [attempt.p for attempt in find_start(bench, Found(), lambda found: None).attempts] == [2.0]


def test_a_smallest_p_without_a_finite_loss_is_no_start(monkeypatch):
    levels = iter([2.0, np.inf, 1.0, 2.0])  # min-max, p = 2, 3, 4
    monkeypatch.setattr(Bench, "reference_losses", np.zeros(20))
    monkeypatch.setattr(Bench, "losses", lambda bench, steps: np.full(20, next(levels)))
    bench = bench_of(residual(), p_values=(2.0, 3.0, 4.0), weight_bits=4)
    assert [attempt.p for attempt in find_start(bench, Found(), lambda found: None).attempts] == [3.0]
