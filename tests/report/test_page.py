import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import get_args

import numpy as np
import onnx
import pytest
from commands import run
from image_folders import write_images
from small_models import residual

from onnx_lapq import QuantizationConfig
from onnx_lapq.method.allocation import Rung
from onnx_lapq.method.closeness import OutputScore
from onnx_lapq.method.powell.search_state import StopReason
from onnx_lapq.pipeline import quantize
from onnx_lapq.report.page import report_page
from onnx_lapq.report.record import ModelScore
from onnx_lapq.report.tensors import Histogram
from onnx_lapq.stages.found import Ladder

VOID = {"meta", "path", "use", "br", "rect"}


class Page(HTMLParser):
    """Checks that elements nest and ids are unique; collects what refers to elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._look(attributes)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self._look(attributes)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def _look(self, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.append(value)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    job = tmp_path_factory.mktemp("page")
    write_images(job / "calib", classes=4)
    config = QuantizationConfig(
        weight_bits=4,
        activation_bits=4,
        per_channel=False,
        p_values=(2.0, 3.0, 4.0),
        max_evaluations=8,
        report=True,
    )
    done = quantize(residual(), job / "calib", config)
    moved = ((1, 0.02, 0.03), (4, 0.015, 0.028), (7, 0.014, 0.028))
    return replace(done, report=replace(done.report, history=moved))


@pytest.fixture(scope="module")
def text(result):
    return report_page(result.report, result.histograms)


def test_the_page_is_whole_and_loads_nothing(text):
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert "script" not in page.tags
    assert page.references
    assert all(reference.startswith("#") for reference in page.references)
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    used = re.findall(r"url\(#([^)]+)\)", text)
    assert set(used) <= set(page.ids)


def test_the_page_shows_every_quantizer_and_figure(result, text):
    page = Page(text)
    assert page.tags.count("svg") == 3 + len(result.report.quantizers)
    for quantizer in result.report.quantizers:
        assert f"{quantizer.scale:.4g}" in text


def test_a_joint_step_that_found_nothing_has_no_empty_figure(result, text):
    still = report_page(replace(result.report, history=result.report.history[:1]), result.histograms)
    assert "Joint step" in text
    assert "Joint step" not in still


def test_the_page_says_what_ended_the_joint_step(result, text):
    assert result.report.stopped == "negligible"
    assert "at a loss too low to matter" in text
    bare = replace(result.report, quantizers=(), quadratic=None, history=())
    pages = [report_page(replace(bare, stopped=reason), ()) for reason in get_args(StopReason)]
    assert len(set(pages)) == len(pages)
    assert "there was none" in report_page(replace(bare, stopped="none"), ())


def test_the_page_shows_how_close_each_output_is(result, text):
    (part,) = result.report.outputs
    assert "It is KL of logits." in text
    assert f"<td>logits</td><td>{part.snr_db:.3g}</td><td>–</td>" in text


def test_every_color_of_a_figure_follows_the_theme(text):
    figures = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", figures)) == set()
    assert {"var(--ink)", "var(--one)", "var(--two)", "var(--area)"} <= set(
        re.findall(r"var\(--\w+\)", figures)
    )


def test_the_same_record_gives_the_same_page(result, text):
    assert report_page(result.report, result.histograms) == text


def test_test_scores_and_the_ladder_of_bits_are_shown(result):
    parts = [
        OutputScore("y", None, "mse", 31.2, None, None, None),
        OutputScore("y", "[4:]", "mse", 17.9, 5, 13.4, None),
    ]
    scores = (
        ModelScore("float.onnx", 10, "CPUExecutionProvider", 1.0, 0.9138, None, 0.25, None, ()),
        ModelScore(None, 5, "CPUExecutionProvider", 0.5, 0.9042, None, 0.31, 0.0123, tuple(parts)),
    )
    ladder = Ladder(None, 5, 3, (Rung("<i>conv", 8, 4, 1234, 0.001, 0.002),))
    text = report_page(replace(result.report, test=scores, ladder=ladder), result.histograms)
    assert Page(text).open == []
    for shown in ("91.38", "90.42", "0.0123", "13.4", "&lt;i&gt;conv", "8 → 4", "1234"):
        assert shown in text


def test_names_and_warnings_of_strangers_are_text(result):
    evil = '<script>alert("x")</script>&$\\frac$\n'
    quantizers = tuple(
        replace(quantizer, name=evil + quantizer.name) for quantizer in result.report.quantizers
    )
    report = replace(
        result.report,
        quantizers=quantizers,
        warnings=(evil,),
        model=replace(result.report.model, path=evil),
        loss=evil,
    )
    views = [replace(view, name=evil + view.name) for view in result.histograms]
    page = Page(report_page(report, views))
    assert "script" not in page.tags
    assert page.open == []


def test_hundreds_of_tensors_stay_readable_in_a_bounded_page(result):
    record, histogram = result.report.quantizers[0], result.histograms[0]
    names = [f"{'block.' * 20}{number}.weight" for number in range(600)]
    quantizers = [replace(record, name=name, snr_db=float(number)) for number, name in enumerate(names)]
    report = replace(result.report, quantizers=tuple(quantizers))
    text = report_page(report, [replace(histogram, name=name) for name in names])
    page = Page(text)
    assert page.tags.count("svg") == 3 + 200
    assert "The 200 of 600 tensors with the lowest SNR" in text
    assert "<details open>" not in text
    assert len(text) < 2_000_000


def test_the_record_says_how_much_each_tensor_loses(result):
    quantizers = result.report.quantizers
    assert [one.name for one in result.histograms] == [one.name for one in quantizers]
    for quantizer, histogram in zip(quantizers, result.histograms, strict=True):
        assert quantizer.sensitivity is not None
        low, high = quantizer.clip
        assert histogram.edges[0] <= low <= high <= histogram.edges[-1]
        assert quantizer.snr_db is None or quantizer.snr_db > 3
    wide = [one.snr_db for one in quantizers if one.bits >= 7]
    narrow = [one.snr_db for one in quantizers if one.bits == 4]
    assert np.mean(wide) > np.mean(narrow) + 10


def test_the_snr_of_a_weight_is_that_of_the_written_codes(result):
    written = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer}
    before = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in residual().graph.initializer}
    quantizer = next(quantizer for quantizer in result.report.quantizers if quantizer.name == "c2")
    codes = next(value for name, value in written.items() if name.startswith("c2") and value.dtype == np.int8)
    error = before["c2"] - codes.astype(np.float64) * quantizer.scale
    expected = 10 * np.log10(np.square(before["c2"]).sum() / np.square(error).sum())
    assert quantizer.snr_db == pytest.approx(expected, abs=0.01)


def test_a_run_without_report_measures_and_writes_no_page(tmp_path, result):
    plain = quantize(
        residual(), {"image": np.ones((4, 3, 8, 8), np.float32)}, QuantizationConfig(optimizer="none")
    )
    plain.save(tmp_path / "out.onnx")
    assert plain.histograms == ()
    assert all(one.sensitivity is None and one.clip[1] > 0 for one in plain.report.quantizers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.onnx", "out.onnx.report.json"]


def test_the_report_does_not_change_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), "model.onnx")
    write_images(tmp_path / "calib")
    short = ["--p-grid", "2,3,4", "--max-evals", "6"]
    assert run("model.onnx", "calib", "-o", "a.onnx", "-q", *short).exit_code == 0
    done = run("model.onnx", "calib", "-o", "b.onnx", "--report", *short)
    assert done.exit_code == 0, done.output
    assert "b.onnx.report.json and b.onnx.report.html" in done.stdout
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    records = [json.loads((tmp_path / f"{name}.onnx.report.json").read_text()) for name in "ab"]
    assert records[0]["stages"] == records[1]["stages"]
    assert "model.onnx" in (tmp_path / "b.onnx.report.html").read_text()


def test_without_jinja_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("onnx_lapq.common.extras.find_spec", lambda name: None)
    done = run("no.onnx", "calib", "--report")
    assert done.exit_code == 2
    assert 'matplotlib and jinja2: not installed; run pip install ".[report]"' in done.stderr


def test_a_tensor_without_values_or_error_has_a_histogram():
    from onnx_lapq.report.figures import draw_histogram

    flat = Histogram("x", np.linspace(0, 1, 61), np.zeros(60))
    assert "<svg" in draw_histogram(flat, (0.0, 1.0), 0)
