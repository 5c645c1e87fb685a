"""Codes of which two products are added in 16 bits."""

import numpy as np
import pytest

from onnx_lapq.method.pairs import pair_limits, pair_sums
from onnx_lapq.method.quantizer import Grid, nearest_codes

MOST = 2**15 - 1


def worst_sums(codes, apart):
    """Sums of two products with activations of 255, each channel 2i + 1 beside the one before it."""
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % (2 * apart))))
    pairs = padded.reshape(len(codes), -1, 2, apart) * 255
    above, below = np.maximum(pairs, 0).sum(axis=2), np.minimum(pairs, 0).sum(axis=2)
    return above.max(), below.min()


@pytest.mark.parametrize("apart", [1, 9])
@pytest.mark.parametrize("channels", [6, 7])
@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_no_codes_within_the_limits_overflow(channels, apart, scale):
    levels = np.random.default_rng(0).normal(0, 50 * scale, (40, channels * apart)).astype(np.float32)
    lowest, highest = pair_limits(levels, apart)
    assert worst_sums(highest, apart)[0] <= MOST
    assert worst_sums(lowest, apart)[1] >= -MOST - 1
    assert lowest.min() >= -128
    assert highest.max() <= 127
    assert (lowest <= 0).all()
    assert (highest > 0).all()


def test_codes_that_fit_are_the_nearest():
    rows = np.random.default_rng(1).normal(size=(200, 18)).astype(np.float32)
    steps = np.maximum(pair_sums(rows, 9) / 128, rows.max(axis=1) / 127)[:, None]
    codes = nearest_codes(rows, steps, Grid(8, signed=True, apart=9))
    np.testing.assert_array_equal(codes, np.rint(rows / steps))


def test_two_that_do_not_fit_give_way_equally():
    levels = np.array([[100, 60, -100, -60, 100, -100]], np.float32)
    codes = nearest_codes(levels, np.ones((1, 1), np.float32), Grid(8, signed=True, apart=1))
    np.testing.assert_array_equal(codes, [[84, 44, -84, -44, 100, -100]])


def test_the_largest_sum_counts_one_side_of_zero():
    rows = np.array([[3, -5, 1, 1], [-2, -2, 1, 0]], np.float32)
    np.testing.assert_array_equal(pair_sums(rows, 1), [5, 4])
    np.testing.assert_array_equal(pair_sums(rows, 2), [5, 2])
    assert pair_sums(rows[:, :3], 2).tolist() == [5, 2]
