import json

import pytest
from commands import run

SHORT = ["--methods", "minmax", "--pairs", "4/4,32/4", "--bias-correction", "on"]


def test_compare_prints_and_writes_the_table(job):
    result = run("compare", "model.onnx", "calib", *SHORT)
    assert result.exit_code == 0, result.output
    assert "compare: 3/3" in result.stderr
    for words in ("float/float", "4/4", "float/4", "minmax", "Wrote model_compare.json"):
        assert words in result.stdout
    rows = json.loads((job / "model_compare.json").read_text())["rows"]
    assert [row["weight_bits"] for row in rows] == [32, 4, 32]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "best"], "method is 'best'; give one of lapq, minmax"),
        (["--pairs", "4"], "'4' is not a list of bit widths such as 8/8,4/4,32/4"),
        (["--pairs", "9/4"], "weight_bits is 9; give 2 to 8"),
        (["--pairs", "32/32"], "nothing is left to quantize"),
        (["--test", "nowhere"], "nowhere: there is no such file or folder"),
        (["-o", "no/where"], "no: no such folder; make it first"),
        (["--also", "gone.onnx"], "gone.onnx: no such model file; check the path"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_2(job, arguments, words):
    result = run("compare", "model.onnx", "calib", "--methods", "minmax", "--pairs", "4/4", *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert not list(job.glob("*compare*"))


def test_an_interrupt_says_how_to_go_on(job, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("onnx_lapq.study.comparison.compare_models", interrupted)
    result = run("compare", "model.onnx", "calib", *SHORT)
    assert result.exit_code == 130
    assert "model_compare.json has the rows so far, and the same command goes on from there" in result.stderr


def test_options_of_a_run_hold_for_every_row_but_those_of_one_run(job):
    text = run("compare", "--help-all").stdout
    assert "--per-channel" in text
    assert "--resume" not in text
