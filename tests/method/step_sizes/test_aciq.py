import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.optimize import minimize_scalar

from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.step_sizes.aciq import aciq_step_size, gauss_clip, laplace_clip
from onnx_lapq.method.step_sizes.clipping import reach
from onnx_lapq.method.step_sizes.distribution import distribution_of
from onnx_lapq.method.step_sizes.layerwise import minmax_step_size

LAPLACE = {2: 2.83, 3: 3.89, 4: 5.03, 5: 6.20, 6: 7.41, 7: 8.64, 8: 9.89}  # published cut to two digits
GAUSS = {2: 1.710635, 3: 2.151593, 4: 2.559136, 5: 2.936201, 6: 3.286914, 7: 3.615114, 8: 3.924035}


@pytest.mark.parametrize("bits", LAPLACE)
def test_clips_are_those_of_the_published_tables(bits):
    assert laplace_clip(bits) == pytest.approx(LAPLACE[bits], abs=0.01)
    assert gauss_clip(bits) == pytest.approx(GAUSS[bits], abs=1e-6)


@pytest.mark.parametrize(
    ("density", "clip_of"),
    [
        (lambda x: np.exp(-x) / 2, laplace_clip),
        (lambda x: np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), gauss_clip),
    ],
)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_clips_minimise_the_expected_error_by_brute_force(density, clip_of, bits):
    x = np.linspace(0, 40, 400_001)

    def expected_error(clip):
        tails = 2 * trapezoid(density(x) * np.maximum(x - clip, 0) ** 2, x)
        return tails + clip**2 / (3 * 4**bits)

    best = minimize_scalar(expected_error, bounds=(0.5, 15), method="bounded", options={"xatol": 1e-5}).x
    assert clip_of(bits) == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize(
    ("draw", "clips"), [("laplace", LAPLACE), ("normal", GAUSS)], ids=["laplace", "gauss"]
)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_density_that_fits_is_recognised_and_scaled(draw, clips, scale):
    values = scale * getattr(np.random.default_rng(0), draw)(size=200_000)
    signed = aciq_step_size(distribution_of(values), Grid(4, True))
    rectified = aciq_step_size(distribution_of(np.maximum(values, 0)), Grid(4, False))
    assert signed == pytest.approx(scale * clips[4] / 7, rel=0.02)
    assert rectified == pytest.approx(scale * clips[5] / 15, rel=0.02)


def test_a_negative_tail_does_not_hide_that_a_tensor_is_rectified():
    values = np.maximum(np.random.default_rng(0).normal(size=200_000), -0.1)
    step = aciq_step_size(distribution_of(values[values != -0.1]), Grid(4, False, zero_point=1))
    assert step == pytest.approx(GAUSS[5] / reach(Grid(4, False, zero_point=1)), rel=0.05)


@pytest.mark.parametrize("grid", [Grid(4, True), Grid(8, False)], ids=str)
@pytest.mark.parametrize("values", [[0.0], [], [2.0, 2.0]], ids=str)
def test_what_cannot_be_clipped_is_min_max(values, grid):
    distribution = distribution_of(np.array(values))
    assert aciq_step_size(distribution, grid) == minmax_step_size(distribution, grid)
