import math

import numpy as np
import pytest

from onnx_lapq.method.powell.scipy_powell import minimise_scipy

START = np.array([0.5, 4.0, 30.0])


def bowl(step_sizes):
    assert (np.isfinite(step_sizes) & (step_sizes > 0)).all()
    away = np.log(step_sizes / START) - np.array([0.3, -0.2, 0.1])
    return float(1 + away @ away + 0.3 * away[0] * away[1])


def test_quadratic_is_minimised_and_counted():
    calls = []
    result = minimise_scipy(lambda x: calls.append(x) or bowl(x), START, max_iterations=20)
    assert result.loss == pytest.approx(1, abs=1e-4)
    assert result.loss == bowl(result.step_sizes)
    assert result.evaluations == len(calls)
    assert (result.stopped, result.state) == ("converged", None)


def test_number_of_iterations_is_limited():
    result = minimise_scipy(bowl, START, max_iterations=1)
    assert result.stopped == "max-sweeps"
    assert result.evaluations < minimise_scipy(bowl, START, max_iterations=2).evaluations


def test_steep_loss_never_leads_to_an_invalid_step_size():
    result = minimise_scipy(lambda x: bowl(x) + 50 * float(np.log(x).sum()), START, max_iterations=1)
    assert (result.step_sizes > 0).all()


def test_cap_is_met_exactly_and_the_best_point_kept():
    for cap in range(1, 40):
        seen = []
        result = minimise_scipy(
            lambda x, seen=seen: seen.append(bowl(x)) or seen[-1], START, max_evaluations=cap
        )
        assert (result.evaluations, result.stopped) == (cap, "max-evaluations")
        assert result.loss == min(seen) <= result.history[0].loss


def test_stop_is_heeded():
    result = minimise_scipy(bowl, START, should_stop=lambda: True)
    assert (result.evaluations, result.stopped) == (1, "stopped")
    assert result.step_sizes.tobytes() == START.tobytes()


def test_loss_that_is_never_finite_keeps_the_start():
    result = minimise_scipy(lambda _: math.nan, START, max_iterations=1)
    assert result.step_sizes.tobytes() == START.tobytes()
