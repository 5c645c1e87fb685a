"""How close outputs are, part by part: the worst of them counts."""

import numpy as np
import pytest

from onnx_lapq.method.closeness import compare_outputs, untested, worst
from onnx_lapq.method.parts import Part

RNG = np.random.default_rng(0)
BOXES = Part("head", "row-mse", 1, (0, 1, 2, 3))
SCORES = Part("head", "binary-kl", 1, (4, 5))
HEAD = np.concatenate(
    [320 + 90 * RNG.standard_normal((8, 4, 50)), RNG.uniform(size=(8, 2, 50))], axis=1
).astype(np.float32)


def score(part, wanted, found, mask=None):
    return compare_outputs([part], {part.output: wanted}, {part.output: found}, mask)[0]


def test_a_model_without_scores_is_worse_than_one_with_boxes_that_are_off():
    without, off = HEAD.copy(), HEAD.copy()
    without[:, 4:] = 0
    off[:, :4] *= 1.01
    first, other = (
        worst(compare_outputs([BOXES, SCORES], {"head": HEAD}, {"head": found})) for found in (without, off)
    )
    assert (first.label, first.snr_db) == ("head[4:6]", pytest.approx(0, abs=1e-6))
    assert first.lowest_db < 0 < 15 < other.lowest_db < other.snr_db == pytest.approx(40, abs=0.1)


def test_the_worst_row_is_named_by_its_position_in_the_output():
    dead = HEAD.copy()
    dead[:, 5] = dead[:, 5].mean()
    found = score(SCORES, HEAD, dead)
    assert (found.worst_row, found.worst_db) == (5, pytest.approx(0, abs=1e-5))


def test_rows_that_say_nothing_are_not_the_worst():
    quiet, noisy = HEAD.copy(), HEAD.copy()
    quiet[:, 5] *= 1e-3
    noisy[:, 4:6] = np.clip(quiet[:, 4:6] + 0.01, 0, 1)
    assert score(SCORES, quiet, noisy).worst_row == 4
    quiet[:, 3] *= 1e-6
    noisy[:, :4] = quiet[:, :4] + np.array([1, 2, 1, 1]).reshape(1, 4, 1)
    assert score(BOXES, quiet, noisy).worst_row == 1


def test_agreement_is_that_of_decisions():
    logits = np.eye(4, dtype=np.float32)
    other = logits[[0, 1, 2, 0]]
    assert score(Part("y", "kl", 1), logits, other).agreement == 0.75
    assert score(Part("y", "kl"), logits[0] - 0.5, other[1] - 0.5).agreement == 0.5
    assert score(
        Part("y", "binary-kl"), np.float32([0.9, 0.9, 0, 0]), np.float32([0.9, 0, 0, 0])
    ).agreement == (pytest.approx(2 / 3))
    assert score(Part("y", "binary-kl"), np.zeros(4), np.zeros(4)).agreement is None
    assert score(Part("y", "mse"), logits, other).agreement is None


def test_vectors_agree_by_their_cosine():
    vectors = RNG.standard_normal((5, 32)).astype(np.float32)
    assert score(Part("y", "direction", 1), vectors, 2 * vectors).agreement == pytest.approx(1)
    assert score(Part("y", "direction", 1), vectors, -vectors).agreement == pytest.approx(-1)


def test_padding_does_not_count():
    hidden = RNG.standard_normal((4, 6, 8)).astype(np.float32)
    mask = np.arange(6) < np.array([[1], [3], [5], [2]])
    padded = np.where(mask[..., None], hidden, 99)
    found = score(Part("h", "direction", 2), hidden, padded, mask)
    assert (found.snr_db, found.agreement) == (np.inf, pytest.approx(1))
    assert score(Part("h", "direction", 2), hidden, padded).snr_db < 0


def test_outputs_that_are_no_numbers_are_the_worst_and_equal_ones_the_best():
    broken = np.full_like(HEAD, np.nan)
    assert score(BOXES, HEAD, broken).lowest_db == -np.inf
    equal = score(BOXES, HEAD, HEAD)
    assert (equal.snr_db, equal.worst_row, equal.lowest_db) == (np.inf, None, np.inf)
    assert worst(compare_outputs([BOXES], {"head": HEAD}, {"head": HEAD})) is None


def test_outputs_of_another_shape_or_none_at_all_are_not_compared():
    assert score(BOXES, HEAD, HEAD[:, :, :9]).snr_db is None
    assert untested([BOXES]) == compare_outputs([BOXES], {"head": HEAD}, {})
