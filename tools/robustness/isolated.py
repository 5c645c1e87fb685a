"""The command line, or a function, in a fork of a process that has imported everything: 20 ms, not 2 s."""

import multiprocessing
import os
import pkgutil
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import ParamSpec, TypeVar

import onnx_lapq

__all__ = ["Outcome", "call_isolated", "run_command", "run_isolated", "start_isolated"]

_CONTEXT = multiprocessing.get_context("forkserver")
_MODULES = [module.name for module in pkgutil.walk_packages(onnx_lapq.__path__, "onnx_lapq.")]
_CONTEXT.set_forkserver_preload(
    [
        *(name for name in _MODULES if not name.endswith(("__main__", "ray_evaluator"))),
        *("threadpoolctl", "onnx.backend.test.loader", "onnxruntime.quantization.shape_inference"),
    ]
)

Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")

_LOST = 255
"""What multiprocessing tells of an exit code that the fork server has lost; the command never ends so."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        exit_code: Its exit code; minus the number of a signal; None where it was killed after the timeout.
        stdout: What it said.
        stderr: What went wrong.
        seconds: How long it took.
        peak: Bytes of memory at the most, shared libraries included.
    """

    exit_code: int | None
    stdout: str
    stderr: str
    seconds: float
    peak: int


def run_isolated(arguments: Sequence[str], folder: Path, timeout: int = 60, memory: int = 0) -> Outcome:
    """Run ``onnx-lapq`` with some arguments.

    Args:
        arguments: What follows the name of the command.
        folder: The current folder of the command; it may be removed afterwards.
        timeout: Seconds of the processor after which it is killed, and a tenth of the seconds on the clock.
        memory: Bytes of address space that it may take; 0 for any.
    """
    start = time.monotonic()
    process, log = start_isolated(arguments, folder, timeout, memory)
    process.join(10 * timeout)
    code = None if process.exitcode == -signal.SIGXCPU else process.exitcode
    if code == _LOST and (log / "code").exists():
        code = int((log / "code").read_text())
    if process.exitcode is None:
        process.kill()
        process.join()
    said = [(log / name).read_text(errors="replace") for name in ("stdout", "stderr")]
    peak = log / "peak"
    return Outcome(code, *said, time.monotonic() - start, int(peak.read_text()) if peak.exists() else 0)


def call_isolated(
    seconds: int, function: Callable[Inputs, Result], *arguments: Inputs.args, **named: Inputs.kwargs
) -> Result:
    """What a function returns that may crash or hang.

    Raises:
        ChildProcessError: It returned nothing, or took more seconds of the processor.
    """
    here, there = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_call, args=(there, seconds, function, arguments, named))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        process.join()
        raise ChildProcessError(f"ended with exit code {process.exitcode}") from None
    finally:
        process.join()


def _call(
    back: Connection,
    seconds: int,
    function: Callable[..., object],
    arguments: tuple[object, ...],
    named: dict,
) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    back.send(function(*arguments, **named))


def run_command(arguments: Sequence[str], folder: Path, timeout: int = 60) -> Outcome:
    """Run ``onnx-lapq`` as a shell does, in an interpreter of its own; `Outcome.peak` stays 0."""
    start = time.monotonic()
    command = [sys.executable, "-m", "onnx_lapq", *arguments]
    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, timeout=10 * timeout, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(None, "", "", time.monotonic() - start, 0)
    said = [text.decode(errors="replace") for text in (ended.stdout, ended.stderr)]
    return Outcome(ended.returncode, *said, time.monotonic() - start, 0)


def start_isolated(
    arguments: Sequence[str], folder: Path, timeout: int = 60, memory: int = 0
) -> tuple[BaseProcess, Path]:
    """Start ``onnx-lapq``, see `run_isolated`; the process, and the folder beside that gets what it says."""
    log = folder.with_name(f"{folder.name}.log")
    log.mkdir(exist_ok=True)
    (log / "code").unlink(missing_ok=True)
    process = _CONTEXT.Process(target=_main, args=(list(arguments), folder, log, timeout, memory))
    process.start()
    return process, log


def _main(arguments: list[str], folder: Path, log: Path, timeout: int, memory: int) -> None:
    from onnx_lapq.cli.main import main

    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(log / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell put us in the background
    resource.setrlimit(resource.RLIMIT_CPU, (timeout, timeout + 1))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        main(arguments, prog_name="onnx-lapq")
    except SystemExit as ended:
        (log / "code").write_text(str(ended.code))
        raise
    finally:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        (log / "peak").write_text(str(peak))
