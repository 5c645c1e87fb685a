"""Where log lines of the package go."""

import logging

__all__ = ["set_up_logging"]


def set_up_logging(verbosity: int, *, quiet: bool) -> None:
    """Send log lines to standard error: warnings, with -v information, with -vv everything."""
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    package = logging.getLogger("onnx_lapq")
    package.handlers[:] = [handler]
    package.setLevel(level)
    package.propagate = False
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
