"""``--mlflow`` against a real store in a folder."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import FAST, run
from small_models import feeds, residual

pytestmark = pytest.mark.filterwarnings("ignore")

QUANTIZE = ("model.onnx", "calib.npz", "-o", "out.onnx", "-w", "4", *FAST)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a model and samples, where MLflow may use folders and calls nobody."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    onnx.save(residual(), "model.onnx")
    samples = feeds(residual(), 12)
    np.savez("calib.npz", **samples)
    np.savez("test.npz", labels=np.arange(12) % 10, **samples)
    return tmp_path


def test_a_run_is_on_record_with_parameters_metrics_and_files(folder):
    from mlflow import MlflowClient

    result = run(*QUANTIZE, "--test", "test.npz", "--mlflow", str(folder / "runs"), "--experiment", "mine")
    assert result.exit_code == 0, result.output
    client = MlflowClient(str(folder / "runs"))
    (found,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert (found.info.run_name, found.info.status) == ("out.onnx", "FINISHED")
    assert found.data.params["weight_bits"] == "4"
    assert found.data.params["preprocessing.color"] == "auto"
    assert found.data.params["model"] == "model.onnx"
    assert found.data.metrics["bytes"] == (folder / "out.onnx").stat().st_size
    assert found.data.metrics["loss"] > 0
    assert 0 <= found.data.metrics["quantized_top1"] <= 1
    assert len(found.data.tags["calibration.sha256"]) == 64
    (folder / "copy").mkdir()
    for name in ("out.onnx", "out.onnx.report.json"):
        copy = client.download_artifacts(found.info.run_id, name, str(folder / "copy"))
        assert Path(copy).read_bytes() == (folder / name).read_bytes()


def test_the_loss_is_a_curve_over_evaluations(folder):
    from mlflow import MlflowClient

    result = run(*QUANTIZE[:4], "--loss", "mse", "--max-evals", "12", "--mlflow", str(folder / "runs"))
    assert result.exit_code == 0, result.output
    client = MlflowClient(str(folder / "runs"))
    (found,) = client.search_runs([client.get_experiment_by_name("onnx-lapq").experiment_id])
    curve = client.get_metric_history(found.info.run_id, "loss")
    assert len(curve) > 2
    assert [point.step for point in curve] == sorted(point.step for point in curve)


def test_a_store_that_mlflow_refuses_ends_the_command_before_the_run(folder, monkeypatch):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    result = run(*QUANTIZE, "--mlflow", "nothing://there")
    assert result.exit_code == 2
    assert "MLflow at nothing://there: " in result.stderr
    assert not (folder / "out.onnx").exists()


def test_the_model_stays_where_mlflow_fails_after_the_run(folder, monkeypatch):
    def broken(*arguments, **options):
        raise OSError("the disk is full")

    monkeypatch.setattr("mlflow.MlflowClient.log_artifact", broken)
    result = run(*QUANTIZE, "--mlflow", str(folder / "runs"))
    assert result.exit_code == 1
    assert (
        f"out.onnx is written, but MLflow at {folder / 'runs'} did not take the run: the disk is full"
        in result.stderr
    )
    assert (folder / "out.onnx").exists()


def test_without_the_extra_one_sentence_says_how_to_get_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    result = run(*QUANTIZE, "--mlflow", str(folder / "runs"))
    assert result.exit_code == 2
    assert "pip install onnx-lapq[mlflow]" in result.stderr
