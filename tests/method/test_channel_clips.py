"""Clips of channels."""

import numpy as np

from onnx_lapq.method.channel_clips import BINS, clip_factors


def counted(*channels: np.ndarray) -> np.ndarray:
    """Histograms of values between 0 and 1."""
    return np.stack([np.histogram(values, BINS, (0, 1))[0] for values in channels])


def test_a_channel_of_half_the_range_is_doubled():
    even = np.linspace(0, 1, 10_000)
    factors = clip_factors(counted(even, even / 2, even / 4), 4)
    np.testing.assert_allclose(factors, [1, 2, 4], rtol=0.12)  # clips that are tried are 12 % apart


def test_the_widest_channel_keeps_its_scale_and_silent_ones_ask_for_nothing():
    narrow, silent = np.linspace(0, 0.25, 1000), np.zeros(1000)
    assert clip_factors(counted(narrow, silent, narrow), 3).tolist() == [1, 1, 1]
    assert clip_factors(counted(silent, silent), 3).tolist() == [1, 1]


def test_far_values_are_cut_off_sooner_by_fewer_bits():
    values = np.minimum(np.random.default_rng(0).exponential(0.1, 20_000), 1)
    wide = np.linspace(0, 1, 20_000)
    by_bits = [clip_factors(counted(wide, values), bits)[1] for bits in (2, 4, 6)]
    assert by_bits[0] > by_bits[1] > by_bits[2] > 1
