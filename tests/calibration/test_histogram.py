import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnx_lapq.calibration.histogram import StreamingHistogram

Values = npt.NDArray[np.float32]
FLOATS = hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(-(2.0**127), 2.0**127, width=32))


# No values that underflow when they are divided by a bin width of 2**122.
TAME = FLOATS.map(lambda values: np.where(np.abs(values) < 2.0**-20, np.float32(0), values))


def filled(*arrays: Values, bins: int = 64) -> StreamingHistogram:
    histogram = StreamingHistogram(bins)
    for array in arrays:
        histogram.update(array)
    return histogram


@given(FLOATS)
def test_every_value_is_counted_within_a_bin_of_its_place(values: Values) -> None:
    histogram = filled(values)
    points, counts = histogram.points()
    assert counts.sum() == values.size == histogram.count
    assert (np.diff(points) >= 0).all()
    restored = np.repeat(points, counts.astype(int))
    assert np.abs(restored - np.sort(values.astype(np.float64))).max() <= histogram.width
    assert (histogram.minimum, histogram.maximum) == (values.min(), values.max())
    assert histogram.zeros == np.count_nonzero(values == 0)


@given(TAME, st.integers(0, 99))
def test_batches_and_their_order_do_not_matter(values: Values, seed: int) -> None:
    together = filled(values)
    shuffled = np.random.default_rng(seed).permutation(values)
    apart = filled(*np.array_split(shuffled, 5))
    np.testing.assert_array_equal(apart.points()[1], together.points()[1])
    np.testing.assert_allclose(apart.points()[0], together.points()[0], atol=1e-4 * together.width)


@given(FLOATS, st.floats(0, 1))
def test_quantiles_are_off_by_less_than_a_bin(values: Values, q: float) -> None:
    histogram = filled(values)
    exact = np.quantile(values.astype(np.float64), q, method="inverted_cdf")
    assert abs(histogram.quantile(q) - exact) <= histogram.width


@pytest.mark.parametrize("scale", [1e-30, 0.3, 1.0, 7e20])
@pytest.mark.parametrize("shift", [0.0, 1.0, -0.3])
def test_most_bins_stay_in_use_while_the_range_grows(scale: float, shift: float) -> None:
    values = np.random.default_rng(0).random(100_000) + shift
    histogram = StreamingHistogram()
    for factor in (1e-3, 0.02, 1.0):
        histogram.update((values * factor * scale).astype(np.float32))
    assert 1500 <= (histogram.maximum - histogram.minimum) / histogram.width <= 4096


def test_zeros_are_apart_and_exact() -> None:
    relu = np.maximum(np.random.default_rng(0).standard_normal((50, 2000)), 0).astype(np.float32)
    histogram = filled(relu, bins=4096)
    points, counts = histogram.points()
    assert points[0] == 0.0
    assert counts[0] == histogram.zeros == np.count_nonzero(relu == 0)
    assert points[1] > 0.0


def test_bin_means_reproduce_the_mean() -> None:
    values = np.random.default_rng(0).exponential(size=100_000).astype(np.float32)
    points, counts = filled(values).points()
    assert np.average(points, weights=counts) == pytest.approx(values.mean(dtype=np.float64), rel=1e-9)


def test_tiny_values_beside_huge_ones_are_binned() -> None:
    for sign in (-1, 1):
        histogram = filled(np.array([sign * 8e37, sign * 1e-44], np.float32))
        assert histogram.points()[1].tolist() == [1, 1]


@pytest.mark.parametrize("value", [0.0, -2.5, 1e-45, 3.4e38])
def test_a_constant_is_one_point(value: float) -> None:
    points, counts = filled(np.full(7, value, np.float32)).points()
    assert points.tolist() == [np.float32(value)]
    assert counts.tolist() == [7]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_and_change_nothing(bad: float) -> None:
    histogram = filled(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="NaN or infinity"):
        histogram.update(np.array([1.0, bad, 5.0], np.float32))
    assert (histogram.count, histogram.maximum) == (3, 1.0)


def test_an_empty_histogram_has_no_points_and_no_quantiles() -> None:
    histogram = filled(np.empty((0, 4), np.float32))
    assert histogram.points()[0].size == 0
    with pytest.raises(ValueError, match="empty"):
        histogram.quantile(0.5)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        StreamingHistogram(1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        filled(np.ones(1, np.float32)).quantile(1.5)


def test_strided_and_other_dtypes_are_taken() -> None:
    grid = np.arange(12.0).reshape(3, 4)
    assert filled(grid[:, ::2]).count == 6
    assert filled(np.arange(5)).maximum == 4.0
