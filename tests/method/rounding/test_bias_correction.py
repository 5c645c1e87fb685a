import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import Builder

from onnx_lapq.errors import ModelError
from onnx_lapq.method.rounding.bias_correction import (
    mean_of_codes,
    mean_output,
    transposed_window_mean,
    window_mean,
)
from onnx_lapq.method.rounding.windows import ConvolutionWindows
from onnx_lapq.runtime.session import open_session, run


def brute_force_window_mean(image, kernel, strides, pads, dilations):
    axes = len(kernel)
    padded = np.pad(image, [(0, 0), *zip(pads[:axes], pads[axes:], strict=True)])
    reach = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel, strict=True)]
    starts = [
        range(0, size - extent + 1, stride)
        for size, extent, stride in zip(padded.shape[1:], reach, strides, strict=True)
    ]
    windows = [
        padded[(slice(None), *(slice(s, s + r, d) for s, r, d in zip(corner, reach, dilations, strict=True)))]
        for corner in itertools.product(*starts)
    ]
    return np.mean(windows, axis=0).reshape(-1)


@st.composite
def convolutions(draw):
    axes = draw(st.integers(1, 3))

    def numbers(low, high, size=axes):
        return draw(st.lists(st.integers(low, high), min_size=size, max_size=size))

    kernel, dilations = numbers(1, 3), numbers(1, 2)
    spatial = [
        size + dilation * (k - 1) for size, k, dilation in zip(numbers(1, 4), kernel, dilations, strict=True)
    ]
    image = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(draw(st.integers(1, 3)), *spatial))
    return image, kernel, numbers(1, 3), numbers(0, 2, 2 * axes), dilations


@settings(deadline=None)
@given(convolutions())
def test_window_mean_is_the_mean_over_all_windows(convolution):
    image, *lying = convolution
    means = window_mean(image, ConvolutionWindows(*lying, groups=1))
    np.testing.assert_allclose(means, brute_force_window_mean(*convolution), atol=1e-12)


def test_shifted_bias_restores_the_mean_output_of_a_grouped_convolution():
    rng = np.random.default_rng(0)
    images, error = rng.normal(size=(5, 4, 6, 7)) + 1, rng.normal(size=(6, 2, 3, 3))
    at = ConvolutionWindows((3, 3), (2, 1), (1, 1, 1, 1), (1, 1), groups=2)
    means = window_mean(images.mean(axis=0), at).reshape(2, -1)
    padded = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2]
    outputs = np.einsum(
        "gkcij,ngcyxij->gk", error.reshape(2, 3, 2, 3, 3), windows.reshape(5, 2, 2, *windows.shape[2:])
    )
    positions = 5 * windows.shape[2] * windows.shape[3]
    np.testing.assert_allclose(mean_output(error.reshape(6, -1), means), outputs.reshape(-1) / positions)


def test_shift_of_a_plain_layer_is_a_matrix_product():
    error, means = np.array([[1.0, 2.0], [0.0, -1.0]], np.float32), np.array([10.0, 1.0])
    assert mean_output(error, means).tolist() == [12.0, -1.0]


@pytest.mark.parametrize(("groups", "block"), [(1, 0), (3, 0), (1, 4), (1, 5)])
def test_mean_of_codes_times_scales_is_the_mean_output(groups, block):
    random = np.random.default_rng(0)
    codes = random.integers(-8, 8, (6, 12)).astype(np.int8)
    means, scale = random.standard_normal((groups, 12)), random.uniform(1, 2, (6, -(-12 // (block or 12))))
    weights = codes * np.repeat(scale, block or 12, axis=1)[:, :12]
    found = (mean_of_codes(codes, means, block).reshape(scale.shape) * scale).sum(axis=1)
    np.testing.assert_allclose(found, mean_output(weights, means), rtol=1e-12)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ModelError):
        mean_output(np.ones((3, 2)), np.ones(3))
    with pytest.raises(ModelError):
        mean_output(np.ones((3, 2)), np.ones((2, 2)))
    at = ConvolutionWindows((3,), (1,), (0, 0), (1,), groups=1)
    with pytest.raises(ModelError):
        window_mean(np.ones((1, 2, 2)), at)
    with pytest.raises(ModelError):
        window_mean(np.ones((1, 2)), at)


@pytest.mark.parametrize(
    ("strides", "pads", "dilations", "longer"),
    [
        ((1, 1), (0, 0, 0, 0), (1, 1), (0, 0)),
        ((2, 3), (1, 0, 2, 1), (1, 2), (1, 2)),
        ((3, 1), (1, 1, 0, 2), (2, 1), (0, 0)),
    ],
)
def test_a_transposed_window_mean_gives_the_mean_output(strides, pads, dilations, longer):
    random = np.random.default_rng(0)
    image = random.standard_normal((3, 5, 4)).astype(np.float32)
    weight = random.standard_normal((3, 2, 3, 2)).astype(np.float32)
    b = Builder()
    x = b.node(
        "ConvTranspose",
        ["x", b.constant(weight)],
        strides=strides,
        pads=pads,
        dilations=dilations,
        output_padding=longer,
    )
    (output,) = run(open_session(b.model({"x": [1, 3, 5, 4]}, {x: [1, 2, "h", "w"]})), {"x": image[None]})
    less = (*pads[:2], pads[2] - longer[0], pads[3] - longer[1])
    means = transposed_window_mean(image, ConvolutionWindows((3, 2), strides, less, dilations, groups=1))
    rows = weight.transpose(1, 0, 2, 3).reshape(2, -1)
    np.testing.assert_allclose(mean_output(rows, means), output.mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-6)
