"""Accuracy by class labels of samples and of positions, and labels that give none."""

import json

import numpy as np
import onnx
import pytest
from commands import FAST, run
from small_models import Builder

from onnx_lapq.errors import CalibrationError
from onnx_lapq.method.parts import Part
from onnx_lapq.runtime.session import open_file
from onnx_lapq.runtime.session import run as run_session
from onnx_lapq.study.accuracy import find_labelled

QUANTIZE = ("tagger.onnx", "calib.npz", "-o", "out.onnx", *FAST)
RANDOM = np.random.default_rng(0)


def found(scores, labels, mask=None):
    return find_labelled([Part("y", "mse")], {"y": scores}, labels, mask).accuracy({"y": scores})


@pytest.mark.parametrize("axis", [1, 3])
def test_positions_have_their_classes_along_the_axis_that_the_labels_lack(axis):
    scores = RANDOM.standard_normal((8, *np.insert([5, 6], axis - 1, 7))).astype(np.float32)
    labels = scores.argmax(axis)
    labels[0] = (labels[0] + 1) % 7
    assert found(scores, labels).top1 == pytest.approx(7 / 8)
    assert 7 / 8 <= found(scores, labels).top5 <= 1
    logits = np.moveaxis(scores, axis, -1).astype(np.float64)
    chosen = np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    wanted = (np.log(np.exp(logits).sum(-1)) - chosen).mean()
    assert found(scores, labels).cross_entropy == pytest.approx(wanted)


def test_a_mean_over_positions_does_not_depend_on_how_many_are_taken_at_once(monkeypatch):
    scores = RANDOM.standard_normal((9, 5, 7)).astype(np.float32)
    labels = RANDOM.integers(0, 7, (9, 5))
    at_once = found(scores, labels)
    monkeypatch.setattr("onnx_lapq.study.accuracy._CHUNK", 4)
    bit_by_bit = found(scores, labels)
    assert (bit_by_bit.top1, bit_by_bit.top5) == pytest.approx((at_once.top1, at_once.top5))
    assert bit_by_bit.cross_entropy == pytest.approx(at_once.cross_entropy)


def test_padding_and_positions_without_a_class_do_not_count():
    scores = RANDOM.standard_normal((4, 6, 3)).astype(np.float32)
    labels = scores.argmax(-1)
    mask = np.ones((4, 6), bool)
    labels[:, 5], mask[:, 5] = (labels[:, 5] + 1) % 3, False
    assert found(scores, labels).top1 == pytest.approx(5 / 6)
    assert found(scores, labels, mask).top1 == 1
    labels[:, 5] = -100
    assert found(scores, labels).top1 == 1


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.full((4, 6), 3), "go from 3 to 3, but the classes of output 'y' are 0..2"),
        (np.full((4, 6), -1), "go from -1 to -1"),
        (np.full((4, 6), -100), "are all -100"),
        (np.zeros((4, 5), int), "are no class numbers of an output; give one for each sample"),
        (np.full((4, 6), 0.5), "are no class numbers of an output"),
        (np.zeros(4, int), "one label for each sample, but no output with scores of classes for a sample"),
    ],
)
def test_labels_that_fit_no_output_are_said_in_words(labels, words):
    with pytest.raises(CalibrationError) as error:
        found(np.zeros((4, 6, 3), np.float32), labels)
    assert words in str(error.value)


def test_a_label_of_a_sample_that_is_no_class_is_said_in_words():
    scores = RANDOM.standard_normal((4, 3)).astype(np.float32)
    with pytest.raises(CalibrationError, match=r"label 3 of sample 2 is outside 0\.\.2"):
        find_labelled([Part("y", "kl", 1)], {"y": scores}, np.array([0, 1, 3, 2]), None)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A folder with a model of class scores for tokens with a mask; 3 of 20 samples have wrong labels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    b = Builder()
    kept = b.node("Mul", ["x", b.node("Unsqueeze", ["mask", b.constant(np.array([2]))])])
    hidden = b.relu(b.node("MatMul", [kept, b.weight(8, 16)]))
    b.node("MatMul", [hidden, b.weight(16, 9)], "tags")
    inputs = {"x": ["N", 6, 8], "mask": ["N", 6]}
    onnx.save(b.model(inputs, {"tags": ["N", 6, 9]}), "tagger.onnx")
    mask = np.ones((20, 6), np.float32)
    mask[:, 4:] = 0
    samples = {"x": 9 * RANDOM.standard_normal((20, 6, 8)).astype(np.float32), "mask": mask}
    labels = run_session(open_file("tagger.onnx"), samples)[0].argmax(-1)
    labels[:3] = (labels[:3] + 1) % 9
    labels[:, 4:] = 8
    np.savez("calib.npz", labels=labels, **samples)
    np.savez("odd.npz", labels=labels[:, :5], **samples)
    (tmp_path / "token_metric.py").write_text(
        "def right(outputs, reference, labels):\n"
        "    assert labels.shape == (20, 5) and labels.dtype.kind == 'i' and labels.max() == 8\n"
        "    return 1.0\n"
    )
    return tmp_path


def test_a_limit_holds_on_the_accuracy_of_tokens(job):
    result = run(*QUANTIZE, "--test", "calib.npz", "--min-accuracy", "0.8", "--max-drop", "0.1")
    assert result.exit_code == 0, result.output
    before, after = json.loads((job / "out.onnx.report.json").read_text())["test"]
    assert before["top1"] == pytest.approx(0.85)
    assert 0.75 < after["top1"] <= before["top5"] <= 1
    missed = run(*QUANTIZE, "--test", "calib.npz", "--min-accuracy", "0.86")
    assert missed.exit_code == 3
    assert "top-1 accuracy of the float model is 0.8500" in missed.stderr


def test_labels_that_cannot_be_used_are_a_note_where_no_accuracy_is_asked_for(job):
    assert run("tagger.onnx", "odd.npz", "-o", "out.onnx", *FAST).exit_code == 0
    result = run(*QUANTIZE, "--test", "odd.npz", "--min-snr", "3")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("accuracy is left out: labels of shape [20, 5] are no class numbers") == 1
    assert json.loads((job / "out.onnx.report.json").read_text())["test"][0]["top1"] is None
    scored = run("evaluate", "tagger.onnx", "--data", "odd.npz")
    assert (scored.exit_code, scored.stderr.count("accuracy is left out")) == (0, 1)


@pytest.mark.parametrize("limit", ["--max-drop", "--min-accuracy"])
def test_labels_that_cannot_be_used_are_refused_where_accuracy_is_asked_for(job, limit):
    result = run(*QUANTIZE, "--test", "odd.npz", limit, "0.1")
    assert result.exit_code == 2
    assert "odd.npz: there is no accuracy: labels of shape [20, 5] are no class numbers" in result.stderr
    assert not (job / "out.onnx").exists()


def test_a_metric_gets_labels_of_positions_as_they_are(job):
    result = run("evaluate", "tagger.onnx", "--data", "odd.npz", "--metric", "token_metric:right", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["metric"] == 1
    assert "accuracy is left out" not in result.stderr
