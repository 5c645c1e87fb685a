import numpy as np
import pytest

from onnx_lapq.calibration.stored import GroupedSamples, StoredInput, StoredSamples
from onnx_lapq.network.padding import PaddingMasks, has_tokens, padding_mask

REAL = [np.array([[1, 1, 0], [1, 0, 0]], bool), np.array([[1, 1, 1, 1, 0]], bool)]


def samples(*masks: np.ndarray) -> GroupedSamples:
    parts = [StoredSamples({"attention_mask": StoredInput(mask)}, None, {}) for mask in masks]
    return GroupedSamples(parts, None, {})


def added(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 0, np.finfo(np.float32).min).astype(np.float32)


@pytest.mark.parametrize("given", [lambda mask: mask.astype(np.int64), added])
@pytest.mark.parametrize("axes", [(), (1,), (1, 2)])
def test_padding_is_known_by_ones_and_zeros_and_by_what_is_added_to_scores(given, axes):
    mask = np.expand_dims(given(REAL[0]), axes)
    np.testing.assert_array_equal(padding_mask(samples(mask)), REAL[0])


def test_samples_of_several_shapes_have_a_mask_each():
    held = samples(*(added(mask)[:, np.newaxis] for mask in REAL))
    blocks = [slice(0, 1), slice(1, 2), slice(2, 3), slice(1, 3)]
    wanted = [REAL[0][:1], REAL[0][1:], REAL[1], None]
    masks = PaddingMasks(held)
    assert masks.has_any
    for block, mask in zip(blocks, wanted, strict=True):
        np.testing.assert_array_equal(masks.of(block), mask)
    assert padding_mask(held).shape == (1, 11)


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((2, 3)),
        np.zeros((2, 3)),
        np.array([[1, 0], [0, 0]]),
        np.array([[0.5, 1], [1, 1]]),
        np.array([[0, -1], [0, 0]]),
        np.eye(3)[np.newaxis],
    ],
)
def test_what_hides_nothing_or_all_of_a_sample_is_no_padding_mask(mask):
    assert padding_mask(samples(mask)) is None
    assert not has_tokens(samples(mask))
