"""The command line, as tests call it."""

import logging

from click.testing import CliRunner, Result

from onnx_lapq.cli.main import main

FAST = ["--optimizer", "none", "--rounding", "nearest", "--p-grid", "2,3,4"]


def run(*arguments: str) -> Result:
    """Run a command; logging is then as it was before."""
    package = logging.getLogger("onnx_lapq")
    handlers, level, propagate = package.handlers[:], package.level, package.propagate
    try:
        return CliRunner().invoke(main, list(arguments))
    finally:
        package.handlers[:] = handlers
        package.setLevel(level)
        package.propagate = propagate
