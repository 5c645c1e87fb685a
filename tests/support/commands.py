"""The command line, as tests call it."""

from click.testing import CliRunner, Result

from onnx_lapq.cli.main import main

FAST = ["--optimizer", "none", "--rounding", "nearest", "--p-grid", "2,3,4"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))
