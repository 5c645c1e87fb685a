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
        (slice(3, 4), {"x": np.full((1, 5), 7.0), "y": np.zeros((1, 5))}),
    ]
    found = capture(
        iter(runs), histograms=[], means=["x"], outputs={"y": 0}, samples=4, on_batch=lambda done: None
    )
    assert [(rows, mean.tolist()) for rows, mean in found.means["x"]] == [(3, [2.0] * 3), (1, [7.0] * 5)]
    assert [(block.at, block.outputs["y"].shape) for block in found.blocks] == [
        (slice(0, 3), (3, 3)),
        (slice(3, 4), (1, 5)),
    ]


def test_of_many_values_a_part_is_counted_evenly_and_the_extremes_of_all():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (6, 32, 256, 256)).astype(np.float32)
    values[:, 3] += 5
    values[4, 0, 0, 7], values[5, 7, 255, 254] = 90, -70

    def counted(size):
        runs = [(slice(at, at + size), {"x": values[at : at + size]}) for at in range(0, 6, size)]
        wanted = {"histograms": ["x"], "means": [], "outputs": {}}
        return capture(iter(runs), **wanted, samples=6, on_batch=lambda done: None).histograms["x"]

    found = counted(2)
    assert values.size // 4 < found.count < values.size // 2
    assert (found.minimum, found.maximum) == (-70, 90)
    points, counts = found.points()
    assert (points[0], points[-1]) == pytest.approx((-70, 90), abs=found.width)
    assert np.average(points, weights=counts) == pytest.approx(5 / 32, abs=0.01)
    assert found.quantile(0.95) == pytest.approx(np.quantile(values, 0.95), rel=0.02)
    for other in (counted(1), counted(3)):
        np.testing.assert_array_equal(other.points()[1], counts)


def test_all_channels_are_counted_where_samples_are_many_and_small():
    values = np.zeros((9000, 1024), np.float32)
    values[:, 700] = -np.arange(9000) / 100
    runs = [(slice(at, at + 500), {"x": values[at : at + 500]}) for at in range(0, 9000, 500)]
    wanted = {"histograms": ["x"], "means": [], "outputs": {}}
    found = capture(iter(runs), **wanted, samples=9000, on_batch=lambda done: None).histograms["x"]
    assert found.count < values.size
    assert found.quantile(5e-4) == pytest.approx(np.quantile(values, 5e-4), rel=0.05)
