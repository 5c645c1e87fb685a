"""Ctrl-C and SIGTERM while the command is still being imported."""

import signal
import subprocess
import sys
import time

import pytest
from child_processes import heeding_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["onnx_lapq.cli.signals", "click", "numpy", "onnx"])
def test_a_signal_while_modules_load_ends_with_130(number, module):
    """Python names a module on standard error once it is loaded."""
    command = [sys.executable, "-X", "importtime", "-m", "onnx_lapq", "inspect", "nothing.onnx"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heeding_signals
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.split("|")[-1].strip() == module:
                break
        time.sleep(0.02)
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
