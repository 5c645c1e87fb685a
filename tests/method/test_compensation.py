import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_lapq.method import compensation
from onnx_lapq.method.compensation import Moments, compensated_codes, output_error, ridge_target
from onnx_lapq.method.quantizer import Grid

GRID = Grid(bits=3, signed=True)


def problem(seed: int = 0, groups: int = 2, rows: int = 5, width: int = 12, windows: int = 400):
    """Weights, correlated inputs of a float network, and what noise before the layer made of them."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((groups, width, width)) / np.sqrt(width)
    x = (random.standard_normal((groups, windows, width)) @ mixing + 0.5).astype(np.float32)
    q = (x + 0.2 * random.standard_normal(x.shape) @ mixing).astype(np.float32)
    weights = random.standard_normal((groups, rows, width))
    return weights, x, q


def scale_of(weights: np.ndarray) -> np.ndarray:
    return np.full((*weights.shape[:2], 1), np.abs(weights).max() / 4)


def true_error(weights, rounded, x, q) -> float:
    difference = x @ np.swapaxes(weights, 1, 2) - q @ np.swapaxes(rounded, 1, 2)
    return float(difference.var(axis=1).sum())


def test_output_error_is_the_variance_of_the_output_difference():
    weights, x, q = problem()
    moments = Moments.of(x, q)
    constant = true_error(weights, np.zeros_like(weights), x, q)
    for rounded in (weights, 0.7 * weights):
        expected = true_error(weights, rounded, x, q) - constant
        assert output_error(weights, rounded, moments) == pytest.approx(expected, rel=1e-4)


def test_moments_add_up():
    _, x, q = problem()
    parts = Moments.of(x[:, :150], q[:, :150]) + Moments.of(x[:, 150:], q[:, 150:])
    whole = Moments.of(x, q)
    assert parts.count == whole.count
    np.testing.assert_allclose(parts.covariance, whole.covariance, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(parts.cross, whole.cross, rtol=1e-4, atol=1e-5)


def test_codes_are_integers_of_the_grid():
    weights, x, q = problem()
    codes = compensated_codes(3 * weights, scale_of(weights), GRID, Moments.of(x, q), 0.01)
    np.testing.assert_array_equal(codes, np.rint(codes))
    assert GRID.qmin <= codes.min() <= codes.max() <= GRID.qmax


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_compensated_codes_beat_nearest_ones(seed):
    weights, x, q = problem(seed)
    scale, moments = scale_of(weights), Moments.of(x, q)
    nearest = np.clip(np.rint(weights / scale), GRID.qmin, GRID.qmax)
    target = ridge_target(weights, moments, 0.01)
    codes = compensated_codes(target, scale, GRID, moments, 0.01)
    assert true_error(weights, codes * scale, x, q) < true_error(weights, nearest * scale, x, q)


def test_compensation_is_close_to_the_best_codes_of_all():
    weights, x, q = problem(groups=1, rows=1, width=5)
    scale, moments = scale_of(weights), Moments.of(x, q)
    every = itertools.product(range(GRID.qmin, GRID.qmax + 1), repeat=5)
    best = min(output_error(weights, np.array(codes, float)[None, None] * scale, moments) for codes in every)
    codes = compensated_codes(ridge_target(weights, moments, 1e-6), scale, GRID, moments, 1e-6)
    base = output_error(weights, np.zeros_like(weights), moments)
    assert output_error(weights, codes * scale, moments) - best < 0.1 * (base - best)


def test_inputs_without_correlation_are_rounded_to_nearest():
    weights, _, _ = problem(groups=1)
    rows = np.vstack([np.eye(12), -np.eye(12)]).astype(np.float32)[None]
    codes = compensated_codes(weights, scale_of(weights), GRID, Moments.of(rows, rows), 0.01)
    np.testing.assert_array_equal(codes, np.clip(np.rint(weights / scale_of(weights)), GRID.qmin, GRID.qmax))


def test_ridge_target_is_the_least_squares_solution():
    weights, x, q = problem(groups=1)
    centred_x, centred_q = (values[0] - values[0].mean(0, dtype=np.float64) for values in (x, q))
    best = np.linalg.lstsq(centred_q, centred_x @ weights[0].T, rcond=None)[0].T[None]
    target = ridge_target(weights, Moments.of(x, q), 1e-9)
    assert true_error(weights, target, x, q) <= 1.0001 * true_error(weights, best, x, q)


def test_a_large_ridge_leaves_the_weights():
    weights, x, q = problem()
    moments = Moments.of(x, q)
    np.testing.assert_allclose(ridge_target(weights, moments, 1e6), weights, rtol=1e-4)
    assert ridge_target(weights, moments, np.inf) is weights


@pytest.mark.parametrize("value", [0.0, 3.0, 1e-30])
def test_inputs_that_never_change_do_no_harm(value):
    weights, _, _ = problem()
    constant = np.full((2, 50, 12), value, dtype=np.float32)
    moments = Moments.of(constant, constant)
    codes = compensated_codes(ridge_target(weights, moments, 0.01), scale_of(weights), GRID, moments, 0.01)
    assert np.isfinite(codes).all()


def test_fewer_windows_than_inputs_do_no_harm():
    weights, x, q = problem(windows=4)
    moments = Moments.of(x, q)
    codes = compensated_codes(ridge_target(weights, moments, 0.01), scale_of(weights), GRID, moments, 0.01)
    assert np.isfinite(codes).all()


def test_inputs_that_never_change_do_not_stop_the_rounding():
    noise = np.random.default_rng(0).normal(0, 1e-17, (1, 5, 5))
    covariance = -np.abs(noise + np.swapaxes(noise, 1, 2))
    factor = compensation._upper_factor(covariance)
    assert np.isfinite(factor).all()
