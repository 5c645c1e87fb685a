import csv
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from image_folders import write_job
from small_models import feeds, recommender

from onnx_lapq import QuantizationConfig
from onnx_lapq.errors import ModelError, OutputError
from onnx_lapq.study.comparison import cases, compare_models

FAST = QuantizationConfig(workers=1)
RUNS = cases(FAST, ["mmse"], [(4, 4), (32, 4)], [True, False])


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    return write_job(folder, classes=10, per_class=1)


def compare(job, name, runs=RUNS, others=(), on_row=lambda done: None):
    return compare_models(job / "model.onnx", job / "calib", None, runs, others, job / name, on_row=on_row)


def test_cases_are_pairs_times_methods_times_bias_correction():
    runs = cases(FAST, ["mmse", "aciq"], [(4, 4), (32, 4)], [True, False])
    shown = [(run.weight_bits, run.activation_bits, run.method, run.bias_correction) for run in runs]
    assert shown == [
        (4, 4, "mmse", True),
        (4, 4, "mmse", False),
        (4, 4, "aciq", True),
        (4, 4, "aciq", False),
        (32, 4, "mmse", True),
        (32, 4, "aciq", True),
    ]


@pytest.fixture(scope="module")
def table(job):
    done = []
    return compare(job, "table", others=[job / "model.onnx"], on_row=done.append), done


def test_every_run_has_a_row_with_its_losses_and_scores(table):
    rows, done = table
    assert done == [1, 2, 3, 4, 5]
    assert [row.method for row in rows] == ["float", "mmse", "mmse", "mmse", "model.onnx"]
    assert [row.bias_correction for row in rows] == [None, True, False, None, None]
    for row in rows[1:4]:
        assert row.loss > 0
        assert row.kl > 0
        assert 0 <= row.top1 <= 1
    assert len({row.kl for row in rows[1:4]}) == 3


def test_the_float_model_as_that_of_another_tool_scores_as_the_float_model(table):
    rows, _ = table
    assert rows[4].kl == 0
    assert (rows[4].top1, rows[4].loss, rows[4].weight_bits) == (rows[0].top1, None, None)


def test_json_and_csv_hold_the_table(job, table):
    rows, _ = table
    written = json.loads((job / "table.json").read_text())
    assert [row["kl"] for row in written["rows"]] == [row.kl for row in rows]
    with (job / "table.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == [row.method for row in rows]


def test_an_interrupted_comparison_goes_on_where_it_stopped(job, table, monkeypatch):
    def stop(done):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(job, "again", on_row=stop)
    assert len(json.loads((job / "again.json").read_text())["rows"]) == 2
    calls = []
    real = compare_models.__globals__["quantize"]
    monkeypatch.setattr(
        "onnx_lapq.study.comparison.quantize", lambda *args: calls.append(args) or real(*args)
    )
    rows = compare(job, "again")
    assert len(calls) == 2
    assert [(row.method, row.kl) for row in rows] == [(row.method, row.kl) for row in table[0][:4]]


def test_rows_of_other_methods_are_kept_apart_and_found_again(job, monkeypatch):
    other = cases(FAST, ["minmax"], [(4, 4)], [True])
    compare(job, "turns", other)
    rows = compare(job, "turns", RUNS[:1])
    written = json.loads((job / "turns.json").read_text())
    assert [row["method"] for row in written["rows"]] == [row.method for row in rows] == ["float", "mmse"]
    assert [row["method"] for row in written["kept"]] == ["minmax"]
    monkeypatch.setattr("onnx_lapq.study.comparison.quantize", None)
    assert [row.method for row in compare(job, "turns", other)] == ["float", "minmax"]


def test_threads_and_memory_do_not_make_a_row_another_one(job, table, monkeypatch):
    compare(job, "threads", RUNS[:1])
    monkeypatch.setattr("onnx_lapq.study.comparison.quantize", None)
    rows = compare(job, "threads", [replace(RUNS[0], workers=2, memory=1 << 20)])
    assert rows[1].kl == table[0][1].kl


def test_rows_of_another_version_are_not_believed(job, monkeypatch, caplog):
    compare(job, "older", RUNS[:1])
    monkeypatch.setattr("onnx_lapq.study.comparison_table.__version__", "0.0.9")
    compare(job, "older", RUNS[:1])
    assert "is of other files or another version; it will be replaced" in caplog.text


@pytest.mark.parametrize("content", ['{"rows": []}', "no json", '{"rows": [{"key": "float", "x": 1}]}'])
def test_a_table_of_something_else_is_not_replaced(job, content):
    (job / "other.json").write_text(content)
    with pytest.raises(OutputError, match="is no table of a comparison; give another --output"):
        compare(job, "other", RUNS[:1])
    assert (job / "other.json").read_text() == content


def test_a_model_of_other_inputs_is_refused_before_anything_runs(job, tmp_path, monkeypatch):
    onnx.save(recommender(), tmp_path / "ncf.onnx")
    monkeypatch.setattr("onnx_lapq.study.comparison.quantize", None)
    with pytest.raises(ModelError, match="wants an input 'user'"):
        compare(job, "inputs", RUNS[:1], [tmp_path / "ncf.onnx"])
    assert not (job / "inputs.json").exists()


def test_models_of_one_logit_have_binary_scores(tmp_path):
    onnx.save(recommender(), tmp_path / "model.onnx")
    labels = (np.arange(40) % 2).astype(np.float32)
    np.savez(tmp_path / "calib.npz", labels=labels, **feeds(recommender(), 40))
    rows = compare_models(
        tmp_path / "model.onnx", tmp_path / "calib.npz", None, RUNS[:1], [], tmp_path / "t", lambda done: None
    )
    assert rows[1].kl > 0
    assert rows[0].cross_entropy > 0
    assert 0 < rows[0].top1 < 1
    assert rows[0].top5 is None


def test_other_models_of_one_name_are_told_apart_by_their_folders(job, tmp_path):
    model = onnx.load(job / "model.onnx")
    others = [tmp_path / folder / "model.onnx" for folder in ("a", "b")]
    for path in others:
        path.parent.mkdir()
        model.doc_string = path.parent.name
        onnx.save(model, path)
    assert [row.method for row in compare(job, "alike", RUNS[:1], others)][2:] == [
        "a/model.onnx",
        "b/model.onnx",
    ]
