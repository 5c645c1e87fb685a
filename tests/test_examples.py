"""The examples run."""

import runpy
from pathlib import Path

import onnxruntime as ort
import pytest

ROOT = Path(__file__).parents[1]


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


def test_recommender(capsys):
    example("recommender")
    words = capsys.readouterr().out.replace(",", "").split()
    assert words[0] == "binary-cross-entropy:"
    assert float(words[4]) == pytest.approx(float(words[2]), abs=0.02)
    ort.InferenceSession("recommender_w8a8.onnx")


def test_transformer(capsys):
    example("transformer")
    assert "'Softmax', 'LayerNormalization', 'Gelu'" in capsys.readouterr().out
    ort.InferenceSession("transformer_w8a8.onnx")


@pytest.mark.filterwarnings("ignore")
def test_from_pytorch(capsys):
    pytest.importorskip("torch")
    example("from_pytorch")
    assert "bytes" in capsys.readouterr().out
    ort.InferenceSession("from_pytorch_w8a8.onnx")
