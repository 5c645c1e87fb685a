"""Limits on a test set: exit code 3 and no output when one is missed."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from commands import FAST, run
from small_models import Builder, feeds, residual

from onnx_lapq.method.closeness import OutputScore
from onnx_lapq.runtime.session import open_file
from onnx_lapq.runtime.session import run as run_session
from onnx_lapq.study.gate import shown_below
from onnx_lapq.study.limits import Gate

QUANTIZE = ("model.onnx", "calib.npz", "-o", "out.onnx", "-w", "3", "-a", "3", *FAST)


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    """A folder with a model, samples, and test samples of which the float model has 15 in 20 right."""
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), "model.onnx")
    samples = feeds(residual(), 20)
    labels = run_session(open_file("model.onnx"), samples)[0].argmax(axis=1)
    labels[:5] = (labels[:5] + 1) % 10
    np.savez("calib.npz", **samples)
    np.savez("test.npz", labels=labels, **samples)
    return tmp_path


def written(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "out" in path.name)


def test_a_model_that_keeps_the_limits_is_written_with_its_scores(labelled):
    limits = ("--min-accuracy", "0.2", "--max-drop", "0.6", "--max-kl", "9", "--min-snr", "-9")
    result = run(*QUANTIZE, "--test", "test.npz", *limits)
    assert result.exit_code == 0, result.output
    before, after = json.loads((labelled / "out.onnx.report.json").read_text())["test"]
    assert before["top1"] == 0.75
    assert before["kl"] is before["outputs"][0]["snr_db"] is None
    assert after["kl"] > 0
    assert "top-1 %" in result.stdout
    assert "quantized beside the first on test.npz: logits" in result.stdout


@pytest.mark.parametrize(("test", "is_told"), [("./calib.npz", True), ("test.npz", False)])
def test_limits_on_the_samples_of_the_calibration_are_told_to_be_worth_less(labelled, test, is_told):
    result = run(*QUANTIZE, "--test", test, "--min-snr", "-9")
    assert result.exit_code == 0, result.output
    assert ("are those of the calibration" in result.stderr) == is_told


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (["--min-accuracy", "0.76"], "below the limit of 0.76"),
        (["--max-kl", "1e-9"], "KL divergence from the float model is"),
        (["--min-snr", "90"], "dB, below the limit of 90 dB"),
        (["--max-kl", "1e-9", "--min-snr", "90"], "and SNR of logits is"),
    ],
)
def test_a_model_that_misses_a_limit_is_not_written(labelled, limits, words):
    result = run(*QUANTIZE, "--test", "test.npz", *limits)
    assert result.exit_code == 3
    assert words in result.stderr
    assert "nothing was written" in result.stderr
    assert written(labelled) == []


@pytest.mark.parametrize("flags", [[], ["--promote"]])
def test_a_limit_that_the_float_model_misses_is_said_before_the_run(labelled, flags):
    result = run(*QUANTIZE, "--test", "test.npz", "--min-accuracy", "1", *flags)
    assert result.exit_code == 3
    assert "of the float model is" in result.stderr
    assert "no bits are enough" in result.stderr
    assert "calibrate" not in result.stderr


def test_an_older_output_stays_as_it_was_when_a_limit_is_missed(labelled):
    (labelled / "out.onnx").write_bytes(b"old")
    assert run(*QUANTIZE, "--test", "test.npz", "--max-kl", "1e-9").exit_code == 3
    assert (labelled / "out.onnx").read_bytes() == b"old"


def test_a_fall_of_accuracy_is_measured_from_the_float_model(labelled):
    scores = run(*QUANTIZE, "--method", "minmax", "--test", "test.npz", "--max-drop", "1")
    assert scores.exit_code == 0
    before, after = json.loads((labelled / "out.onnx.report.json").read_text())["test"]
    drop = before["top1"] - after["top1"]
    assert drop > 0
    assert run(*QUANTIZE, "--method", "minmax", "--test", "test.npz", "--max-drop", str(drop)).exit_code == 0
    low = run(*QUANTIZE, "--method", "minmax", "--test", "test.npz", "--min-accuracy", str(before["top1"]))
    assert low.exit_code == 3
    assert f"below the limit of {before['top1']:g}; nothing was written" in low.stderr
    missed = run(*QUANTIZE, "--method", "minmax", "--test", "test.npz", "--max-drop", str(drop - 0.01))
    assert missed.exit_code == 3
    assert f"falls by {drop:.4f}" in missed.stderr


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (
            ["--min-accuracy", "0.5"],
            "--metric, --min-accuracy, --max-drop, --max-kl and --min-snr need a test set",
        ),
        (["--test", "test.npz", "--min-accuracy", "93"], "Error: --min-accuracy is 93.0; give a share"),
        (["--test", "test.npz", "--max-kl", "-1"], "Error: --max-kl is -1.0"),
        (["--test", "calib.npz", "--min-accuracy", "0.5"], "accuracy needs class labels"),
        (["--test", "nothing", "--min-accuracy", "0.5"], "nothing: there is no such file or folder"),
    ],
)
def test_a_gate_that_makes_no_sense_is_one_sentence_and_exit_code_2(labelled, limits, words):
    result = run(*QUANTIZE, *limits)
    assert result.exit_code == 2
    assert words in result.stderr
    assert written(labelled) == []


def test_a_limit_on_kl_without_class_scores_is_refused_before_the_search(labelled):
    b = Builder()
    picture = b.conv("image", 3, 3)
    shape = ["N", 3, 8, 8]
    onnx.save(b.model({"image": shape}, {picture: shape}), "model.onnx")
    result = run(*QUANTIZE, "--test", "calib.npz", "--max-kl", "0.1")
    assert result.exit_code == 2
    assert "--max-kl needs a model that gives class scores; use --min-snr or a --metric" in result.stderr


def test_with_a_metric_limits_may_be_any_numbers():
    gate = Gate(test="test.npz", metric="package.module:function", min_accuracy=31.5, max_drop=2.0)
    assert gate.limits() == (31.5, 2.0, None, None)


def test_the_row_that_is_furthest_off_is_named():
    score = OutputScore("out", "[0:4]", "row-mse", 20.0, 0, 9.5, None)
    assert score.row + score.label == "row 0 of out[0:4]"
    assert replace(score, worst_db=None, worst_row=None).row == ""


@pytest.mark.parametrize(("found", "shown"), [(32.96, "32.9600"), (32.94, "32.9"), (12.0, "12.0")])
def test_a_ratio_just_below_the_limit_is_not_shown_as_the_limit(found, shown):
    assert shown_below(found, 33.0) == shown


def test_limits_may_come_from_a_file(labelled):
    (labelled / "lapq.toml").write_text('[gate]\ntest = "test.npz"\nmax_kl = 1e-9\n')
    assert run(*QUANTIZE, "--config", "lapq.toml").exit_code == 3
    assert run(*QUANTIZE, "--config", "lapq.toml", "--max-kl", "9").exit_code == 0
