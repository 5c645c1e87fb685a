"""The examples run."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest
import yaml

ROOT = Path(__file__).parents[2]


def example(name: str) -> None:
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(ROOT / "demo")


def test_image_classifier(capsys):
    example("image_classifier")
    before, after = (line.split()[2] for line in capsys.readouterr().out.splitlines())
    assert float(after) >= float(before) - 2
    ort.InferenceSession("classifier_w4a4.onnx")


def test_streaming(capsys):
    example("streaming")
    assert "'speech': " in capsys.readouterr().out
    assert [value.name for value in ort.InferenceSession("voice_w8a8.onnx").get_inputs()] == [
        "sound",
        "state",
        "sr",
    ]


def test_recommender(capsys):
    example("recommender")
    words = capsys.readouterr().out.replace(",", "").split()
    assert words[0] == "binary-cross-entropy:"
    assert float(words[4]) == pytest.approx(float(words[2]), abs=0.02)
    ort.InferenceSession("recommender_w8a8.onnx")


def test_transformer(capsys):
    example("transformer")
    in_float = re.findall(r"'(\w+)'", capsys.readouterr().out)
    assert set(in_float) == {"Div", "Softmax", "Add", "LayerNormalization", "Gelu", "ReduceMean", "MatMul"}
    assert in_float.count("MatMul") == 2  # those of two activations
    ort.InferenceSession("transformer_w8a8.onnx")


@pytest.mark.parametrize(
    ("name", "package", "says", "model"),
    [
        ("from_pytorch", "torch", "bytes", "from_pytorch_w8a8.onnx"),
        ("olive_pass", "olive", "wrote", "olive_w4a4/model.onnx"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_examples_with_another_package(name, package, says, model, capsys):
    pytest.importorskip(package)
    example(name)
    assert says in capsys.readouterr().out
    ort.InferenceSession(model)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_run(tmp_path, monkeypatch, capsys):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "runs"))
    example("mlflow_run")
    run = mlflow.MlflowClient(str(tmp_path / "runs")).get_run(capsys.readouterr().out.split()[-1])
    assert run.data.params["weight_bits"] == "4"
    assert run.data.metrics["bytes"] == (tmp_path / "mlflow_w4a8.onnx").stat().st_size
    assert run.data.metrics["loss"] > 0


def test_steps_of_the_github_workflow_run_in_order_and_leave_what_is_uploaded(tmp_path):
    (job,) = yaml.safe_load((ROOT / "examples" / "github-actions.yml").read_text())["jobs"].values()
    for name, source in (("model.onnx", "model.onnx"), ("calib", "calib"), ("test", "calib")):
        (tmp_path / name).symlink_to(ROOT / "demo" / source)
    (tmp_path / "lapq.toml").write_text(
        "samples = 40\nmax_evaluations = 3\n[preprocessing]\nmean = [0.2860]\nstd = [0.3530]\n"
    )
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    for step in job["steps"]:
        if "run" in step and not step["run"].startswith("pip install"):
            subprocess.run(["bash", "-e", "-c", step["run"]], env={**os.environ, "PATH": path}, check=True)
    uploaded = job["steps"][-1]["with"]["path"].split()
    assert len(uploaded) == 3
    assert all((tmp_path / name).stat().st_size for name in uploaded)


def test_detector(capsys):
    example("detector")
    before, after = (float(word) for word in capsys.readouterr().out.split(": ")[1].split(" -> "))
    assert before > 0.9
    assert after == pytest.approx(before, abs=0.02)
