"""Where log lines of the package go, and in which form."""

import json
import logging
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import click

__all__ = [
    "LogFormat",
    "asks_for_json",
    "json_line",
    "logs_are_json",
    "print_error",
    "print_interrupted",
    "printable",
    "set_up_logging",
]

LogFormat = Literal["text", "json"]

_LONGEST = 600
"""Characters of a message."""


class _TextFormatter(logging.Formatter):
    """Names of a stranger's files and nodes stay on their line; a traceback, with -vv, stays whole."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {"logger": record.name}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json_line(record.levelname, record.getMessage(), **fields)


def set_up_logging(verbosity: int, *, quiet: bool, form: LogFormat = "text") -> None:
    """Send log lines to standard error: warnings, with -v information, with -vv everything."""
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    handler = logging.StreamHandler()
    text = _TextFormatter("%(levelname)s: %(message)s")
    handler.setFormatter(_JsonFormatter() if form == "json" else text)
    package = logging.getLogger("onnx_lapq")
    package.handlers[:] = [handler]
    package.setLevel(level)
    package.propagate = False
    for library in ("onnx_ir", "onnxscript"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def printable(text: str) -> str:
    """One line without control characters, which names in a stranger's files may hold, and not endless."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    half = _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[:half]} ... {line[-half:]}"


def print_error(message: str) -> None:
    """The sentence that a command ends with, in the form of the log lines."""
    line = printable(message)
    click.echo(json_line("ERROR", line) if logs_are_json() else f"Error: {line}", err=True)


def print_interrupted(message: str) -> None:
    """The sentence that an interrupted command ends with, in the form of the log lines."""
    line = printable(message)
    click.echo(json_line("WARNING", line) if logs_are_json() else line, err=True)


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether a command line sets ``--log-format json``, be the rest of it right or wrong."""
    return "--log-format=json" in arguments or ("--log-format", "json") in pairwise(arguments)


def logs_are_json() -> bool:
    """Whether log lines are JSON."""
    handlers = logging.getLogger("onnx_lapq").handlers
    return any(isinstance(handler.formatter, _JsonFormatter) for handler in handlers)


def json_line(level: str, message: str, **fields: Any) -> str:
    """A log line in JSON, with the time in UTC."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"time": now, "level": level, "message": message, **fields}, ensure_ascii=False)
