import numpy as np
import pytest

from onnx_lapq.method.outliers import residual, split_outliers
from onnx_lapq.method.quantizer import Grid


def weights(seed=0):
    rows = np.random.default_rng(seed).normal(size=(12, 40))
    rows[3, 7], rows[5, 1] = 9.0, -7.0
    return rows


def test_the_halves_of_a_channel_add_up_to_it():
    sources, parts = split_outliers(weights(), 5, 7)
    assert sources[:12].tolist() == list(range(12))
    assert len(sources) == len(parts) == 17
    total = np.zeros((12, 40))
    np.add.at(total, sources, parts)
    np.testing.assert_allclose(total, weights(), atol=1e-12)


def test_the_largest_weights_are_split_first_and_again_where_a_half_is_still_the_largest():
    sources, parts = split_outliers(weights(), 4, 127)
    assert sorted(sources[12:].tolist()) == [3, 3, 5, 5] or sorted(sources[12:].tolist()) == [3, 3, 3, 5]
    assert np.abs(parts).max() < 0.5 * np.abs(weights()).max() + 0.1


def test_codes_of_the_halves_add_up_to_the_code_of_the_whole():
    """The identity that the paper proves for its quantization-aware splitting, by brute force."""
    rows = np.random.default_rng(1).uniform(-1, 1, size=(1, 1000))
    _, halved = split_outliers(rows, 1, 7)
    step = np.abs(rows).max() / 2 / 7
    np.testing.assert_array_equal(np.rint(halved / step).sum(axis=0), np.rint(rows[0] / step))


def test_splitting_lowers_the_error_of_min_max_codes():
    def error(rows, of):
        step = np.abs(rows).max() / 7
        total = np.zeros((12, 40))
        np.add.at(total, of, np.rint(rows / step) * step)
        return np.square(total - weights()).sum()

    sources, parts = split_outliers(weights(), 3, 7)
    assert error(parts, sources) < 0.5 * error(weights(), np.arange(12))


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_tensor_and_its_residual_take_twice_the_bits(per_channel):
    """One tensor of M bits and one for what it leaves come near a tensor of 2M bits."""
    values = np.random.default_rng(2).normal(size=(12, 40)).astype(np.float32)
    grid = Grid(4, True)
    rest = residual(values, grid, per_channel=per_channel)
    last = residual(rest, grid, per_channel=per_channel)
    once, twice = (np.square(part).mean() / np.square(values).mean() for part in (rest, last))
    assert once < 0.02
    assert twice < once / 20
    for row in [values - rest] if not per_channel else values - rest:
        assert len(np.unique(row.round(5))) <= 16
