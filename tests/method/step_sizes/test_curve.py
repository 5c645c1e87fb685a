"""Flat ends of functions get no more codes than they are worth."""

import numpy as np
import pytest

from onnx_lapq.method.step_sizes.curve import Curve
from onnx_lapq.method.step_sizes.distribution import distribution_of

POINTS = np.linspace(-32, 32, 12801)
LEVELS = 255


def silu(x):
    return x / (1 + np.exp(-x))


def hard_sigmoid(x):
    return np.clip(x / 6 + 0.5, 0, 1)


def values(spread):
    return np.random.default_rng(0).normal(0, spread, 10000)


def ends(curve, x, tail=0.0):
    low, high = np.quantile(x, [tail, 1 - tail])
    return curve.range_worth_codes(distribution_of(x), min(low, 0.0), max(high, 0.0), LEVELS)


def lost(function, x, low, high, p):
    """The mean error of the function behind codes from one end to the other, to the p."""
    step = (high - low) / LEVELS
    return np.mean(np.abs(function(np.rint(np.clip(x, low, high) / step) * step) - function(x)) ** p)


@pytest.mark.parametrize("spread", [2, 4, 8])
def test_the_flat_end_of_silu_is_cut_where_that_loses_less(spread):
    x = values(spread)
    curve = Curve(POINTS, silu(POINTS)[np.newaxis], -9.12, np.inf)
    low, high = ends(curve, x)
    assert -9.12 < low < -3
    assert high == np.inf
    for p in (2, 4, 8):
        assert lost(silu, x, low, x.max(), p) < lost(silu, x, max(x.min(), -9.12), x.max(), p)


def test_both_ends_of_a_gate_are_kept_where_values_lie():
    curve = Curve(POINTS, hard_sigmoid(POINTS)[np.newaxis], -3.0, 3.0)
    low, high = ends(curve, values(4))
    assert (low, high) == pytest.approx((-3, 3), abs=0.1)


def test_one_of_two_functions_keeps_what_it_tells_apart():
    results = np.stack([silu(POINTS), np.maximum(POINTS, -20)])
    low, _ = ends(Curve(POINTS, results, -20.0, np.inf), values(8))
    assert low < -15


def test_values_of_one_side_need_no_codes_on_the_other():
    curve = Curve(POINTS, silu(POINTS)[np.newaxis], -9.12, np.inf)
    assert ends(curve, np.abs(values(4))) == (0.0, np.inf)


@pytest.mark.parametrize("outlier", [100.0, 1000.0, -1000.0])
def test_a_few_far_values_do_not_move_the_ends(outlier):
    x = np.concatenate([np.tile(values(4), 10), [outlier] * 5])
    gate = Curve(POINTS, hard_sigmoid(POINTS)[np.newaxis], -3.0, 3.0)
    assert ends(gate, x, 1e-4) == pytest.approx((-3, 3), abs=0.1)
    curve = Curve(POINTS, silu(POINTS)[np.newaxis], -9.12, np.inf)
    assert ends(curve, x, 1e-4) == pytest.approx(ends(curve, values(4), 1e-4), abs=0.3)


def test_a_few_values_beyond_the_dip_of_hardswish_are_not_taken_for_the_dip():
    random = np.random.default_rng(0)
    x = np.concatenate([random.uniform(-2, 1.5, 100_000), [-3.5] * 5])  # one in 20,000
    curve = Curve(POINTS, (POINTS * hard_sigmoid(POINTS))[np.newaxis], -3.0, np.inf)
    low, _ = ends(curve, x, 1e-4)
    assert -3 <= low < -2.5


@pytest.mark.parametrize(("lowest", "highest"), [(5.0, 11.0), (-11.0, -5.0)])
def test_ends_lie_on_both_sides_of_zero(lowest, highest):
    middle = (lowest + highest) / 2
    curve = Curve(POINTS, hard_sigmoid(POINTS - middle)[np.newaxis], lowest, highest)
    low, high = ends(curve, values(8))
    assert low <= 0 <= high
    assert high - low > 10
