"""Where exceptions become one sentence and an exit code."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from onnx_lapq.cli.logs import logs_are_json, print_error, print_interrupted
from onnx_lapq.cli.signals import INTERRUPTED
from onnx_lapq.errors import LapqError

__all__ = ["one_sentence_errors"]

logger = logging.getLogger(__name__)

_OUT_OF_MEMORY = "out of memory; allow more, or use fewer --samples, fewer --workers or a smaller --memory"
_SIGNS_OF_NO_MEMORY = ("can't start new thread", "failed to map segment", "Cannot allocate memory")
"""How threads and libraries that are loaded late say it."""


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Turn whatever goes wrong inside into a message on standard error; never a traceback.

    Exit codes: 2 for usage and bad input, 1 for a failed run, 3 for a missed limit, 130 when interrupted.
    """
    try:
        yield
    except (click.exceptions.Exit, click.Abort):
        raise
    except click.ClickException as error:
        if not logs_are_json():
            raise
        raise _failure(error.format_message(), error.exit_code) from error
    except LapqError as error:
        raise _failure(str(error), error.exit_code) from error
    except KeyboardInterrupt as error:
        print_interrupted(str(error) or "Interrupted; nothing was written")
        raise click.exceptions.Exit(INTERRUPTED) from error
    except MemoryError as error:
        raise _failure(_OUT_OF_MEMORY, 1) from error
    except BrokenPipeError as error:
        sys.stderr.close()
        raise click.exceptions.Exit(1) from error
    except Exception as error:
        if any(sign in str(error) for sign in _SIGNS_OF_NO_MEMORY):
            raise _failure(_OUT_OF_MEMORY, 1) from error
        logger.debug("traceback of an internal error", exc_info=True)
        text = f"internal error ({type(error).__name__}: {error}); please report it, with the output of -vv"
        raise _failure(text, 1) from error


def _failure(message: str, exit_code: int) -> click.exceptions.Exit:
    print_error(message)
    return click.exceptions.Exit(exit_code)
