"""Options in a file: ``--config`` and ``onnx-lapq config``."""

import json
import tomllib
from dataclasses import fields

import pytest
from commands import FAST, run

from onnx_lapq import QuantizationConfig
from onnx_lapq.cli.commands.quantize import quantize


def options_of(job, *arguments: str) -> dict:
    result = run("model.onnx", "calib", "-o", "out.onnx", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads((job / "out.onnx.report.json").read_text())["options"]


def test_every_option_is_a_field_and_a_flag():
    flags = {parameter.name for parameter in quantize.params}
    assert {field.name for field in fields(QuantizationConfig)} - {"preprocessing"} <= flags


def test_the_printed_file_is_complete_and_changes_nothing(job):
    printed = run("config").stdout
    (job / "lapq.toml").write_text(printed)
    assert options_of(job, "--config", "lapq.toml", *FAST) == options_of(job, *FAST)
    for name in (field.name for field in fields(QuantizationConfig)):
        assert any(line in printed for line in (f"\n{name} =", f"\n# {name} =", f"\n[{name}]"))
    uncommented = printed.replace("\n# mean", "\nmean").replace("\n# std", "\nstd")
    assert tomllib.loads(uncommented)["preprocessing"]["std"] == [1.0]


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(job):
    (job / "lapq.toml").write_text(
        'weight_bits = 4\nactivation_bits = 6\nfirst_last = 8\nexclude = ["node_conv2"]\nmemory = "512M"\n'
        "[preprocessing]\nmean = [0.5, 0.4, 0.3]\nresize = [8, 8]\n"
    )
    options = options_of(job, "--config", "lapq.toml", "-a", "5", *FAST)
    assert (options["weight_bits"], options["activation_bits"]) == (4, 5)
    assert options["exclude"] == ["node_conv2"]
    assert options["memory"] == 512 << 20
    assert options["preprocessing"]["mean"] == [0.5, 0.4, 0.3]
    assert options["preprocessing"]["resize"] == [8, 8]
    assert options["first_last"] == "8"


def test_every_true_of_a_file_can_be_undone(job):
    true = (
        "full_range",
        "fold_codes",
        "equalize",
        "bias_correction",
        "resume",
        "verify",
        "report",
        "per_channel",
    )
    (job / "lapq.toml").write_text("".join(f"{name} = true\n" for name in true))
    flags = ["--per-tensor" if name == "per_channel" else f"--no-{name.replace('_', '-')}" for name in true]
    options = options_of(job, "--config", "lapq.toml", *flags, *FAST)
    assert {options[name] for name in true} == {False}


def test_inspect_and_evaluate_read_the_same_file(job):
    (job / "lapq.toml").write_text("weight_bits = 4\n[preprocessing]\nmean = [0.5]\nstd = [0.0]\n")
    layers = json.loads(run("inspect", "model.onnx", "--config", "lapq.toml", "--json").stdout)["layers"]
    assert {layer["weight_bits"] for layer in layers} == {4, 7, 8}
    result = run("evaluate", "model.onnx", "--data", "calib", "--config", "lapq.toml")
    assert "scale or std is 0" in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("weigth_bits = 4", "lapq.toml: there is no option 'weigth_bits'; the nearest is 'weight_bits'"),
        ("[preprocessing]\nmeen = [0.5]", "no option 'meen' in [preprocessing]; the nearest is 'mean'"),
        ("preprocessing = 1", "'preprocessing' is a table; write [preprocessing]"),
        ("weight_bits = ", "lapq.toml: not a TOML file"),
        ("weight_bits = 9", "weight_bits is 9; give 2 to 8, or 32 for float"),
        ("guard = 0.9", "lapq.toml: guard is 0.9; give a share from 0 to 0.5"),
        ("p_values = ['a']", "lapq.toml: p_values is ['a']; give a tuple, each a number"),
        ("per_channel = 'maybe'", "lapq.toml: per_channel is 'maybe'; give true or false\n"),
        ("resume = 4", "lapq.toml: resume is 4; give true or false"),
        ("guard = [[true, false], '[']", "guard is [[True, False], '[']; give a share"),
        ("guard = [0.1]", "lapq.toml: guard is [0.1]; give a share"),
        ("include = [1, '']", "lapq.toml: include is [1, '']; give a tuple, each a text"),
        ("workers = inf", "lapq.toml: workers is inf; give an integer above 0\n"),
        ("p_values = [[2.0], 3.0, 4.0]", "lapq.toml: p_values is [[2.0], 3.0, 4.0]; give"),
        ("[preprocessing]\npreset = 'imagnet'", "preset is 'imagnet'; give one of caffe, imagenet"),
        ("[gate]\nmax_kl = -1", "lapq.toml: max_kl is -1; give a number of nats from 0 on"),
        ("[gate]\nmax_drop = 2", "max_drop is 2.0; give a share from 0 to 1"),  # the metric may be an option
    ],
)
def test_a_file_that_is_no_good_is_one_sentence_and_exit_code_2(job, content, words):
    (job / "lapq.toml").write_text(content)
    result = run("model.onnx", "calib", "--config", "lapq.toml")
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_file_that_is_not_there_is_named(job):
    result = run("model.onnx", "calib", "--config", "nothing.toml")
    assert result.exit_code == 2
    assert "nothing.toml: cannot be read" in result.stderr


def test_flags_that_are_repeated_add_up_and_win_over_the_file(job):
    (job / "lapq.toml").write_text('exclude = ["node_conv2"]\nbits = ["Conv=8"]\n')
    nodes = ("--exclude", "node_conv4,node_conv6", "--exclude", "node_conv0")
    bits = ("--bits", "Gemm=w4", "--bits", "*=a7")
    options = options_of(job, "--config", "lapq.toml", *nodes, *bits, *FAST)
    assert options["exclude"] == ["node_conv4", "node_conv6", "node_conv0"]
    assert options["bits"] == ["Gemm=w4", "*=a7"]


def test_texts_of_the_command_line_are_read_in_a_file_too(job):
    (job / "lapq.toml").write_text(
        'weight_bits = "4"\nop_types = "Conv,Gemm"\nbits = "Gemm=w8"\n'
        '[preprocessing]\ncrop = 8\nresize = "8x8"\n'
    )
    options = options_of(job, "--config", "lapq.toml", *FAST)
    assert (options["weight_bits"], options["bits"]) == (4, ["Gemm=w8"])
    assert options["op_types"] == ["Conv", "Gemm"]
    assert (options["preprocessing"]["crop"], options["preprocessing"]["resize"]) == ([8, 8], [8, 8])
