import numpy as np
import pytest

from onnx_lapq.method.windows import convolution_inputs, matrix_inputs, spread_positions


def convolve(images, weights, strides, pads, dilations, groups):
    """A convolution by loops, [windows, output channels], windows in sample-major order."""
    padded = np.pad(images, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])])
    outputs, _, high, wide = weights.shape
    spans = [(size - 1) * dilation + 1 for size, dilation in zip((high, wide), dilations, strict=True)]
    rows = []
    for image in padded:
        for top in range(0, image.shape[1] - spans[0] + 1, strides[0]):
            for left in range(0, image.shape[2] - spans[1] + 1, strides[1]):
                window = image[:, top : top + spans[0] : dilations[0], left : left + spans[1] : dilations[1]]
                parts = np.split(window, groups)
                kernels = np.split(weights, groups)
                rows.append(
                    np.concatenate(
                        [np.einsum("ochw,chw->o", k, p) for k, p in zip(kernels, parts, strict=True)]
                    )
                )
    return np.array(rows).reshape(-1, outputs)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    ("strides", "pads", "dilations"), [((1, 1), (1, 1, 1, 1), (1, 1)), ((2, 1), (0, 1, 2, 0), (1, 2))]
)
def test_windows_times_weights_is_the_convolution(groups, strides, pads, dilations):
    random = np.random.default_rng(0)
    images = random.standard_normal((3, 4, 7, 6)).astype(np.float32)
    weights = random.standard_normal((8, 4 // groups, 3, 2)).astype(np.float32)
    rows = convolution_inputs(images, (3, 2), strides, pads, dilations, groups, first=0, wanted=1000)
    ours = np.einsum("gnj,gkj->ngk", rows, weights.reshape(groups, 8 // groups, -1))
    expected = convolve(images, weights, strides, pads, dilations, groups)
    np.testing.assert_allclose(ours.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_positions_are_as_many_as_wanted_in_every_sample():
    chosen = spread_positions(first=5, samples=3, positions=100, wanted=7)
    assert len(set(chosen)) == 21
    assert [np.sum(chosen // 100 == sample) for sample in range(3)] == [7, 7, 7]


def test_positions_of_a_sample_do_not_depend_on_the_batch():
    whole = spread_positions(first=0, samples=4, positions=50, wanted=5)
    last = spread_positions(first=3, samples=1, positions=50, wanted=5)
    np.testing.assert_array_equal(whole[15:] - 150, last)


def test_all_positions_are_taken_where_there_are_few():
    np.testing.assert_array_equal(spread_positions(0, 2, 3, wanted=10), np.arange(6))


def test_rows_of_a_matrix_product_keep_the_sample_order():
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(matrix_inputs(values, first=0, wanted=3)[0], values.reshape(6, 4))
