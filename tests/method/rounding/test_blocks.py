import numpy as np
import pytest

from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.rounding.blocks import by_weight, fitted_blocks, in_blocks
from onnx_lapq.method.rounding.compensation import compensated_codes, output_errors, steps_by_weight
from onnx_lapq.method.rounding.moments import RunningMoments

GRID = Grid(bits=4, signed=True)


def problem(width: int = 40, rows: int = 6):
    """Weights whose size differs between blocks, and moments of correlated inputs."""
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 500, width)) @ random.standard_normal((width, width))
    weights = random.standard_normal((1, rows, width)) * np.repeat([1, 8, 3], 16)[:width]
    x, weights = x.astype(np.float32), weights.astype(np.float32)
    running = RunningMoments((1, rows, width))
    running.add(x @ np.swapaxes(weights, 1, 2), x)
    return weights, running.total


def minmax(weights: np.ndarray, block: int) -> np.ndarray:
    return np.abs(in_blocks(weights[0], block)).max(axis=2).astype(np.float64) / 7


def error_of(codes, scale, moments, block) -> float:
    return output_errors(codes * steps_by_weight(scale, codes.shape, block), moments).sum()


def test_rows_go_into_blocks_and_scales_to_their_weights():
    rows = np.arange(10.0).reshape(2, 5)
    assert in_blocks(rows, 2).tolist() == [[[0, 1], [2, 3], [4, 0]], [[5, 6], [7, 8], [9, 0]]]
    assert by_weight(np.array([[1, 2, 3]]), 2, 5).tolist() == [[1, 1, 2, 2, 3]]


def test_codes_in_blocks_beat_the_nearest_ones_and_one_step_size_a_row():
    weights, moments = problem()
    scale = minmax(weights, 16)
    nearest = np.clip(np.rint(weights / steps_by_weight(scale, weights.shape, 16)), -8, 7)
    found = compensated_codes(weights, scale, GRID, moments, 0.01, (0.85, 1.0), 16)
    assert found.codes.min() >= -8
    assert found.codes.max() <= 7
    assert found.scale.shape == scale.shape
    reference = error_of(weights, np.ones_like(scale), moments, 16)
    error = error_of(found.codes, found.scale, moments, 16) - reference
    assert error < 0.5 * (error_of(nearest, scale, moments, 16) - reference)
    by_row = compensated_codes(weights, minmax(weights, 40)[:, 0], GRID, moments, 0.01, (0.85, 1.0))
    assert error < 0.75 * (error_of(by_row.codes, by_row.scale, moments, 0) - reference)


def test_one_block_of_all_inputs_is_one_step_size_a_row():
    weights, moments = problem()
    scale = minmax(weights, 40)
    blocks = compensated_codes(weights, scale, GRID, moments, 0.01, (1.0,), 40)
    rows = compensated_codes(weights, scale[:, 0], GRID, moments, 0.01, (1.0,))
    np.testing.assert_array_equal(blocks.codes, rows.codes)
    np.testing.assert_allclose(blocks.scale[:, 0], rows.scale, rtol=1e-4)


@pytest.mark.parametrize("block", [8, 16, 32])
def test_fitted_step_sizes_are_near_and_lower_the_error_that_they_say(block):
    weights, moments = problem()
    scale, h = minmax(weights, block), moments.covariance
    codes = np.clip(np.rint(weights / steps_by_weight(scale, weights.shape, block)), -8, 7)
    fitted, errors = fitted_blocks(codes[0], scale, block, (weights @ h)[0], h[0])
    assert np.abs(fitted / scale - 1).max() <= 0.125 + 1e-9
    assert errors.sum() < error_of(codes, scale, moments, block)
    np.testing.assert_allclose(errors.sum(), error_of(codes, fitted, moments, block), rtol=1e-4)


def test_sweeps_over_codes_and_step_sizes_lower_the_error():
    weights, moments = problem()
    scale = minmax(weights, 16)
    errors = []
    for sweeps in (0, 1, 2):
        found = compensated_codes(weights, scale, GRID, moments, 1e-6, (0.85, 1.0), 16, sweeps)
        assert np.abs(found.codes).max() <= 8
        np.testing.assert_array_equal(found.codes, np.rint(found.codes))
        errors.append(error_of(found.codes, found.scale, moments, 16))
    reference = error_of(weights, np.ones_like(scale), moments, 16)
    assert errors[1] - reference < 0.9 * (errors[0] - reference)
    assert errors[2] <= errors[1]
