import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_lapq.errors import ConfigError, InputError
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.step_sizes.distribution import Distribution, distribution_of
from onnx_lapq.method.step_sizes.layerwise import (
    minmax_step_size,
    minmax_step_size_per_channel,
    step_sizes,
    step_sizes_per_channel,
)

PS = np.linspace(2, 4, 10).tolist()
GRIDS = [
    Grid(2, True),
    Grid(3, True),
    Grid(4, True),
    Grid(8, True),
    Grid(2, False),
    Grid(4, False),
    Grid(4, False, zero_point=1),
    Grid(8, False, zero_point=17),
]


def samples(name, size):
    rng = np.random.default_rng(7)
    return {
        "normal": lambda: rng.normal(size=size),
        "laplace": lambda: rng.laplace(size=size),
        "heavy": lambda: rng.standard_t(3, size=size),
        "uniform": lambda: rng.uniform(-1, 1, size=size),
        "relu": lambda: np.maximum(rng.normal(size=size), 0),
        "tail": lambda: np.maximum(rng.normal(size=size), 0) - 0.05 * rng.uniform(size=size),
        "outlier": lambda: np.append(rng.normal(size=size - 1), 50.0),
    }[name]()


def errors(distribution, grid, steps, p):
    """Brute force: the L_p error of every step, in units that neither under- nor overflow."""
    unit = np.abs(distribution.values).max()
    steps = np.asarray(steps)[:, np.newaxis]
    rounded = np.clip(np.rint(distribution.values / steps), grid.lowest, grid.highest) * steps
    return (np.abs(rounded - distribution.values) / unit) ** p @ distribution.counts


def lowest_error(distribution, grid, p):
    top = np.abs(distribution.values).max() / min(side for side in (grid.highest, -grid.lowest) if side > 0)
    top = min(top, 1.5 * minmax_step_size(distribution, grid))
    return min(
        errors(distribution, grid, part, p).min() for part in np.split(top * np.arange(1, 2001) / 2000, 20)
    )


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", ["normal", "laplace", "heavy", "uniform", "relu", "tail", "outlier"])
def test_steps_are_as_good_as_brute_force(name, grid):
    distribution = distribution_of(samples(name, 3000))
    found = step_sizes(distribution, grid, PS)
    for index in (0, 5, 9):
        error = errors(distribution, grid, found[index : index + 1], PS[index])[0]
        assert error <= 1.001 * lowest_error(distribution, grid, PS[index])


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_steps_per_channel_are_as_good_as_per_tensor(grid):
    weights = np.stack(
        [samples(name, 2000) * 10.0**k for k, name in enumerate(["normal", "laplace", "uniform"])]
    )
    found = step_sizes_per_channel(weights, grid, PS)
    assert found.shape == (10, 3)
    for channel, row in enumerate(weights):
        distribution = distribution_of(row)
        steps = step_sizes(distribution, grid, PS)
        for index in (0, 5, 9):
            ours, theirs = errors(distribution, grid, [found[index, channel], steps[index]], PS[index])
            assert ours <= 1.002 * theirs


@pytest.mark.parametrize("size", [1_025, 2_000, 20_000])
def test_long_channels_are_condensed(size):
    weights = samples("normal", 2 * size).reshape(2, size).astype(np.float32)
    found = step_sizes_per_channel(weights, Grid(4, True), [2.0, 3.0])
    for channel in range(2):
        exact = Distribution(weights[channel].astype(np.float64), np.ones(size))
        np.testing.assert_allclose(found[:, channel], step_sizes(exact, Grid(4, True), [2.0, 3.0]), rtol=0.01)


def test_rows_with_many_zeros_have_the_steps_of_their_other_values():
    weights = np.zeros((2, 20_000), np.float32)
    weights[:, ::20] = samples("normal", 2_000).reshape(2, 1_000)
    found = step_sizes_per_channel(weights, Grid(5, True), PS)
    alone = step_sizes_per_channel(weights[:, ::20], Grid(5, True), PS)
    np.testing.assert_allclose(found, alone, rtol=1e-4)


def test_exponents_need_not_be_evenly_spaced():
    distribution = distribution_of(samples("normal", 500))
    together = step_sizes(distribution, Grid(4, True), [2.0, 2.1, 3.5, 20.0])
    alone = [step_sizes(distribution, Grid(4, True), [p])[0] for p in (2.0, 2.1, 3.5, 20.0)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_large_p_approaches_the_smallest_largest_error():
    distribution = distribution_of(samples("uniform", 500))
    found = step_sizes(distribution, Grid(4, True), [60.0])[0]
    assert errors(distribution, Grid(4, True), [found], 60.0)[0] <= 1.05 * lowest_error(
        distribution, Grid(4, True), 60.0
    )


def test_counts_weigh_the_values():
    values = samples("laplace", 400)
    doubled = Distribution(np.concatenate([values, values[:100]]), np.ones(500))
    weighted = Distribution(values, np.where(np.arange(400) < 100, 2.0, 1.0))
    np.testing.assert_allclose(
        step_sizes(weighted, Grid(3, True), PS), step_sizes(doubled, Grid(3, True), PS), rtol=2e-3
    )


def test_the_lower_limit_of_a_signed_grid_is_used():
    one_sided = distribution_of(np.array([-8.0, -4.0, 1.0]))
    assert minmax_step_size(one_sided, Grid(4, True)) == 1.0
    assert step_sizes(one_sided, Grid(4, True), [2.0])[0] == pytest.approx(1.0, rel=1e-3)


def test_minmax_of_a_grid_with_zero_point_clips_nothing():
    grid = Grid(4, False, zero_point=2)
    distribution = distribution_of(np.array([-1.0, 2.0]))
    assert minmax_step_size(distribution, grid) == 0.5


def test_values_on_a_side_without_codes_do_not_count():
    with_negative = distribution_of(np.append(samples("relu", 1000), -1e6))
    without = distribution_of(samples("relu", 1000))
    np.testing.assert_allclose(
        step_sizes(with_negative, Grid(4, False), PS), step_sizes(without, Grid(4, False), PS), rtol=1e-2
    )


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(
    "values",
    [[0.0] * 5, [3.0] * 5, [-3.0] * 5, [1e-45, 0.0], [1e-30, -1e-30], [1e30, -2e30], [1e-30, 1e30], []],
    ids=str,
)
def test_degenerate_tensors_give_usable_steps(values, grid):
    array = np.array(values, dtype=np.float32)
    found = [
        step_sizes(distribution_of(array), grid, PS),
        step_sizes_per_channel(array[np.newaxis], grid, PS)[:, 0],
        minmax_step_size_per_channel(array[np.newaxis], grid),
    ]
    for steps in found:
        as_float32 = steps.astype(np.float32)
        assert (np.isfinite(as_float32) & (as_float32 > 0)).all()


def test_a_tensor_of_zeros_gets_a_grid_up_to_one():
    assert minmax_step_size(distribution_of(np.zeros(4)), Grid(4, False)) == 1 / 15


@pytest.mark.parametrize("ps", [[], [0.0], [-1.0], [np.inf], [np.nan]])
def test_exponents_that_make_no_sense_are_refused(ps):
    with pytest.raises(ConfigError):
        step_sizes(distribution_of(np.ones(3)), Grid(4, True), ps)


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(InputError):
        step_sizes_per_channel(np.array([[1.0, np.nan]]), Grid(4, True), PS)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.sampled_from(GRIDS), st.integers(-60, 60))
def test_steps_scale_with_the_tensor(values, grid, exponent):
    array = np.array(values)
    array[np.abs(array) < 1e-3] = 0.0
    if not (grid.highest * array.max(initial=0) > 0 or grid.lowest * array.min(initial=0) > 0):
        return
    once = step_sizes(distribution_of(array), grid, [2.0, 3.0])
    scaled = step_sizes(distribution_of(array * 2.0**exponent), grid, [2.0, 3.0])
    np.testing.assert_allclose(scaled, once * 2.0**exponent, rtol=1e-9)


def test_the_order_of_p_does_not_matter():
    values = np.concatenate([np.zeros(50), samples("normal", 1950)])
    up = step_sizes(distribution_of(values), Grid(4, True), [2.0, 3.5, 40.0])
    down = step_sizes(distribution_of(values), Grid(4, True), [40.0, 2.0, 3.5])
    np.testing.assert_allclose(down, up[[2, 0, 1]], rtol=1e-3)
