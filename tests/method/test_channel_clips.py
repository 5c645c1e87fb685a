"""Clips of channels."""

import numpy as np

from onnx_lapq.method.channel_clips import BINS, best_clips, output_error


def counted(*channels: np.ndarray) -> np.ndarray:
    """Histograms of values between 0 and 1."""
    return np.stack([np.histogram(values, BINS, (0, 1))[0] for values in channels])


def test_a_channel_of_half_the_range_has_half_the_clip():
    even = np.linspace(0, 1, 10_000)
    clips = best_clips(counted(even, even / 2, even / 4), 4)
    np.testing.assert_allclose(clips, [1, 0.5, 0.25], rtol=0.12)  # clips that are tried are 12 % apart


def test_silent_channels_take_the_widest_clip():
    narrow, silent = np.linspace(0, 0.25, 1000), np.zeros(1000)
    clips = best_clips(counted(narrow, silent, narrow), 3)
    assert clips[0] == clips[1] == clips[2] < 0.3
    assert len(set(best_clips(counted(silent, silent), 3))) == 1


def test_far_values_are_cut_off_sooner_by_fewer_bits():
    values = np.minimum(np.random.default_rng(0).exponential(0.1, 20_000), 1)
    by_bits = [best_clips(counted(values), bits)[0] for bits in (2, 4, 6)]
    assert by_bits[0] < by_bits[1] < by_bits[2] < 1


def test_errors_of_outputs_are_shares_of_their_power_by_channel():
    random = np.random.default_rng(0)
    rows = random.uniform(0, 1, (2, 500, 9)).astype(np.float32)
    rows[1] *= 0.1
    weights = np.ones((2, 1, 9), np.float32)
    one, own = (output_error(rows, weights, np.array(clips), 4) for clips in ([1.0], [1.0, 0.1]))
    assert own < one / 2
    np.testing.assert_allclose(own, output_error(rows[:1], weights[:1], np.array([1.0]), 4), rtol=0.2)
