import json

import onnx
import pytest
from commands import FAST, run


def plan(*arguments: str) -> dict:
    result = run("inspect", "model.onnx", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def bits(plan: dict) -> dict[str, tuple[int, int]]:
    return {layer["name"]: (layer["weight_bits"], layer["activation_bits"]) for layer in plan["layers"]}


def test_a_float_model_is_shown_layer_by_layer(job):
    result = run("inspect", "model.onnx")
    assert result.exit_code == 0
    for layer in ("node_conv0", "node_conv8", "node_gemm12", "8x3x3x3"):
        assert layer in result.stdout


def test_the_plan_is_what_a_run_does(job):
    options = ["-w", "4", "-a", "4", "--bits", "node_conv2=w3a5", "--exclude", "node_conv4"]
    planned = bits(plan(*options))
    assert run("model.onnx", "calib", "-o", "out.onnx", *options, *FAST).exit_code == 0
    report = json.loads((job / "out.onnx.report.json").read_text())
    written = {one["name"]: one["bits"] for one in report["quantizers"] if one["kind"] == "weight"}
    assert sorted(written.values()) == sorted(weights for weights, _ in planned.values() if weights != 32)
    assert planned["node_conv2"] == (3, 5)
    assert planned["node_conv4"][0] == 32
    assert [node["name"] for node in report["in_float"]][:1] == ["node_conv4"]


def test_packed_weights_are_counted_as_they_would_be_stored(job):
    whole = plan("-w", "4", "--first-last", "same")["weights_after"]
    packed = plan("-w", "4", "--first-last", "same", "--storage", "packed")["weights_after"]
    assert 0.5 < packed / whole < 0.7


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--op-types", "Gemm"], {"node_gemm12"}),
        (["--include", "node_conv[0-4]"], {"node_conv0", "node_conv2", "node_conv4"}),
        (["--include", "Conv", "--exclude", "node_conv0,node_conv8"], {f"node_conv{i}" for i in (2, 4, 6)}),
    ],
)
def test_only_chosen_layers_are_quantized(job, options, kept):
    assert {name for name, (weights, _) in bits(plan(*options)).items() if weights != 32} == kept


def test_the_last_matching_rule_holds_also_for_first_and_last_layers(job):
    found = bits(plan("-w", "4", "-a", "4", "--bits", "Conv=8", "--bits", "*conv0=5", "--bits", "Gemm=w2"))
    assert found["node_conv0"] == (5, 5)
    assert found["node_conv2"] == (8, 8)
    assert found["node_gemm12"] == (2, 8)


def test_a_quantized_model_is_shown_kernel_by_kernel(job):
    assert run("model.onnx", "calib", "-o", "out.onnx", "-w", "4", "-a", "4", *FAST).exit_code == 0
    result = run("inspect", "out.onnx")
    assert result.exit_code == 0
    assert "QLinearConv" in result.stdout
    assert "(100 %)" in result.stdout
    assert "Needs onnxruntime 1.15 or newer" in result.stdout
    found = json.loads(run("inspect", "out.onnx", "--json").stdout)
    assert {node["op_type"] for node in found["nodes"]} >= {"QLinearConv", "QLinearAdd", "QGemm"}
    assert found["needs"] == {"onnxruntime": "1.15", "reason": ""}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--exclude", "layer9*"], "matches no node"),
        (["--include", "nothing"], "matches no node"),
        (["--op-types", "LSTM"], "no such operator"),
        (["--bits", "Conv"], "PATTERN=BITS"),
        (["--bits", "Conv=9"], "no bit width"),
        (["--bits", "nothing=4"], "matches no node"),
        (["--exclude", "*"], "nothing to quantize"),
        (["--target", "tensorrt", "-a", "4"], "8 bits only"),
        (["--target", "tensorrt", "--storage", "packed"], "packed"),
    ],
)
def test_a_choice_that_cannot_be_is_one_sentence_and_exit_code_2(job, options, words):
    result = run("inspect", "model.onnx", *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("target", "warned"), [("ort-x86", False), ("ort-x86-vnni", True)])
def test_a_quantized_model_says_what_it_was_made_for(job, target, warned):
    assert run("model.onnx", "calib", "-o", "out.onnx", "--target", target, *FAST).exit_code == 0
    shown = run("inspect", "out.onnx").stdout
    assert f"Made for target {target}" in shown
    assert ("without VNNI its answers are wrong" in shown) == warned
    assert json.loads(run("inspect", "out.onnx", "--json").stdout)["target"] == target


@pytest.mark.parametrize(
    "stamp", ["no JSON", "[]", '{"options": {"target": "toaster"}}', '{"options": {"target": []}}']
)
def test_a_stamp_that_is_no_good_says_nothing(job, stamp):
    assert run("model.onnx", "calib", "-o", "out.onnx", *FAST).exit_code == 0
    model = onnx.load(job / "out.onnx")
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"onnx_lapq": stamp})
    onnx.save(model, job / "out.onnx")
    result = run("inspect", "out.onnx")
    assert result.exit_code == 0
    assert "Made for" not in result.stdout
