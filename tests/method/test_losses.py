import numpy as np
import pytest

from onnx_lapq.errors import CalibrationError, ConfigError, RunError
from onnx_lapq.method.loss_formulas import log_softmax
from onnx_lapq.method.losses import make_loss, output_loss
from onnx_lapq.method.parts import Part

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(6, 4)).astype(np.float32)
NOISY = SCORES + RNG.normal(size=(6, 4)).astype(np.float32) / 10
LABELS = np.array([0, 1, 2, 3, 0, 1])
ALL = slice(0, 6)


@pytest.mark.parametrize("name", ["kl", "cross-entropy", "mse"])
def test_subsets_get_the_losses_of_their_samples(name):
    loss = make_loss(name, [SCORES], LABELS)
    whole = loss([NOISY], ALL)
    assert whole.shape == (6,)
    assert whole.dtype == np.float64
    np.testing.assert_array_equal(loss([NOISY[2:5]], slice(2, 5)), whole[2:5])


@pytest.mark.parametrize("name", ["kl", "soft-kl", "mse"])
def test_equal_outputs_have_no_loss(name):
    np.testing.assert_array_equal(make_loss(name, [SCORES])([SCORES], ALL), np.zeros(6))


@pytest.mark.parametrize("classes", [4, 1])
def test_softened_it_is_the_divergence_of_divided_logits(classes):
    reference, output = SCORES[:, :classes], NOISY[:, :classes]
    divided = make_loss("kl", [reference / 1.5])([output / 1.5], ALL)
    softened = make_loss("soft-kl", [reference])([output], ALL)
    np.testing.assert_allclose(softened, 2.25 * divided, rtol=1e-5)
    assert not np.allclose(softened, make_loss("kl", [reference])([output], ALL), rtol=1e-2)


def test_several_outputs_are_summed():
    one = make_loss("mse", [SCORES])([NOISY], ALL)
    np.testing.assert_allclose(make_loss("mse", [SCORES, SCORES])([NOISY, NOISY], ALL), 2 * one)


@pytest.mark.parametrize("name", ["kl", "cross-entropy"])
def test_probabilities_are_worth_their_logits(name):
    def softmax(z):
        return np.exp(log_softmax(z)).astype(np.float32)

    logits = make_loss(name, [SCORES], LABELS)([NOISY], ALL)
    probabilities = make_loss(name, [softmax(SCORES)], LABELS)([softmax(NOISY)], ALL)
    np.testing.assert_allclose(probabilities, logits, rtol=1e-3)


def test_probabilities_quantized_to_zero_have_a_finite_loss():
    reference = np.array([[0.5, 0.5], [1.0, 0.0]], np.float32)
    quantized = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32)
    assert np.isfinite(make_loss("kl", [reference])([quantized], slice(0, 2))).all()


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_one_logit_makes_the_losses_binary(shape):
    reference, output = SCORES[:, 0].reshape(shape), NOISY[:, 0].reshape(shape)
    two = [np.stack([z.reshape(-1), np.zeros(6)], axis=1) for z in (reference, output)]
    np.testing.assert_allclose(
        make_loss("kl", [reference])([output], ALL), make_loss("kl", [two[0]])([two[1]], ALL), atol=1e-12
    )
    labels = np.array([0, 1, 0, 1, 1, 0])
    binary = make_loss("binary-cross-entropy", [reference], labels)([output], ALL)
    np.testing.assert_array_equal(make_loss("cross-entropy", [reference], labels)([output], ALL), binary)
    np.testing.assert_allclose(make_loss("cross-entropy", [two[0]], 1 - labels)([two[1]], ALL), binary)


def test_one_sigmoid_output_is_worth_its_logit():
    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    logits = make_loss("kl", [SCORES[:, :1]])([NOISY[:, :1]], ALL)
    np.testing.assert_allclose(
        make_loss("kl", [sigmoid(SCORES[:, :1])])([sigmoid(NOISY[:, :1])], ALL), logits, rtol=1e-3
    )


def test_maps_have_their_classes_on_axis_1_and_sequences_on_the_last():
    maps = RNG.normal(size=(2, 3, 4, 5))
    assert make_loss("cross-entropy", [maps], np.zeros((2, 4, 5), int))([maps], slice(0, 2)).shape == (2,)
    sequences = RNG.normal(size=(2, 7, 3))
    assert make_loss("cross-entropy", [sequences], np.zeros((2, 7), int))([sequences], slice(0, 2)).shape == (
        2,
    )
    with pytest.raises(CalibrationError):
        make_loss("cross-entropy", [sequences], np.zeros((2, 3), int))


def test_positions_without_a_class_do_not_count():
    rng = np.random.default_rng(3)
    maps, other = rng.normal(size=(2, 2, 3, 4, 5))
    labels = rng.integers(0, 3, (2, 4, 5))
    labels[0, :, 2:] = -100
    found = make_loss("cross-entropy", [maps], labels)([other], ALL)
    left = make_loss("cross-entropy", [maps[:1, ..., :2]], labels[:1, ..., :2])([other[:1, ..., :2]], ALL)
    np.testing.assert_allclose(found[0], left[0])
    labels[1] = -100
    assert make_loss("cross-entropy", [maps], labels)([other], ALL)[1] == 0
    with pytest.raises(CalibrationError, match="all -100"):
        make_loss("cross-entropy", [maps], np.full_like(labels, -100))


def test_padding_has_no_class_whatever_its_label():
    rng = np.random.default_rng(3)
    tags, other = rng.normal(size=(2, 2, 5, 3))
    labels = rng.integers(0, 3, (2, 5))
    labels[0, 1], labels[:, 3:] = -100, 7
    weights = np.array([[1.0, 1, 1, 0, 0]] * 2)
    found = output_loss(Part("y", "cross-entropy", 2), tags, labels, weights)(other, ALL)
    left = output_loss(Part("y", "cross-entropy", 2), tags[:, :3], labels[:, :3])(other[:, :3], ALL)
    np.testing.assert_allclose(found, left)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 5, 1)])
def test_labels_of_samples_and_of_single_logits_are_all_classes(shape):
    labels = np.ones(shape, int)
    labels[0] = -100
    for reference in (np.zeros(shape), np.zeros((4, 3, 1, 1))):
        with pytest.raises(CalibrationError, match=r"-100 of sample 0|do not fit"):
            make_loss("cross-entropy", [reference], labels)


@pytest.mark.parametrize(
    "labels", [None, LABELS[:5], LABELS + 1, LABELS - 1, LABELS + 0.5, np.array([np.nan] * 6)], ids=str
)
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(CalibrationError):
        make_loss("cross-entropy", [SCORES], labels)


def test_binary_loss_of_many_classes_is_refused():
    with pytest.raises(ConfigError, match="one logit"):
        make_loss("binary-cross-entropy", [SCORES], LABELS)


def test_unknown_loss_is_refused():
    with pytest.raises(ConfigError, match="choose one of kl"):
        make_loss("hinge", [SCORES])


def test_outputs_of_another_shape_are_an_error():
    with pytest.raises(RunError, match="shape"):
        make_loss("mse", [SCORES])([NOISY[:, :3]], ALL)


def test_reference_of_zeros_has_a_finite_loss():
    zeros = np.zeros((2, 3), np.float32)
    assert make_loss("mse", [zeros])([zeros + 1], slice(0, 2)).tolist() == [1.0, 1.0]


def test_outputs_that_overflowed_have_no_finite_loss_and_no_warning():
    broken = NOISY.copy()
    broken[0] = np.inf
    loss = make_loss("kl", [SCORES])([broken], ALL)
    assert not np.isfinite(loss[0])
    assert np.isfinite(loss[1:]).all()
