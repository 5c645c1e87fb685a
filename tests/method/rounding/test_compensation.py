import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.rounding import compensation
from onnx_lapq.method.rounding.compensation import (
    best_pull,
    compensated_codes,
    output_errors,
    pulled,
    ridge_target,
)
from onnx_lapq.method.rounding.moments import Moments, RunningMoments, SplitMoments

GRID = Grid(bits=3, signed=True)


def problem(seed: int = 0, groups: int = 2, rows: int = 5, width: int = 12, windows: int = 400):
    """Weights, outputs of a float network, and what noise before the layer made of its inputs."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((groups, width, width)) / np.sqrt(width)
    x = (random.standard_normal((groups, windows, width)) @ mixing + 0.5).astype(np.float32)
    q = (x + 0.2 * random.standard_normal(x.shape) @ mixing).astype(np.float32)
    weights = random.standard_normal((groups, rows, width)).astype(np.float32)
    return weights, x @ np.swapaxes(weights, 1, 2), q


def moments_of(y: np.ndarray, q: np.ndarray) -> Moments:
    running = RunningMoments((len(y), y.shape[2], q.shape[2]))
    running.add(y, q)
    return running.total


def step_of(weights: np.ndarray) -> np.ndarray:
    return np.array([np.abs(weights).max() / 4], dtype=np.float64)


def rounded(weights, moments, *, grid=GRID, scale=None, damping=0.01, factors=(1.0,)) -> np.ndarray:
    """Compensated weights at their step sizes."""
    scale = step_of(weights) if scale is None else scale
    found = compensated_codes(weights, scale, grid, moments, damping, factors)
    return found.codes * np.resize(found.scale, weights.shape[:2])[:, :, None]


def nearest(weights: np.ndarray) -> np.ndarray:
    step = step_of(weights)
    return np.clip(np.rint(weights / step), GRID.qmin, GRID.qmax) * step


def true_error(rounded, y, q) -> float:
    return float((y - q @ np.swapaxes(rounded, 1, 2)).var(axis=1, dtype=np.float64).sum())


def gptq(target: np.ndarray, step: float, grid: Grid, hessian: np.ndarray) -> np.ndarray:
    """The paper's loop over one group [K, J]: the inverse is updated after every column."""
    left, codes = target.astype(np.float64), np.empty(target.shape)
    free = list(np.argsort(-np.diag(hessian), kind="stable"))
    while free:
        column = free.pop(0)
        inverse = np.linalg.inv(hessian[np.ix_([column, *free], [column, *free])])
        codes[:, column] = np.clip(np.rint(left[:, column] / step), grid.qmin, grid.qmax)
        error = (left[:, column] - codes[:, column] * step) / inverse[0, 0]
        left[:, free] -= error[:, None] * inverse[0, 1:]
    return codes


def test_output_errors_are_the_variance_of_the_output_difference():
    weights, y, q = problem()
    moments = moments_of(y, q)
    constant = true_error(np.zeros_like(weights), y, q)
    for some in (weights, 0.7 * weights):
        expected = true_error(some, y, q) - constant
        assert output_errors(some, moments).sum() == pytest.approx(expected, rel=1e-4)


def test_moments_add_up():
    _, y, q = problem()
    parts = moments_of(y[:, :150], q[:, :150]) + moments_of(y[:, 150:], q[:, 150:])
    batches = RunningMoments((len(y), y.shape[2], q.shape[2]))
    for part in (slice(0, 30), slice(30, 400)):
        batches.add(y[:, part], q[:, part])
    whole = moments_of(y, q)
    np.testing.assert_allclose(batches.total.qq, whole.qq, rtol=1e-4)
    assert parts.count == whole.count
    np.testing.assert_allclose(parts.covariance, whole.covariance, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(parts.cross, whole.cross, rtol=1e-4, atol=1e-5)


def test_moments_do_not_depend_on_what_is_put_aside_nor_on_the_threads(monkeypatch):
    _, y, q = problem(groups=70, rows=3)
    whole = moments_of(y, q)
    monkeypatch.setattr("onnx_lapq.method.rounding.moments._MOST_WAITING", (50, 1 << 30))
    with ThreadPoolExecutor(3) as pool:
        running = RunningMoments((len(y), y.shape[2], q.shape[2]), pool=pool)
        for start in range(0, q.shape[1], 30):
            running.add(y[:, start : start + 30], q[:, start : start + 30])
        total = running.total
    assert total.count == whole.count
    for name in ("y", "q", "yq", "qq"):
        np.testing.assert_allclose(getattr(total, name), getattr(whole, name), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("width", [12, 150])
def test_codes_are_those_of_gptq(width):
    weights, y, q = problem(groups=2, width=width, windows=600)
    moments, step = moments_of(y, q), step_of(weights)
    codes = compensated_codes(weights, step, GRID, moments, 0.01, (1.0,)).codes
    for group in range(2):
        hessian = moments.covariance[group] + 0.01 * moments.variance[group] * np.eye(width)
        expected = gptq(weights[group], float(np.float32(step[0])), GRID, hessian.astype(np.float64))
        assert np.mean(codes[group] != expected) < 0.01


def test_codes_are_integers_of_the_grid():
    weights, y, q = problem()
    codes = compensated_codes(3 * weights, step_of(weights), GRID, moments_of(y, q), 0.01, (0.8, 1.2)).codes
    np.testing.assert_array_equal(codes, np.rint(codes))
    assert GRID.qmin <= codes.min() <= codes.max() <= GRID.qmax


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_compensated_codes_beat_nearest_ones(seed):
    weights, y, q = problem(seed)
    moments = moments_of(y, q)
    target = ridge_target(weights, moments, 0.01)
    assert true_error(rounded(target, moments), y, q) < true_error(nearest(weights), y, q)


@given(seed=st.integers(0, 1000), shared=st.sampled_from([1, 5, 10]))
@settings(max_examples=20, deadline=None)
def test_more_step_sizes_to_choose_from_do_no_harm(seed, shared):
    weights, y, q = problem(seed)
    moments = moments_of(y, q)
    scale = np.resize(step_of(weights), shared)
    one, three = (rounded(weights, moments, scale=scale, factors=f) for f in ((1.0,), (0.85, 1.0, 1.15)))

    def error(some):
        difference = some - weights
        return np.einsum("gkj,gkj->", difference @ moments.covariance, difference)

    assert error(three) <= error(one) * (1 + 1e-5)


def test_step_sizes_fit_their_codes_by_least_squares():
    weights, y, q = problem(groups=1)
    moments = moments_of(y, q)
    found = compensated_codes(weights, np.resize(step_of(weights), 5), GRID, moments, 0.01, (1.0,))
    spread = np.swapaxes(np.linalg.cholesky(moments.covariance.astype(np.float64)), 1, 2)
    for row in range(5):
        codes, wanted = spread[0] @ found.codes[0, row], spread[0] @ weights[0, row]
        best = codes @ wanted / (codes @ codes)
        bounds = step_of(weights)[0] * np.array([0.875, 1.125])
        assert found.scale[row] == pytest.approx(np.clip(best, *bounds), rel=1e-4)


def test_compensation_is_close_to_the_best_codes_of_all():
    weights, y, q = problem(groups=1, rows=1, width=5)
    scale, moments = step_of(weights), moments_of(y, q)
    every = itertools.product(range(GRID.qmin, GRID.qmax + 1), repeat=5)
    candidates = np.array(list(every), dtype=np.float32)[:, None, None] * np.float32(scale)
    best = min(output_errors(some, moments).sum() for some in candidates)
    found = output_errors(rounded(ridge_target(weights, moments, 1e-6), moments, damping=1e-6), moments).sum()
    base = output_errors(np.zeros_like(weights), moments).sum()
    assert found - best < 0.1 * (base - best)


def test_inputs_without_correlation_are_rounded_to_nearest():
    weights, _, _ = problem(groups=1)
    rows = np.vstack([np.eye(12), -np.eye(12)]).astype(np.float32)[None]
    codes = compensated_codes(weights, step_of(weights), GRID, moments_of(rows, rows), 0.01, (1.0,)).codes
    np.testing.assert_array_equal(codes, np.rint(nearest(weights) / step_of(weights)))


def test_ridge_target_is_the_least_squares_solution():
    weights, y, q = problem(groups=1)
    centred_y, centred_q = (values[0] - values[0].mean(0, dtype=np.float64) for values in (y, q))
    best = np.linalg.lstsq(centred_q, centred_y, rcond=None)[0].T[None]
    target = ridge_target(weights, moments_of(y, q), 1e-6)
    assert true_error(target, y, q) <= 1.0001 * true_error(best, y, q)


def test_a_large_ridge_leaves_the_weights():
    weights, y, q = problem()
    np.testing.assert_allclose(ridge_target(weights, moments_of(y, q), 1e4), weights, atol=1e-3)


def best_target(weights: np.ndarray, moments: SplitMoments, ridges: tuple[float, ...]) -> np.ndarray:
    """As far as pays: the moments of all windows make the target."""
    return pulled(weights, moments.every, best_pull(weights, moments, ridges))


def test_the_target_is_as_far_from_the_weights_as_pays_on_held_out_windows():
    weights, y, q = problem()
    search, held_out = moments_of(y[:, :200], q[:, :200]), moments_of(y[:, 200:], q[:, 200:])
    target = best_target(weights, SplitMoments(search, held_out), (0.3, 0.01))
    assert output_errors(target, held_out).sum() < output_errors(weights, held_out).sum()


def test_without_held_out_windows_the_largest_ridge_makes_the_target():
    weights, y, q = problem()
    moments = moments_of(y, q)
    target = best_target(weights, SplitMoments(moments, moments_of(y[:, :0], q[:, :0])), (0.01, 0.3))
    np.testing.assert_array_equal(target, ridge_target(weights, moments, 0.3))


def test_a_target_that_does_not_pay_on_held_out_windows_is_not_taken():
    weights, y, q = problem()
    clean = moments_of(q @ np.swapaxes(weights, 1, 2), q)
    target = best_target(weights, SplitMoments(moments_of(-y, q), clean), (0.3, 0.01))
    np.testing.assert_allclose(target, weights, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.0, 1e-30])
def test_inputs_that_never_change_do_no_harm(value):
    weights, y, _ = problem(windows=50)
    constant = np.full((2, 50, 12), value, dtype=np.float32)
    moments = moments_of(np.zeros_like(y), constant)
    assert np.isfinite(rounded(ridge_target(weights, moments, 0.01), moments)).all()


def test_fewer_windows_than_inputs_do_no_harm():
    weights, y, q = problem(windows=4)
    moments = moments_of(y, q)
    assert np.isfinite(rounded(ridge_target(weights, moments, 0.01), moments)).all()


def test_a_matrix_that_noise_made_indefinite_has_a_root():
    noise = np.random.default_rng(0).normal(0, 1e-17, (5, 5)).astype(np.float32)
    assert np.isfinite(compensation._root(-np.abs(noise + noise.T))).all()
