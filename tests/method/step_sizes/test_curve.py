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


def lost(function, x, low, high, p):
    """The mean error of the function behind codes from one end to the other, to the p."""
    step = (high - low) / LEVELS
    return np.mean(np.abs(function(np.rint(np.clip(x, low, high) / step) * step) - function(x)) ** p)


@pytest.mark.parametrize("spread", [2, 4, 8])
def test_the_flat_end_of_silu_is_cut_where_that_loses_less(spread):
    x = values(spread)
    curve = Curve(POINTS, silu(POINTS)[np.newaxis], -9.12, np.inf)
    low, high = curve.range_worth_codes(distribution_of(x), LEVELS)
    assert -9.12 < low < -3
    assert high == np.inf
    for p in (4, 8):
        assert lost(silu, x, low, x.max(), p) < lost(silu, x, max(x.min(), -9.12), x.max(), p)


def test_both_ends_of_a_gate_are_kept_where_values_lie():
    curve = Curve(POINTS, hard_sigmoid(POINTS)[np.newaxis], -3.0, 3.0)
    low, high = curve.range_worth_codes(distribution_of(values(4)), LEVELS)
    assert (low, high) == pytest.approx((-3, 3), abs=0.1)


def test_one_of_two_functions_keeps_what_it_tells_apart():
    results = np.stack([silu(POINTS), np.maximum(POINTS, -20)])
    curve = Curve(POINTS, results, -20.0, np.inf)
    low, _ = curve.range_worth_codes(distribution_of(values(8)), LEVELS)
    assert low < -15


def test_values_of_one_side_need_no_codes_on_the_other():
    curve = Curve(POINTS, silu(POINTS)[np.newaxis], -9.12, np.inf)
    assert curve.range_worth_codes(distribution_of(np.abs(values(4))), LEVELS) == (0.0, np.inf)
