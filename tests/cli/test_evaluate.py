import json

import numpy as np
import onnx
import pytest
from commands import run
from small_models import Builder, feeds, recommender, residual


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with models of several inputs, and samples for one of them."""
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), "model.onnx")
    onnx.save(recommender(), "other.onnx")
    b = Builder()
    b.node("GlobalAveragePool", ["image"], name="y")
    onnx.save(b.model({"image": ["N", 3, 9, 9]}, {"y": ["N", 3, 1, 1]}), "larger.onnx")
    b = Builder()
    b.node("Reshape", ["image", b.constant(np.array([5, 100]))], name="y")
    onnx.save(b.model({"image": ["N", 3, 8, 8]}, {"y": [5, 100]}), "broken.onnx")
    samples = feeds(residual(), 12)
    np.savez("samples.npz", labels=np.arange(12) % 10, **samples)
    return tmp_path


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (["model.onnx", "other.onnx"], "other.onnx: wants an input 'user', but the first model's are"),
        (["model.onnx", "larger.onnx"], "larger.onnx: input 'image' is ['N', 3, 9, 9], but the samples"),
        (["model.onnx", "broken.onnx"], "broken.onnx: the model cannot be run on its first samples"),
        (["other.onnx"], "samples.npz: no array for input 'user'"),
        (["larger.onnx"], "samples.npz, array 'image': shape [12, 3, 8, 8] does not fit input 'image'"),
    ],
)
def test_a_model_that_does_not_fit_is_named_in_one_sentence(folder, models, words):
    result = run("evaluate", *models, "--data", "samples.npz")
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_the_json_has_all_that_a_gate_may_ask_for(folder):
    result = run("evaluate", "model.onnx", "model.onnx", "--data", "samples.npz", "--json")
    first, second = json.loads(result.stdout)
    assert list(first) == [
        *(
            "path",
            "bytes",
            "provider",
            "latency_ms",
            "top1",
            "top5",
            "cross_entropy",
            "kl",
            "outputs",
            "metric",
        )
    ]
    assert first["bytes"] == (folder / "model.onnx").stat().st_size
    assert first["latency_ms"] > 0
    assert 0 <= first["top1"] <= first["top5"] <= 1
    assert (first["kl"], second["kl"]) == (None, pytest.approx(0, abs=1e-9))
    nothing = {"snr_db": None, "worst_row": None, "worst_db": None}
    about = {"name": "logits", "rows": None, "loss": "kl"}
    assert first["outputs"] == [{**about, **nothing, "agreement": None}]
    assert second["outputs"] == [{**about, **nothing, "agreement": 1.0}]


def test_outputs_that_are_the_same_are_said_to_be(folder):
    shown = run("evaluate", "model.onnx", "model.onnx", "--data", "samples.npz").stdout
    assert "\nmodel.onnx beside the first: logits the same, agrees 100.0 %" in shown


def test_models_of_one_name_are_told_apart_by_their_folders(folder):
    (folder / "q").mkdir()
    onnx.save(residual(seed=1), "q/model.onnx")
    shown = run("evaluate", "model.onnx", "q/model.onnx", "--data", "samples.npz").stdout
    assert " q/model.onnx " in shown
    assert "\nq/model.onnx beside the first: logits" in shown
