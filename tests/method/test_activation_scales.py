import numpy as np
import pytest

from onnx_lapq.method.activation_scales import Matrix, best_divisors, best_gate_divisors, divisors


def test_channels_wider_than_the_share_are_cut_down_to_it():
    ranges = np.array([10.0, 2.0, 1.0, 0.0])
    np.testing.assert_allclose(ranges / divisors(ranges, 0.2), [2, 2, 1, 0])


def test_dead_channels_are_left_alone():
    np.testing.assert_array_equal(divisors(np.zeros(3), 0.2), np.ones(3))


@pytest.mark.parametrize("bits", [8, 4, None])
def test_outlier_channels_are_divided_where_that_lowers_the_error(bits):
    random = np.random.default_rng(0)
    rows = random.standard_normal((64, 16)).astype(np.float32)
    rows[:, 3] *= 50
    matrix = Matrix(random.standard_normal((1, 16, 8)).astype(np.float32), bits, per_channel=True)
    found, left = best_divisors(rows[None], np.abs(rows).max(axis=0).astype(np.float64), [matrix], 8)
    if bits == 4:  # the weight has more to lose
        assert left <= 1
    else:
        assert found.argmax() == 3
        assert found.max() > 1
        assert left < 0.5


def test_even_channels_are_left_alone():
    random = np.random.default_rng(0)
    rows = random.uniform(-1, 1, (64, 16)).astype(np.float32)
    matrix = Matrix(random.standard_normal((1, 16, 8)).astype(np.float32), 8, per_channel=True)
    _, left = best_divisors(rows[None], np.ones(16), [matrix], 8)
    assert left > 0.8


def test_an_input_without_signal_is_left_alone():
    matrix = Matrix(np.ones((1, 4, 2), np.float32), 8, per_channel=True)
    found, left = best_divisors(np.zeros((1, 3, 4), np.float32), np.zeros(4), [matrix], 8)
    np.testing.assert_array_equal(found, np.ones(4))
    assert left == 1.0


@pytest.mark.parametrize("per_channel", [True, False])
def test_channels_of_a_depthwise_convolution_count_alike(per_channel):
    random = np.random.default_rng(0)
    rows = random.standard_normal((8, 64, 9)).astype(np.float32)
    rows[1:] /= 100
    matrix = Matrix(random.standard_normal((8, 9, 1)).astype(np.float32), 8, per_channel)
    found, left = best_divisors(rows, np.abs(rows).max(axis=(1, 2)).astype(np.float64), [matrix], 8)
    assert found.argmax() == 0
    assert left < 0.1 if per_channel else left < 0.5


def test_a_gate_takes_the_range_of_the_channel_that_it_closes():
    random = np.random.default_rng(0)
    rows = random.uniform(-1, 1, (256, 8)).astype(np.float32)
    gates = random.uniform(0.5, 1, (1, 256, 8)).astype(np.float32)
    even = np.abs(rows).max(axis=0).astype(np.float64)
    assert best_gate_divisors(rows, gates, np.ones(8), 8)[1] > 0.9
    widths = np.array([1, 1, 60, 1, 1, 1, 1, 1], np.float32)
    divisors, left = best_gate_divisors(rows * widths, gates / widths, even * widths, 8)
    assert left < 0.02
    assert divisors.argmax() == 2
    assert (np.delete(divisors, 2) == 1).all()
