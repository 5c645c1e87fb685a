import numpy as np
import pytest

from onnx_lapq.calibration.capture import by_sample, capture, stacked


def test_outputs_of_samples_of_one_shape_lie_behind_each_other():
    assert stacked([np.zeros((2, 3)), np.ones((1, 3))]).shape == (3, 3)


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ([(2, 7, 5), (1, 9, 5)], (1, 23, 5)),
        ([(2, 5, 7), (1, 5, 9)], (1, 5, 23)),
        ([(2, 7), (1, 9)], (1, 23)),
        ([(2, 5, 3, 4), (1, 5, 2, 6)], (1, 5, 36, 1)),
    ],
)
def test_outputs_of_several_shapes_keep_the_axes_in_which_they_are_alike(shapes, found):
    values = [
        np.broadcast_to(np.arange(5).reshape(-1, *[1] * (len(shape) - 1 - shape.index(5))), shape)
        if 5 in shape
        else np.zeros(shape)
        for shape in shapes
    ]
    joined = stacked(values)
    assert joined.shape == found
    if 5 in found:
        along = np.moveaxis(joined, found.index(5), 0)
        assert [set(part.ravel()) for part in along] == [{0}, {1}, {2}, {3}, {4}]


@pytest.mark.parametrize(("axis", "shape"), [(0, (4, 2, 3)), (1, (2, 4, 3)), (None, (1, 4, 2, 3))])
def test_samples_come_first(axis, shape):
    assert by_sample(np.zeros((4, 2, 3)), axis).shape == shape


def test_means_are_kept_for_each_shape_and_outputs_in_blocks():
    runs = [
        (slice(0, 2), {"x": np.full((2, 3), 1.0), "y": np.zeros((2, 3))}),
        (slice(2, 3), {"x": np.full((1, 3), 4.0), "y": np.zeros((1, 3))}),
        (slice(3, 4), {"x": np.full((1, 5), 7.0), "y": np.ones((1, 5))}),
    ]
    found = capture(
        iter(runs), histograms=[], means=["x"], outputs={"y": 0}, samples=4, on_batch=lambda done: None
    )
    assert [(rows, mean.tolist()) for rows, mean in found.means["x"]] == [(3, [2.0] * 3), (1, [7.0] * 5)]
    assert [(block.at, block.outputs["y"].shape) for block in found.blocks] == [
        (slice(0, 3), (3, 3)),
        (slice(3, 4), (1, 5)),
    ]
    assert [block.outputs["y"].tolist() for block in found.blocks] == [[[0.0] * 3] * 3, [[1.0] * 5]]


def test_of_large_maps_a_part_is_counted_from_all_columns_with_the_extremes_of_all():
    columns = np.broadcast_to(np.arange(512, dtype=np.float32), (2, 1, 1024, 512)).copy()
    columns[0, 0, 0, 1], columns[1, 0, 5, 5] = -7, 1000
    runs = [(slice(at, at + 1), {"x": columns[at : at + 1]}) for at in range(2)]
    found = capture(runs, histograms=["x"], means=[], outputs={}, samples=2, on_batch=lambda done: None)
    histogram = found.histograms["x"]
    assert 50_000 < histogram.count / 2 < 70_000
    assert (histogram.minimum, histogram.maximum) == (-7, 1000)
    values, counts = histogram.points()
    ordinary = counts[(values >= 0) & (values < 512)]
    assert ordinary.size >= 256  # bins of one value or two
    assert ordinary.max() < 1.1 * ordinary[ordinary > 0.6 * ordinary.max()].min()
    assert histogram.quantile(0.5) == pytest.approx(256, abs=4)


def test_small_maps_are_counted_whole():
    values = np.random.default_rng(0).standard_normal((3, 1, 256, 256)).astype(np.float32)
    runs = [(slice(0, 3), {"x": values})]
    found = capture(runs, histograms=["x"], means=[], outputs={}, samples=3, on_batch=lambda done: None)
    assert found.histograms["x"].count == values.size


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_a_mean_of_large_maps_is_of_samples_spread_evenly_and_counts_all_rows_of_its_shape(batch):
    def values(at: slice, side: int) -> np.ndarray:
        return np.arange(at.start, at.stop, dtype=np.float32)[:, None, None] * np.ones(
            (1, side, side), np.float32
        )

    at = [slice(start, start + batch) for start in range(0, 64, batch)]
    runs = [(where, {"x": values(where, 512)}) for where in at]
    runs.append((slice(64, 66), {"x": values(slice(64, 66), 1024)}))
    found = capture(runs, histograms=[], means=["x"], outputs={}, samples=66, on_batch=lambda done: None)
    (rows, mean), (others, other) = found.means["x"]
    assert (rows, mean.shape, others, other.shape) == (64, (512, 512), 2, (1024, 1024))
    assert mean[0, 0] == pytest.approx(31.5, abs=1.5)
    assert other[0, 0] == 64.5


def test_a_part_of_large_values_holds_every_channel():
    values = np.zeros((64, 64, 96), np.float32) + np.arange(96, dtype=np.float32)
    runs = [(slice(at, at + 16), {"x": values}) for at in range(0, 1024, 16)]
    found = capture(runs, histograms=["x"], means=[], outputs={}, samples=1024, on_batch=lambda done: None)
    channels, counts = found.histograms["x"].points()
    assert found.histograms["x"].count < 64 * values.size / 2
    np.testing.assert_array_equal(channels, np.arange(96))
    assert counts.max() < 1.1 * counts.min()


def test_batches_without_rows_count_nothing():
    runs = [(slice(0, 2), {"x": np.ones((3, 4))}), (slice(2, 4), {"x": np.ones((0, 4))})]
    found = capture(runs, histograms=["x"], means=["x"], outputs={}, samples=4, on_batch=lambda done: None)
    ((rows, mean),) = found.means["x"]
    assert (rows, mean.tolist(), found.histograms["x"].count) == (3, [1.0] * 4, 12)


def test_a_mean_whose_sum_float32_cannot_hold_is_right():
    """What a mask holds, for example."""
    lowest = np.finfo(np.float32).min
    runs = [(slice(0, 4), {"x": np.full((4, 2), lowest)})]
    found = capture(runs, histograms=[], means=["x"], outputs={}, samples=4, on_batch=lambda done: None)
    ((_, mean),) = found.means["x"]
    np.testing.assert_allclose(mean, float(lowest))
