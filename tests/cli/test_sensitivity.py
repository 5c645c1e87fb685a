"""``onnx-lapq sensitivity``: a table, JSON, and a page."""

import json

import numpy as np
import onnx
import pytest
from commands import run
from small_models import encoder, feeds, residual


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), "model.onnx")
    np.savez("calib.npz", **feeds(residual(), 20))
    return tmp_path


def test_the_worst_tensor_comes_first(job):
    low = ("sensitivity", "model.onnx", "calib.npz", "-w", "3", "-a", "4")
    done = run(*low)
    assert done.exit_code == 0, done.output
    assert "Each tensor alone quantized, on 20 samples" in done.stdout
    printed = run(*low, "--json", "-q").stdout
    assert printed == run(*low, "--json", "-q", "--workers", "1").stdout
    found = json.loads(printed)
    losses = [one["loss"] for one in found["tensors"]]
    assert losses == sorted(losses, reverse=True)
    assert {one["kind"] for one in found["tensors"]} == {"weight", "activation"}
    assert {one["bits"] for one in found["tensors"]} == {3, 4, 7, 8}
    assert sorted(path.name for path in job.iterdir()) == ["calib.npz", "model.onnx"]


def test_a_transformer(job):
    onnx.save(encoder(), "encoder.onnx")
    np.savez("tokens.npz", **feeds(encoder(), 20))
    done = run("sensitivity", "encoder.onnx", "tokens.npz", "--json", "-q")
    assert done.exit_code == 0, done.output
    assert any(one["worst_db"] is not None for one in json.loads(done.stdout)["tensors"])


def test_the_page_has_a_plot_and_all_tensors(job):
    pytest.importorskip("matplotlib")
    done = run("sensitivity", "model.onnx", "calib.npz", "-o", "page.html")
    assert done.exit_code == 0, done.output
    assert "Wrote page.html" in done.stdout
    page = (job / "page.html").read_text()
    assert page.count("<svg") == 1
    assert page.count("<tr>") == 1 + len(
        json.loads(run("sensitivity", "model.onnx", "calib.npz", "--json", "-q").stdout)["tensors"]
    )
    assert run("sensitivity", "model.onnx", "calib.npz", "-o", "page.html", "-q").exit_code == 0
    assert (job / "page.html").read_text() == page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--bits", "auto"), "a sensitivity is that of given bits"),
        (("-o", "model.onnx"), "model.onnx: is read by this run"),
        (("-o", "nowhere/page.html"), "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(job, options, said):
    done = run("sensitivity", "model.onnx", "calib.npz", *options)
    assert done.exit_code == 2
    assert said in done.stderr
