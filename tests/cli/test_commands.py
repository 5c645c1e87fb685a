import json
import subprocess
import sys

import numpy as np
import pytest
from commands import FAST, run


def test_quantize_is_the_default_command(job):
    result = run("model.onnx", "calib", "-o", "out.onnx", *FAST)
    assert result.exit_code == 0, result.output
    assert (job / "out.onnx").is_file()
    assert json.loads((job / "out.onnx.report.json").read_text())["schema"] == 2
    assert "quadratic" in result.stdout
    assert "Wrote out.onnx" in result.stdout


def test_options_may_come_first_and_the_command_by_name(job):
    assert run("-w", "4", "model.onnx", "calib", "-o", "a.onnx", *FAST).exit_code == 0
    assert run("quantize", "-w", "4", "model.onnx", "calib", "-o", "b.onnx", *FAST).exit_code == 0
    assert (job / "a.onnx").read_bytes() == (job / "b.onnx").read_bytes()


def test_the_softened_divergence_may_be_asked_for(job):
    assert run("model.onnx", "calib", "-o", "out.onnx", "--loss", "soft-kl", *FAST).exit_code == 0
    assert json.loads((job / "out.onnx.report.json").read_text())["loss"] == "soft-kl"


def test_samples_may_be_an_array_that_takes_no_preprocessing(job):
    images = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    np.save("samples.npy", images)
    result = run("model.onnx", "samples.npy", "-o", "out.onnx", *FAST)
    assert result.exit_code == 0, result.output
    assert f"image in [{images.min():.4g}, {images.max():.4g}]" in " ".join(result.stdout.split())


def test_default_output_names_the_bits(job):
    assert run("model.onnx", "calib", "-w", "4", "-a", "6", *FAST).exit_code == 0
    assert (job / "model_w4a6.onnx").is_file()


def test_progress_is_plain_lines_on_standard_error_of_a_pipe(job):
    result = run("model.onnx", "calib", *FAST)
    assert "calibrate: 8/8" in result.stderr
    assert "calibrate" not in result.stdout.splitlines()[0]


def test_quiet_says_nothing(job):
    result = run("model.onnx", "calib", "-q", *FAST)
    assert result.exit_code == 0
    assert result.output == ""


def test_evaluate_prints_models_side_by_side(job):
    run("model.onnx", "calib", "-o", "out.onnx", *FAST)
    table = run("evaluate", "model.onnx", "out.onnx", "--data", "calib")
    assert table.exit_code == 0, table.output
    assert "top-1" in table.stdout
    scores = json.loads(run("evaluate", "model.onnx", "out.onnx", "--data", "calib", "--json").stdout)
    assert [score["kl"] is None for score in scores] == [True, False]
    assert scores[1]["bytes"] == (job / "out.onnx").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.onnx"], "Missing argument 'CALIB'"),
        (["model.onnx", "calib", "-w", "1"], "--weight-bits is 1; give 2 to 8, or 32 for float"),
        (["model.onnx", "calib", "-w", "32", "-a", "32"], "nothing is left to quantize"),
        (["model.onnx", "calib", "--mean", "a,b"], "'a,b' is not a list of numbers"),
        (["model.onnx", "calib", "--resize", "12xx"], "'12xx' is not a size"),
        (["model.onnx", "calib", "--resize", "letterbox:big"], "'big' is not a size"),
        (["model.onnx", "calib", "--resize", "letterbox:big"], "256x192 (height x width), or letterbox:640"),
        (["model.onnx", "calib", "--crop", "big"], "256x192 (height x width)\n"),
        (["model.onnx", "calib", "--resize", "letterbox:640"], "640x640 pixels, but input 'image' takes 8x8"),
        (["model.onnx", "calib", "--memory", "much"], "'much' is not an amount of memory"),
        (["model.onnx", "calib", "--guard", "0.9"], "guard is 0.9; give a share from 0 to 0.5"),
        (
            ["model.onnx", "calib", "-o", "model.onnx"],
            "model.onnx: is read by this run; give another --output",
        ),
        (["model.onnx", "nowhere"], "nowhere: there is no such file or folder"),
        (["nothing.onnx", "calib"], "nothing.onnx: no such model file"),
        (["model.onnx", "calib", "-o", "no/where.onnx"], "no: no such folder; make it first"),
        (["model.onnx", "calib", "--loss", "binary-cross-entropy"], "use cross-entropy"),
        (["evaluate", "model.onnx"], "Missing option '--data'"),
        (["model.onnx", "calib", "--p-grid", "3,2,1"], "give three or more that ascend"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_2(job, arguments, words):
    before = sorted(path.name for path in job.iterdir())
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert sorted(path.name for path in job.iterdir()) == before


def test_an_internal_error_is_one_sentence_and_exit_code_1(job, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("the\nreason")

    monkeypatch.setattr("onnx_lapq.pipeline.quantize", broken)
    result = run("model.onnx", "calib")
    assert result.exit_code == 1
    assert "internal error (ZeroDivisionError: the reason); please report it" in result.stderr


def test_an_interrupt_ends_with_130(job, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("onnx_lapq.pipeline.quantize", interrupted)
    result = run("model.onnx", "calib")
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr


def test_python_dash_m_does_the_same():
    result = subprocess.run(
        [sys.executable, "-m", "onnx_lapq", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("onnx-lapq, version ")


@pytest.mark.parametrize("command", [[], ["quantize"], ["evaluate"]])
def test_help_is_there(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.output
