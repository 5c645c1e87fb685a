import numpy as np
import pytest

from onnx_lapq.method.rounding.windows import (
    ConvolutionWindows,
    convolution_inputs,
    matrix_rows,
    spread_positions,
    transposed_inputs,
)


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
    at = ConvolutionWindows((3, 2), strides, pads, dilations, groups)
    rows = convolution_inputs(images, at, first=0, wanted=1000)
    ours = np.einsum("gnj,gkj->ngk", rows, weights.reshape(groups, 8 // groups, -1))
    expected = convolve(images, weights, strides, pads, dilations, groups)
    np.testing.assert_allclose(ours.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def transposed(image, weights, strides, pads, dilations, groups):
    """A transposed convolution of one image by loops, [channels, *spatial]; end pads may be negative."""
    inputs, outputs, high, wide = weights.shape
    size = [
        (length - 1) * stride + (taps - 1) * dilation + 1
        for length, stride, taps, dilation in zip(
            image.shape[1:], strides, (high, wide), dilations, strict=True
        )
    ]
    whole = np.zeros((groups * outputs, size[0] + 4, size[1] + 4))
    for c, i, j in np.ndindex(image.shape):
        out = c // (inputs // groups) * outputs
        for u, v in np.ndindex(high, wide):
            at = i * strides[0] + u * dilations[0], j * strides[1] + v * dilations[1]
            whole[out : out + outputs, *at] += image[c, i, j] * weights[c, :, u, v]
    return whole[:, pads[0] : size[0] - pads[2], pads[1] : size[1] - pads[3]]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    ("strides", "pads", "dilations"),
    [((1, 1), (0, 0, 0, 0), (1, 1)), ((2, 2), (1, 0, 0, -1), (1, 1)), ((3, 1), (2, 1, 3, 1), (2, 1))],
)
def test_windows_times_weights_is_the_transposed_convolution(groups, strides, pads, dilations):
    random = np.random.default_rng(0)
    images = random.standard_normal((2, 4, 5, 4)).astype(np.float32)
    weights = random.standard_normal((4, 3, 3, 2)).astype(np.float32)
    at = ConvolutionWindows((3, 2), strides, pads, dilations, groups)
    rows = transposed_inputs(images, at, first=0, wanted=1000)
    kernels = weights.reshape(groups, 4 // groups, 3, 6).transpose(0, 2, 1, 3).reshape(groups, 3, -1)
    ours = np.einsum("gnj,gkj->gnk", rows, kernels)
    expected = np.stack([transposed(image, weights, strides, pads, dilations, groups) for image in images])
    outputs = expected.reshape(2, groups, 3, -1).transpose(1, 0, 3, 2).reshape(ours.shape)
    np.testing.assert_allclose(ours, outputs, rtol=1e-4, atol=1e-5)


def test_positions_are_as_many_as_wanted_in_every_sample():
    chosen = spread_positions(first=5, samples=3, positions=100, wanted=7)
    assert len(set(chosen)) == 21
    assert [np.sum(chosen // 100 == sample) for sample in range(3)] == [7, 7, 7]


def test_positions_of_a_sample_do_not_depend_on_the_batch():
    whole = spread_positions(first=0, samples=4, positions=50, wanted=5)
    last = spread_positions(first=3, samples=1, positions=50, wanted=5)
    np.testing.assert_array_equal(whole[15:] - 150, last)


@pytest.mark.parametrize("wanted", [1, 3, 20, 1000])
@pytest.mark.parametrize("at_once", [1, 500, 1 << 18])
def test_windows_of_a_sample_do_not_depend_on_the_batch(monkeypatch, wanted, at_once):
    images = np.random.default_rng(0).standard_normal((30, 4, 6, 7)).astype(np.float32)
    at = ConvolutionWindows((3, 2), (1, 2), (1, 0, 1, 1), (1, 1), 2)
    alone = [convolution_inputs(image[None], at, index, wanted) for index, image in enumerate(images)]
    monkeypatch.setattr("onnx_lapq.method.rounding.windows._AT_ONCE", at_once)
    for first in (0, 13):
        together = convolution_inputs(images[first:], at, first, wanted)
        np.testing.assert_array_equal(together, np.concatenate(alone[first:], axis=1))


def test_few_windows_lie_at_the_same_positions_in_samples_side_by_side_and_at_others_elsewhere():
    numbers = np.tile(np.arange(100, dtype=np.float32).reshape(1, 1, 10, 10), (40, 1, 1, 1))
    at = ConvolutionWindows((1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1)
    seen = convolution_inputs(numbers, at, first=0, wanted=2)[0, :, 0].reshape(40, 2)
    np.testing.assert_array_equal(seen[:8], np.tile(seen[:1], (8, 1)))
    assert len(np.unique(seen, axis=0)) == 5


def test_all_positions_are_taken_where_there_are_few():
    np.testing.assert_array_equal(spread_positions(0, 2, 3, wanted=10), np.arange(6))


def test_rows_of_a_matrix_product_keep_the_sample_order():
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(matrix_rows(values, first=0, wanted=3)[0], values.reshape(6, 4))


@pytest.mark.parametrize("inputs", [convolution_inputs, transposed_inputs])
def test_a_batch_without_images_has_no_windows(inputs):
    at = ConvolutionWindows((3, 2), (1, 1), (1, 1, 1, 1), (1, 1), 2)
    assert inputs(np.zeros((0, 4, 7, 6), np.float32), at, first=0, wanted=5).shape == (2, 0, 12)
    assert matrix_rows(np.zeros((0, 5, 3), np.float32), 0, 5).shape == (1, 0, 3)
