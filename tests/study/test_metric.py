"""A metric of the user's own: found by name, checked, and in the place of the accuracy."""

import json

import numpy as np
import onnx
import pytest
from commands import run
from small_models import feeds, residual
from streaming import lines, reader

from onnx_lapq.calibration.capture import Block
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.errors import ConfigError, RunError
from onnx_lapq.study.metric import Metric, find_metric, over_shapes
from onnx_lapq.study.scores import evaluate_models

OUTPUTS = {"y": np.zeros((4, 3), np.float32)}
MODULE = """
import numpy as np

number = 3

def right(outputs, reference, labels):
    return outputs["logits"].argmax(1) == (reference["logits"].argmax(1) if labels is None else labels)

def broken(outputs, reference, labels):
    raise ValueError("no boxes")
"""
RUN = (
    "model.onnx",
    "calib.npz",
    "-o",
    "out.onnx",
    "-w",
    "2",
    "-a",
    "2",
    "--max-evals",
    "2",
    "--p-grid",
    "2,3,4",
)


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "own_metric", raising=False)
    (tmp_path / "own_metric.py").write_text(MODULE)
    onnx.save(residual(), "model.onnx")
    np.savez("calib.npz", **feeds(residual(), 20))
    return tmp_path


@pytest.mark.parametrize("found", [0.5, np.float32(0.5), [0, 1, 1, 0], np.array([True, True, False, False])])
def test_one_number_or_one_for_each_sample(found):
    assert Metric("m", lambda *arguments: found).of(OUTPUTS, OUTPUTS, None) == 0.5


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "for 4 samples; return one finite number"),
        ("good", "gave a str for 4 samples"),
        ([1, 2], "gave a list for 4 samples"),
        (np.zeros((4, 1)), "gave an array of shape (4, 1)"),
        (float("nan"), "gave nan for 4 samples"),
    ],
)
def test_anything_else_is_refused(found, words):
    with pytest.raises(ConfigError, match="metric 'm' gave") as error:
        Metric("m", lambda *arguments: found).of(OUTPUTS, OUTPUTS, None)
    assert words in str(error.value)


def test_samples_of_several_shapes_are_judged_shape_by_shape_and_count_the_same():
    seen = []

    def columns(outputs, reference, labels):
        letters = outputs["letters"]
        assert reference["letters"].shape == letters.shape
        seen.append(letters.shape)
        return [letters.shape[1]] * len(letters)

    scores = evaluate_models([reader()] * 2, lines(7), Preprocessing(), metric=Metric("m", columns))
    assert sorted(seen[:3]) == [(2, 3, 5), (2, 5, 5), (3, 4, 5)]
    assert [score.metric for score in scores] == pytest.approx([4, 4])


def test_samples_whose_outputs_have_one_shape_are_judged_at_once():
    seen = []
    blocks = [Block(slice(0, 1), {"y": np.zeros((1, 3))}), Block(slice(1, 3), {"y": np.ones((2, 3))})]

    def mean(outputs, reference, labels):
        seen.append(labels.tolist())
        return outputs["y"].mean()

    assert over_shapes(Metric("m", mean), blocks, blocks, np.arange(3)) == pytest.approx(2 / 3)
    assert seen == [[0, 1, 2]]


def test_a_function_that_works_in_place_changes_nothing_for_others():
    blocks = [Block(slice(0, 3), {"y": np.ones((3, 3))})]
    labels = np.arange(3)

    def in_place(outputs, reference, labels):
        for values in (outputs["y"], reference["y"], labels):
            values *= 0
        return 1.0

    over_shapes(Metric("m", in_place), blocks, blocks, labels)
    assert blocks[0].outputs["y"].all()
    assert labels.tolist() == [0, 1, 2]


def test_what_the_function_raises_is_said(job):
    with pytest.raises(RunError, match="metric 'own_metric:broken' failed: ValueError: no boxes"):
        find_metric("own_metric:broken").of(OUTPUTS, OUTPUTS, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("own_metric", "give package.module:function"),
        ("nowhere:right", "cannot be imported: No module named 'nowhere'; the module has to lie"),
        ("own_metric:left", "cannot be imported: module 'own_metric' has no attribute 'left'; correct it"),
        ("own_metric:number", "is of type int; name a function"),
    ],
)
def test_a_metric_that_is_not_there_is_refused_before_the_run(job, text, words):
    result = run(*RUN, "--test", "calib.npz", "--metric", text)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_gate_holds_for_the_metric(job):
    gate = ("--test", "calib.npz", "--metric", "own_metric:right")
    assert run(*RUN, *gate, "--max-drop", "1").exit_code == 0
    before, after = json.loads((job / "out.onnx.report.json").read_text())["test"]
    assert before["metric"] == 1 > after["metric"]
    missed = run(*RUN, *gate, "--max-drop", "0")
    assert missed.exit_code == 3
    assert f"the metric falls by {1 - after['metric']:.4f}" in missed.stderr


def test_evaluate_and_compare_show_it(job):
    metric = ("--metric", "own_metric:right")
    scored = run("evaluate", "model.onnx", "--data", "calib.npz", *metric)
    assert "metric" in scored.stdout
    assert "1.0000" in scored.stdout
    made = run(
        "compare", "model.onnx", "calib.npz", "--methods", "mmse", "--pairs", "4/4", "-o", "t", *metric
    )
    assert made.exit_code == 0, made.output
    assert [row["metric"] is not None for row in json.loads((job / "t.json").read_text())["rows"]] == [
        True
    ] * 3


def test_a_metric_needs_a_test_set(job):
    assert "need a test set" in run(*RUN, "--metric", "own_metric:right").stderr
