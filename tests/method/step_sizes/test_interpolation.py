import math

import numpy as np
import pytest

from onnx_lapq.errors import RunError
from onnx_lapq.method.step_sizes.interpolation import quadratic_start

PS = np.linspace(2, 4, 10).tolist()


def test_vertex_of_a_parabola_is_found():
    fit = quadratic_start(PS, lambda p: 3 * (p - 2.7) ** 2 + 1)
    assert fit.chosen == "quadratic"
    assert fit.p == fit.p_star == pytest.approx(2.7)
    assert fit.coefficients == pytest.approx((3, -16.2, 22.87))
    assert fit.loss == pytest.approx(1)
    assert len(fit.samples) == 10


def test_concave_loss_falls_back_to_the_best_sample():
    fit = quadratic_start(PS, lambda p: -((p - 2.8) ** 2))
    assert (fit.chosen, fit.p, fit.p_star) == ("sample", 4.0, None)
    assert "not convex" in fit.reason


def test_vertex_outside_the_grid_falls_back_to_the_best_sample():
    fit = quadratic_start(PS, lambda p: (p - 5) ** 2)
    assert (fit.chosen, fit.p, fit.p_star_loss) == ("sample", 4.0, None)
    assert fit.p_star == pytest.approx(5)
    assert "outside" in fit.reason


def test_vertex_that_is_worse_than_a_sample_is_not_taken():
    fit = quadratic_start(PS, lambda p: (p - 3) ** 2 - (1 if p == 2.0 else 0) + 2)
    assert (fit.chosen, fit.p) == ("sample", 2.0)
    assert "higher loss" in fit.reason


@pytest.mark.parametrize(("worth", "chosen"), [(0.9, "sample"), (1.1, "quadratic")])
def test_a_vertex_that_promises_too_little_is_left_out(worth, chosen):
    asked = []
    fit = quadratic_start(
        PS, lambda p: (p - 2.7) ** 2 + 1, is_worth=lambda loss: asked.append(loss) or loss < worth
    )
    assert asked == [pytest.approx(1)]
    assert fit.chosen == chosen
    assert (fit.p_star_loss is None, "promises too little" in fit.reason) == (worth < 1, worth < 1)


def test_another_candidate_that_is_low_is_worth_the_vertex_as_well():
    fit = quadratic_start(PS, lambda p: (p - 3) ** 2 + 1, 0.5, is_worth=lambda loss: loss < 0.6)
    assert fit.p_star_loss == pytest.approx(1)


def test_min_max_competes():
    fit = quadratic_start(PS, lambda p: (p - 3) ** 2 + 1, min_max_loss=0.5)
    assert (fit.chosen, fit.p, fit.loss) == ("min-max", math.inf, 0.5)


def test_two_samples_give_no_parabola():
    fit = quadratic_start([2.0, 4.0], lambda p: p)
    assert (fit.coefficients, fit.chosen, fit.p) == (None, "sample", 2.0)
    assert "fewer than three" in fit.reason


def test_losses_that_are_not_finite_take_no_part():
    fit = quadratic_start(PS, lambda p: math.nan if p < 2.3 else (p - 3) ** 2)
    assert fit.p == pytest.approx(3)


def test_no_finite_loss_is_an_error():
    with pytest.raises(RunError):
        quadratic_start(PS, lambda _: math.inf, min_max_loss=math.nan)
