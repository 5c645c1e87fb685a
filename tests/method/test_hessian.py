import numpy as np
import pytest

from onnx_lapq.method.hessian import Coupling, Hessian, coupling, evaluations, hessian, most_coupled

MATRIX = np.array([[4.0, -1.0, 0.5], [-1.0, 3.0, 2.0], [0.5, 2.0, 5.0]])
SLOPE = np.array([0.3, -0.2, 0.1])
ALL = np.arange(3)
SIZE = 8
STAIRS = 1000


def quadratic(matrix, slope):
    def loss(u):
        return float(0.7 + slope @ (u - 1) + (u - 1) @ matrix @ (u - 1) / 2)

    return loss


def staircase(matrix, noise, seed):
    """A quadratic with noise that is constant within a stair: of every coordinate, and less of every pair."""
    generator = np.random.default_rng(seed)
    alone = generator.normal(size=(len(matrix), 2 * STAIRS))
    together = generator.normal(size=7919)
    smooth = quadratic(matrix, np.zeros(len(matrix)))

    def loss(u):
        stairs = (STAIRS * u).astype(int)
        rows, columns = np.triu_indices(len(u), 1)
        pairs = together[(stairs[rows] * 31 + stairs[columns] * 523 + rows * 71 + columns) % together.size]
        return smooth(u) + noise * (alone[np.arange(len(u)), stairs].sum() + 0.3 * pairs.sum())

    return loss


def exact(matrix):
    return Hessian(matrix, np.zeros_like(matrix), np.zeros(len(matrix)))


def test_a_quadratic_gives_its_own_derivatives():
    found = hessian(quadratic(MATRIX, SLOPE), np.ones(3), 0.1, ALL)
    np.testing.assert_allclose(found.values, MATRIX, rtol=1e-9)
    np.testing.assert_allclose(found.gradient, SLOPE, rtol=1e-9)
    np.testing.assert_allclose(found.errors, 0, atol=1e-9)


def test_a_smooth_function_is_close_to_its_own():
    def smooth(u):
        return float(np.exp(u[0] * u[1]) + u[2] ** 3)

    e = np.e
    found = hessian(smooth, np.ones(3), 1e-4, ALL)
    np.testing.assert_allclose(found.values, [[e, 2 * e, 0], [2 * e, e, 0], [0, 0, 6]], atol=1e-3)


def test_a_sub_vector_moves_no_other_coordinate():
    places = []

    def loss(u):
        places.append(u)
        return quadratic(MATRIX, SLOPE)(u)

    some = np.array([0, 2])
    found = hessian(loss, np.ones(3), 0.1, some)
    np.testing.assert_allclose(found.values, MATRIX[np.ix_(some, some)], rtol=1e-9)
    assert {u[1] for u in places} == {1.0}
    assert len(places) == evaluations(2)


def test_points_stay_within_a_quarter_more_than_the_distance():
    places = []

    def loss(u):
        places.append(u)
        return 0.0

    hessian(loss, np.ones(3), 0.2, ALL)
    reach = np.abs(np.array(places) - 1).max()
    assert 0.2 < reach <= 0.25


def test_coupling_of_an_exact_hessian():
    assert coupling(exact(np.diag([1.0, -5.0]))) == Coupling(0.0, 0.0, 0.0)
    assert coupling(exact(np.ones((4, 4)))) == Coupling(pytest.approx(12**0.5), pytest.approx(12 / 16), 0.0)
    assert coupling(exact(np.zeros((2, 2)))) == Coupling(0.0, 0.0, 0.0)


def test_nothing_above_the_noise_has_an_infinite_error():
    found = coupling(Hessian(np.ones((2, 2)), 2 * np.ones((2, 2)), np.zeros(2)))
    assert found == Coupling(0.0, 0.0, np.inf)
    assert found.text == "noise"
    assert Coupling(1.0, 0.381, 0.042).text == "38.1 ± 4.2 %"


def looks(matrix, noise):
    """At 40 staircases around one quadratic."""
    losses = [staircase(matrix, noise, seed) for seed in range(40)]
    return [hessian(loss, np.ones(SIZE), 0.25, np.arange(SIZE)) for loss in losses]


@pytest.mark.parametrize("mixed", [0.0, 0.5])
def test_stairs_neither_make_nor_hide_a_coupling(mixed):
    """On average the share is that of the smooth loss; that of the values alone is more."""
    matrix = np.full((SIZE, SIZE), mixed) + np.diag(np.linspace(1, 3, SIZE))
    true = coupling(exact(matrix)).share
    founds = looks(matrix, 0.03)
    shares = np.array([coupling(found).share for found in founds])
    errors = np.array([coupling(found).error for found in founds])
    assert abs(shares.mean() - true) < 3 * shares.std() / np.sqrt(len(shares))
    assert 0.7 < np.sqrt((errors**2).mean()) / shares.std() < 1.4
    if not mixed:
        biased = np.array([coupling(exact(found.values)).share for found in founds])
        assert biased.min() > 2 * abs(shares.mean())


def test_errors_are_those_of_the_entries():
    matrix = np.diag(np.linspace(1, 3, SIZE))
    founds = looks(matrix, 0.03)
    missed = np.mean([(found.values - matrix) ** 2 for found in founds], axis=0)
    said = np.mean([found.errors**2 for found in founds], axis=0)
    on, off = np.diag_indices(SIZE), np.triu_indices(SIZE, 1)
    assert 0.7 < np.sqrt(missed[on].mean() / said[on].mean()) < 1.4
    assert 0.7 < np.sqrt(missed[off].mean() / said[off].mean()) < 1.4
    assert missed[off].mean() < missed[on].mean() / 4


def test_the_most_coupled_pair():
    assert most_coupled(MATRIX) == (1, 2)
    assert most_coupled(-MATRIX) == (1, 2)
    assert most_coupled(np.eye(3)) == (0, 1)
