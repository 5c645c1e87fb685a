import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from onnx_lapq.method.loss_formulas import (
    binary_cross_entropy,
    binary_divergence,
    binary_kl,
    cross_entropy,
    direction,
    divergence,
    kl_divergence,
    log_softmax,
    normalised_mse,
)

LOGITS = npst.arrays(np.float32, (3, 5), elements=st.floats(-1000, 1000, width=32))
SINGLE = npst.arrays(np.float32, 4, elements=st.floats(-1000, 1000, width=32))


def softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


@given(LOGITS, LOGITS)
def test_kl_is_not_negative_and_zero_for_equal_outputs(output, reference):
    assert (kl_divergence(output, log_softmax(reference)) >= 0).all()
    assert (kl_divergence(reference, log_softmax(reference)) == 0).all()


def test_kl_is_its_definition():
    rng = np.random.default_rng(0)
    output, reference = rng.normal(size=(2, 4, 6))
    p, q = softmax(reference), softmax(output)
    np.testing.assert_allclose(kl_divergence(output, log_softmax(reference)), (p * np.log(p / q)).sum(axis=1))


def test_divergences_of_probabilities_are_those_of_their_logits():
    output, reference = np.random.default_rng(0).normal(size=(2, 4, 3, 6))
    p, q = softmax(reference), softmax(output)
    wanted = kl_divergence(output, log_softmax(reference))
    np.testing.assert_allclose(divergence(q, p), wanted)
    np.testing.assert_allclose(divergence(1.1 * q, p), wanted)
    np.testing.assert_allclose(divergence(np.moveaxis(q, 2, 1), np.moveaxis(p, 2, 1), 1), wanted)
    assert (divergence(p, p) < 1e-15).all()
    single = [1 / (1 + np.exp(-z)) for z in (output, reference)]
    np.testing.assert_allclose(binary_divergence(*single), binary_kl(output, reference))
    assert (binary_divergence(p, p) == 0).all()


def test_weights_of_positions_leave_some_out():
    output, reference = np.random.default_rng(0).normal(size=(2, 2, 5, 6))
    weights = np.array([[1.0, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    both = direction(output, reference, 2, weights)
    for sample, count in ((0, 3), (1, 1)):
        np.testing.assert_allclose(
            both[sample],
            direction(output[sample : sample + 1, :count], reference[sample : sample + 1, :count]),
        )


def test_small_divergences_keep_their_digits():
    reference = np.array([[1.0, 2.0, 3.0]])
    shift = np.array([[1e-5, 0.0, -1e-5]])
    p = softmax(reference)
    second_order = 0.5 * ((p * shift**2).sum() - (p * shift).sum() ** 2)
    assert kl_divergence(reference + shift, log_softmax(reference))[0] == pytest.approx(
        second_order, rel=1e-3
    )


def test_maps_are_averaged_over_positions():
    rng = np.random.default_rng(0)
    output, reference = rng.normal(size=(2, 3, 5, 2, 2))
    each = [
        kl_divergence(output[:, :, y, x], log_softmax(reference[:, :, y, x])) for y in (0, 1) for x in (0, 1)
    ]
    np.testing.assert_allclose(
        kl_divergence(output, log_softmax(reference, 1), axis=1), np.mean(each, axis=0)
    )


def test_cross_entropy_is_minus_the_log_likelihood():
    logits = np.array([[0.0, np.log(3.0)], [1000.0, 0.0]])
    np.testing.assert_allclose(cross_entropy(logits, np.array([1, 0])), [-np.log(0.75), 0], atol=1e-12)


def test_cross_entropy_of_a_map_takes_a_label_per_position():
    logits = np.zeros((2, 4, 3, 3))
    np.testing.assert_allclose(cross_entropy(logits, np.zeros((2, 3, 3), int), axis=1), np.log(4))


def test_binary_cross_entropy_is_stable_at_large_logits():
    losses = binary_cross_entropy(np.array([1000.0, -1000.0, 0.0]), np.array([1, 1, 0]))
    np.testing.assert_allclose(losses, [0, 1000, np.log(2)])


@given(SINGLE, SINGLE)
def test_binary_kl_is_the_two_class_kl(output, reference):
    two = [np.stack([z, np.zeros_like(z)], axis=1) for z in (output, reference)]
    expected = kl_divergence(two[0], log_softmax(two[1]))
    np.testing.assert_allclose(binary_kl(output, reference), expected, atol=1e-9)


def test_mse_is_in_units_of_the_reference_power():
    reference = np.array([[3.0, 4.0], [0.0, 5.0]])
    assert normalised_mse(reference + 1, reference, power=12.5).tolist() == [0.08, 0.08]
