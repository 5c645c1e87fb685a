import numpy as np
import pytest

from onnx_lapq.method.hessian import hessian
from onnx_lapq.method.landscape import bends, curvature, surface

MATRIX = np.array([[4.0, -1.0, 0.5], [-1.0, 3.0, 2.0], [0.5, 2.0, 5.0]])
SLOPE = np.array([0.3, -0.2, 0.1])
POINT = np.array([1.0, 1.0, 1.0])


class Counted:
    """A loss that counts how often it is asked."""

    def __init__(self, function):
        self.function = function
        self.calls = 0

    def __call__(self, u):
        self.calls += 1
        return float(self.function(u))


def quadratic(u):
    d = u - POINT
    return 0.7 + SLOPE @ d + d @ MATRIX @ d / 2


def test_a_quadratic_gives_its_own_derivatives():
    near = bends(quadratic, POINT, 0.1)
    assert near.centre == pytest.approx(0.7)
    np.testing.assert_allclose(near.gradient, SLOPE, rtol=1e-10)
    np.testing.assert_allclose(near.curvature, np.diag(MATRIX), rtol=1e-10)


def test_evaluations_are_those_promised():
    loss = Counted(quadratic)
    bends(loss, POINT, 0.1)
    assert loss.calls == 2 * 3 + 1


def test_gaussian_curvature_of_a_sphere():
    """Of radius R as the graph of a function: 1 / R^2 everywhere, by the same formula in two dimensions."""
    radius = 2.0

    def sphere(u):
        return -np.sqrt(radius**2 - u @ u)

    for point in (np.zeros(2), np.array([0.5, -0.8])):
        near = hessian(sphere, point, 1e-4, np.arange(2))
        found = curvature(near.values, near.gradient)
        assert found.sign == 1
        assert 10**found.log10 == pytest.approx(1 / radius**2, rel=1e-4)


def test_gaussian_curvature_of_a_saddle_and_of_a_plane():
    saddle = curvature(np.diag([2.0, -3.0]), np.zeros(2))
    assert (saddle.sign, 10**saddle.log10) == (-1, pytest.approx(6))
    assert curvature(np.zeros((2, 2)), np.ones(2)) == type(saddle)(0, -np.inf)


def test_gaussian_curvature_does_not_overflow():
    found = curvature(1e10 * np.eye(60), np.zeros(60))
    assert found.log10 == pytest.approx(600)


def test_a_surface_varies_two_coordinates_only():
    rows, columns = np.array([0.5, 1.0]), np.array([0.8, 1.0, 1.2])
    heights = surface(quadratic, POINT, (2, 0), rows, columns)
    assert heights.shape == (2, 3)
    assert heights[0, 2] == pytest.approx(quadratic(np.array([1.2, 1.0, 0.5])))
    assert heights[1, 1] == pytest.approx(0.7)
