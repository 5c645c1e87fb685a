"""Every exception that onnx-lapq raises on purpose.

    LapqError                  exit code 1: the run failed
    ├── RunError               something went wrong while running a sound input
    ├── CancelledError         the caller ended the run
    ├── GateError              exit code 3: the quantized model misses a limit on the test set
    └── InputError             exit code 2: bad usage or bad input
        ├── ModelError         the model cannot be read, is invalid or cannot be quantized
        ├── CalibrationError   samples or labels are missing, unreadable or do not fit the model
        ├── ConfigError        an option has a value that makes no sense
        └── OutputError        the output path cannot be written

A message names the file or node first, where there is one, says what is wrong and, after a semicolon, what to
do: ``model.onnx: cannot be read; export it again``. It begins in lower case and ends without a full stop.
"""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "CalibrationError",
    "CancelledError",
    "ConfigError",
    "GateError",
    "InputError",
    "LapqError",
    "ModelError",
    "OutputError",
    "RunError",
    "first_line",
    "model_errors",
]


class LapqError(Exception):
    """Base of all errors raised on purpose; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class RunError(LapqError):
    """A sound input led to a failed run."""


class CancelledError(LapqError):
    """The caller ended the run."""


class GateError(LapqError):
    """The quantized model misses a limit on the test set."""

    exit_code = 3


class InputError(LapqError):
    """Bad usage or bad input."""

    exit_code = 2


class ModelError(InputError):
    """The model cannot be read, is invalid, or holds nothing to quantize."""


class CalibrationError(InputError):
    """Calibration samples or labels are missing, unreadable, or do not fit the model."""


class ConfigError(InputError):
    """An option has a value that makes no sense."""


class OutputError(InputError):
    """The output path cannot be written."""


def first_line(error: BaseException) -> str:
    """What an exception of a library says first, for a message of ours."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]


@contextmanager
def model_errors(subject: str) -> Iterator[None]:
    """Put down to the model whatever a library raises while it reads or rewrites one.

    Args:
        subject: What is wrong, as the message begins.

    Raises:
        ModelError: With what the first exception of a chain says.
    """
    try:
        yield
    except (LapqError, MemoryError):
        raise
    except Exception as error:
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        raise ModelError(f"{subject}: {first_line(first)}; export the model again") from error
