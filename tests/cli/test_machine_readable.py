"""What a program reads: reports and their JSON Schema, JSON on standard output, log lines."""

import json

import jsonschema
import numpy as np
import pytest
from commands import FAST, run
from small_models import feeds, residual

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.report.record import Report

MINMAX = QuantizationConfig(method="minmax")


def objects(schema, value, definitions):
    """Pairs of an object's schema and the object, all the way down."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    for one in schema.get("anyOf", []):
        if value is not None:
            yield from objects(one, value, definitions)
    if "properties" in schema and isinstance(value, dict):
        yield schema, value
        for name, part in schema["properties"].items():
            yield from objects(part, value[name], definitions)
    if isinstance(value, list) and schema.get("items"):
        for one in value:
            yield from objects(schema["items"], one, definitions)


@pytest.fixture(scope="module")
def schema():
    printed = run("report", "--schema")
    assert printed.exit_code == 0
    return json.loads(printed.stdout)


def test_the_schema_is_valid_and_every_field_says_what_it_is(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    kinds = [schema, *schema["$defs"].values()]
    fields = [pair for kind in kinds for pair in kind["properties"].items()]
    undocumented = [name for name, field in fields if "description" not in field]
    assert undocumented == []


@pytest.mark.parametrize("options", [{"max_evaluations": 4}, {"method": "mmse", "guard": 0.0}])
def test_reports_follow_the_schema_and_hold_nothing_else(schema, options):
    config = QuantizationConfig(p_values=(2.0, 3.0, 4.0), **options)
    report = json.loads(quantize(residual(), feeds(residual(), 8), config).report.to_json())
    jsonschema.validate(report, schema)
    pairs = list(objects(schema, report, schema["$defs"]))
    assert len(pairs) > 10
    for kind, value in pairs:
        assert list(value) == list(kind["properties"])


def test_a_number_that_is_not_finite_is_null():
    result = quantize(
        residual(), feeds(residual(), 4), QuantizationConfig(optimizer="none", rounding="nearest")
    )
    report = result.report
    odd = Report(**{**vars(report), "seconds": {"prepare": float("nan"), "samples": float("inf")}})
    assert json.loads(odd.to_json())["seconds"] == {"prepare": None, "samples": None}


def test_json_is_all_that_is_on_standard_output(job):
    result = run("model.onnx", "calib", "-o", "out.onnx", "--json", *FAST)
    assert json.loads(result.stdout) == json.loads((job / "out.onnx.report.json").read_text())
    assert "calibrate: 8/8" in result.stderr


def test_log_lines_are_json_where_asked(job):
    result = run("model.onnx", "calib", "-o", "out.onnx", "--log-format", "json", "--json", "-v", *FAST)
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    assert {"phase": "calibrate", "done": 8, "total": 8, "finished": True}.items() <= next(
        line.items() for line in lines if line.get("phase") == "calibrate" and line["finished"]
    )
    assert any(line.get("logger", "").startswith("onnx_lapq.calibration") for line in lines)
    failed = run("model.onnx", "nowhere", "--log-format", "json")
    assert failed.exit_code == 2
    last = json.loads(failed.stderr.splitlines()[-1])
    assert (last["level"], last["message"][:8]) == ("ERROR", "nowhere:")


@pytest.mark.parametrize("form", [["--log-format", "json"], ["--log-format=json"]])
def test_usage_errors_and_interrupts_are_json_lines_too(job, monkeypatch, form):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("onnx_lapq.pipeline.quantize", interrupted)
    for arguments, level, words, code in (
        (["model.onnx", "calib", "--colour", "rgb"], "ERROR", "No such option", 2),
        (["model.onnx", "calib", "-w", "1"], "ERROR", "--weight-bits is 1; give 2 to 8", 2),
        (["model.onnx"], "ERROR", "Missing argument", 2),
        (["model.onnx", "calib"], "WARNING", "Interrupted; nothing was written", 130),
    ):
        result = run(*arguments, *form)
        (line,) = [json.loads(line) for line in result.stderr.splitlines()]
        assert (result.exit_code, line["level"]) == (code, level)
        assert words in line["message"]


def test_samples_are_hashed_as_they_reach_the_model(tmp_path):
    samples = feeds(residual(), 6)
    np.savez(tmp_path / "calib.npz", **samples)
    config = QuantizationConfig(optimizer="none", rounding="nearest", method="minmax")
    hashes = [
        quantize(residual(), source, config).report.calibration["sha256"]
        for source in (
            samples,
            tmp_path / "calib.npz",
            {name: values[::-1] for name, values in samples.items()},
        )
    ]
    assert hashes[0] == hashes[1] != hashes[2]
