"""Help that fits a screen, and shell completion."""

import click
import pytest
from click.shell_completion import BashComplete
from commands import run

from onnx_lapq.cli.main import main

SCREEN = 50
CONTEXT = click.Context(main)
COMMANDS = main.list_commands(CONTEXT)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_fits_a_screen(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) <= SCREEN
    assert max(len(line) for line in lines) <= 80


@pytest.mark.parametrize("command", ["quantize", "compare", "landscape"])
def test_the_long_help_has_every_option_once(command):
    text = run(command, "--help-all").output
    first = [line.split()[0].rstrip(",") for line in text.splitlines() if line.startswith("  -")]
    options = [
        param.opts[0] for param in main.get_command(CONTEXT, command).params if param.opts[0].startswith("-")
    ]
    assert sorted(first) == sorted([*options, "-h", "--help-all"])


def test_the_sections_hold_every_option_that_commands_share():
    text = run("quantize", "--help-all").output
    own = text.partition("Options:\n")[2].partition("\n\n")[0]
    assert "--output" in own
    assert "--weight-bits" not in own
    assert len([line for line in own.splitlines() if line.startswith("  -")]) == 3
    assert len(text.splitlines()) > SCREEN
    assert {"--help-all", "--max-kl"} <= set(text.split())
    assert "--seed" not in run("quantize", "--help").output


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("onnx-lapq qua", "plain,quantize"),
        ("onnx-lapq demo/mo", "file,demo/mo"),
        ("onnx-lapq --max-e", "plain,--max-evals"),
        ("onnx-lapq quantize --targ", "plain,--target"),
        ("onnx-lapq model.onnx calib --target openv", "plain,openvino"),
        ("onnx-lapq evaluate --da", "plain,--data"),
    ],
)
def test_the_shell_completes(typed, offered):
    *words, last = typed.split()[1:]
    complete = BashComplete(main, {}, "onnx-lapq", "_ONNX_LAPQ_COMPLETE")
    found = [complete.format_completion(item) for item in complete.get_completions(words, last)]
    assert [item.replace("\n", ",") for item in found].count(offered) == 1
