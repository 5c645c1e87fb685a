"""The command line, as tests call it."""

import inspect
import logging

from click.testing import CliRunner, Result

from onnx_lapq.cli.main import main

FAST = ["--optimizer", "none", "--rounding", "nearest", "--p-grid", "2,3,4"]


_APART = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
"""What keeps standard error apart below click 8.2; from there on it is always so."""


def run(*arguments: str) -> Result:
    """Run a command; logging is then as it was before."""
    package = logging.getLogger("onnx_lapq")
    handlers, level, propagate = package.handlers[:], package.level, package.propagate
    try:
        return CliRunner(**_APART).invoke(main, list(arguments))
    finally:
        package.handlers[:] = handlers
        package.setLevel(level)
        package.propagate = propagate
