import numpy as np
import pytest

from onnx_lapq.errors import InputError
from onnx_lapq.method.step_sizes.distribution import EXACT_LIMIT, Distribution, distribution_of


def test_few_values_are_kept_exactly():
    x = np.random.default_rng(0).normal(size=(10, 20)).astype(np.float32)
    distribution = distribution_of(x)
    np.testing.assert_array_equal(distribution.values, x.reshape(-1))
    assert distribution.counts.tolist() == [1.0] * 200


def test_many_values_are_condensed_without_bias():
    x = np.random.default_rng(0).laplace(size=3_000_000).astype(np.float32) + np.float32(0.1)
    distribution = distribution_of(x)
    assert distribution.values.size < EXACT_LIMIT
    assert distribution.counts.sum() == x.size
    assert distribution.values @ distribution.counts == pytest.approx(x.astype(np.float64).sum(), rel=1e-9)
    assert distribution.values @ (distribution.values * distribution.counts) == pytest.approx(
        np.square(x, dtype=np.float64).sum(), rel=1e-5
    )


def test_exact_zeros_are_kept_apart():
    x = np.maximum(np.random.default_rng(0).normal(size=50_000), 0)
    distribution = distribution_of(x)
    assert distribution.counts[distribution.values == 0].tolist() == [np.count_nonzero(x == 0)]


@pytest.mark.parametrize("size", [10, EXACT_LIMIT + 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(size, value):
    x = np.zeros(size)
    x[3] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        distribution_of(x)


def test_counts_must_fit_the_values():
    with pytest.raises(InputError, match="counts"):
        Distribution(np.zeros(3), np.ones(2))
    with pytest.raises(InputError, match="negative"):
        Distribution(np.zeros(2), np.array([1.0, -1.0]))
