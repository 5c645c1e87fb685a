import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_lapq.errors import ConfigError
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.step_sizes.clipping import percentile_step_size
from onnx_lapq.method.step_sizes.distribution import Distribution, distribution_of
from onnx_lapq.method.step_sizes.layerwise import minmax_step_size

GRIDS = [Grid(4, True), Grid(4, False), Grid(4, False, zero_point=3), Grid(2, True)]


def share_clipped(values, step, grid):
    beyond = (values > step * grid.highest * (1 + 1e-12)) & (grid.highest > 0)
    below = (values < step * grid.lowest * (1 + 1e-12)) & (grid.lowest < 0)
    return np.mean(beyond | below)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("percentile", [60.0, 90.0, 99.0])
def test_no_more_than_the_share_is_clipped_and_a_smaller_step_clips_more(grid, percentile):
    values = np.random.default_rng(0).normal(size=5000)
    step = percentile_step_size(distribution_of(values), grid, percentile)
    allowed = 1 - percentile / 100 + 1e-9
    assert share_clipped(values, step, grid) <= allowed < share_clipped(values, 0.98 * step, grid)


def test_counts_weigh_the_values():
    distribution = Distribution(np.array([1.0, 2.0, 15.0]), np.array([50.0, 49.0, 1.0]))
    assert percentile_step_size(distribution, Grid(4, False), 99.0) == pytest.approx(2 / 15)
    assert percentile_step_size(distribution, Grid(4, False), 99.5) == 1.0


@given(st.lists(st.floats(-100, 100), max_size=20), st.sampled_from(GRIDS))
def test_the_hundredth_percentile_is_min_max(values, grid):
    distribution = distribution_of(np.array(values))
    assert percentile_step_size(distribution, grid, 100) == minmax_step_size(distribution, grid)


def test_a_tensor_of_nearly_only_zeros_is_min_max():
    distribution = Distribution(np.array([0.0, 3.0]), np.array([1e6, 1.0]))
    assert percentile_step_size(distribution, Grid(4, False), 99.9) == 3 / 15


@pytest.mark.parametrize("percentile", [0.0, 100.1, float("nan")])
def test_percentiles_that_make_no_sense_are_refused(percentile):
    with pytest.raises(ConfigError, match="percentile"):
        percentile_step_size(distribution_of(np.ones(3)), Grid(4, True), percentile)
