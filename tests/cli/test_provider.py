import json

import onnxruntime as ort
import pytest
from commands import FAST, run
from releases import needs

CPU, AZURE = "CPUExecutionProvider", "AzureExecutionProvider"


@pytest.mark.skipif(AZURE not in ort.get_available_providers(), reason="not in this build")
@needs("onnxruntime", "1.24", "the record of who runs what")
def test_a_run_says_who_runs_what_the_provider_does_not(job):
    result = run("model.onnx", "calib", "-o", "out.onnx", "--provider", "azure", "--test", "calib", *FAST)
    assert result.exit_code == 0, result.output
    report = json.loads((job / "out.onnx.report.json").read_text())
    assert report["options"]["provider"] == AZURE
    assert any(f"nodes that {AZURE} does not" in warning for warning in report["warnings"])
    assert [score["provider"] for score in report["test"]] == [AZURE, AZURE]
    assert f"model.onnx: {CPU} runs the" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("model.onnx", "calib", "-o", "out.onnx"),
        ("evaluate", "model.onnx", "--data", "calib"),
        ("landscape", "model.onnx", "calib"),
    ],
)
def test_a_missing_provider_is_exit_code_2(job, command):
    before = sorted(job.iterdir())
    result = run(*command, "--provider", "TensorrtExecutionProvider")
    assert result.exit_code == 2
    assert "provider 'TensorrtExecutionProvider' is not in the installed onnxruntime" in result.stderr
    assert CPU in result.stderr
    assert sorted(job.iterdir()) == before
