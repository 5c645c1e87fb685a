"""What a stranger types first is answered at once, without loading what a run needs."""

import subprocess
import sys

import pytest
from commands import run


def loaded(*arguments: str) -> set[str]:
    """Names of the modules that a command imports."""
    command = [sys.executable, "-X", "importtime", "-m", "onnx_lapq", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.split("|")[-1].strip() for line in done.stderr.splitlines()}


def test_the_version_needs_nothing_but_click():
    assert not loaded("--version") & {"numpy", "msgspec", "onnx", "onnxruntime", "rich", "scipy"}


@pytest.mark.parametrize("command", [[], ["quantize"], ["inspect"], ["compare"], ["landscape"], ["evaluate"]])
def test_help_needs_nothing_that_runs_models(command):
    assert not loaded(*command, "--help") & {"onnx", "onnx_ir", "onnxruntime", "rich", "scipy"}


def test_the_command_alone_shows_its_help():
    assert run().output == run("--help").output == run("-h").output
    assert "onnx-lapq MODEL CALIB -o OUT" in run().output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.onnx", "calib", "--max-eval", "3"], "--max-evals"),
        (["evalute", "model.onnx"], "No such command 'evalute'. Did you mean 'evaluate'?"),
        (["model.onnx", "calib", "--method", "lapk"], "'lapq'"),
        (["model.onnx", "calib", "-w", "four"], "'four' is not a valid integer"),
    ],
)
def test_a_slip_gets_a_suggestion_and_exit_code_2(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_file_may_be_called_nearly_as_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").write_text("")
    assert "Missing argument 'CALIB'" in run("reports").stderr
