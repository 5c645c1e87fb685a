"""What the loss looks at: decided from the values of outputs and their last operators."""

import numpy as np
import pytest

from onnx_lapq.method.parts import Part, choose_parts

RNG = np.random.default_rng(0)
DENSE, SIGMOID, CONV = frozenset({"Gemm"}), frozenset({"Sigmoid"}), frozenset({"Conv"})


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def softmax(z: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(z - z.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def chosen(values: np.ndarray, ends: frozenset[str] = DENSE, **options: bool) -> list[Part]:
    return list(choose_parts({"y": values}, {"y": ends}, **options))


def one(loss: str, axis: int | None = None) -> list[Part]:
    return [Part("y", loss, axis)]


def confident(*shape: int) -> np.ndarray:
    """Logits of which one stands out."""
    z = normal(*shape)
    np.put_along_axis(z, RNG.integers(0, shape[-1], (*shape[:-1], 1)), 9.0, -1)
    return z


@pytest.mark.parametrize("shape", [(20,), (20, 1), (20, 1, 1, 1)])
def test_a_single_logit_is_a_probability_and_an_age_is_not(shape):
    assert chosen(normal(*shape)) == chosen(sigmoid(normal(*shape))) == one("kl")
    assert chosen(40 + 5 * normal(*shape)) == one("row-mse")


def test_rows_that_sum_to_one_are_classes_along_their_axis():
    z = normal(4, 6, 5, 5)
    assert chosen(softmax(z, 1), CONV) == one("kl", 1)
    assert chosen(softmax(z, 3), CONV) == one("kl", 3)
    assert chosen(np.log(softmax(normal(8, 12, 30))), CONV) == one("kl", 2)
    assert chosen(softmax(normal(8, 40))) == one("kl", 1)


@pytest.mark.parametrize("shape", [(20, 10), (20, 300), (6, 12, 100)])
def test_logits_of_a_classifier_stand_out(shape):
    assert chosen(confident(*shape)) == one("kl", len(shape) - 1)
    assert chosen(confident(*shape), soft=True) == one("soft-kl", len(shape) - 1)


def test_scores_that_do_not_exclude_each_other_end_in_a_sigmoid():
    scores = sigmoid(normal(6, 1, 8, 8))
    assert chosen(scores, SIGMOID) == one("binary-kl")
    assert chosen(scores, CONV) == one("mse")


@pytest.mark.parametrize("shape", [(20, 384), (20, 512), (20, 1, 1, 96)])
@pytest.mark.parametrize("scale", [0.05, 1.0, 5.0])
def test_an_embedding_is_no_class_score(shape, scale):
    axis = len(shape) - 1
    assert chosen(normal(*shape, scale=scale)) == one("direction", axis)
    assert chosen(normal(*shape, scale=scale), frozenset({"Div"})) == one("direction", axis)


def test_hidden_states_are_vectors():
    hidden = normal(4, 12, 64)
    assert chosen(hidden, frozenset({"LayerNormalization"})) == one("direction", 2)
    assert chosen(hidden, frozenset({"Add"}), tokens=True) == one("direction", 2)
    assert chosen(hidden, frozenset({"Add"})) == one("mse")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("ends", [frozenset({"Mul", "Sigmoid"}), frozenset({"Gather"})])
def test_boxes_beside_scores_are_two_parts(transposed, ends):
    output = np.concatenate([320 + normal(4, 4, 50, scale=99), sigmoid(normal(4, 3, 50) - 5)], axis=1)
    axis = 2 if transposed else 1
    found = chosen(np.swapaxes(output, 1, 2) if transposed else output, ends)
    assert found == [Part("y", "row-mse", axis, (0, 1, 2, 3)), Part("y", "binary-kl", axis, (4, 5, 6))]


def test_numbers_of_their_own_are_seen_row_by_row():
    landmarks = 100 + normal(20, 136, scale=5)
    assert chosen(landmarks) == chosen(normal(20, 6, scale=0.1)) == one("row-mse", 1)
    maps = normal(4, 5, 6, 6) * np.array([100, 1, 1, 1, 0.1]).reshape(1, 5, 1, 1)
    assert chosen(maps, CONV) == one("row-mse", 1)


def test_pictures_and_features_are_squared_errors():
    assert chosen(np.abs(normal(4, 3, 8, 8, scale=99)), CONV) == one("mse")
    assert chosen(normal(4, 2, 8, 8, scale=9), CONV) == one("mse")
    assert chosen(np.zeros((4, 5), np.int64)) == one("mse")


def test_what_only_passes_on_an_input_has_no_part():
    outputs = {"ids": np.zeros((8, 5), np.int64), "y": confident(8, 10)}
    assert choose_parts(outputs, {"ids": frozenset(), "y": DENSE}) == (Part("y", "kl", 1),)
    assert choose_parts({"ids": outputs["ids"]}, {"ids": frozenset()}) == (Part("ids", "mse"),)


def test_few_coordinates_are_no_logits_though_their_softmax_is_sure():
    random = np.random.default_rng(0)
    corners = np.linspace(-5, 86, 10) + random.normal(0, 4, (64, 10))
    assert choose_parts({"landmarks": corners}, {"landmarks": DENSE})[0].loss == "row-mse"
    one_class = np.where(np.arange(10) == 3, 12, -1) + random.normal(0, 1.5, (64, 10))
    assert choose_parts({"scores": one_class}, {"scores": DENSE})[0].loss == "kl"
