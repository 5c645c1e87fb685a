"""A command that works: its help is there at once, what it runs on is loaded when it begins."""

from importlib import import_module
from typing import Any

import click

from onnx_lapq.cli.allocator import keep_what_is_loaded
from onnx_lapq.cli.fields import in_flags
from onnx_lapq.cli.help import SectionedCommand
from onnx_lapq.cli.options import file_keys
from onnx_lapq.cli.signals import signals_as_interrupt
from onnx_lapq.errors import ConfigError

__all__ = ["WorkCommand"]


class WorkCommand(SectionedCommand):
    """A command that needs onnxruntime and a second to load it."""

    def invoke(self, ctx: click.Context) -> Any:
        """Load what the command runs on, and only then mind signals and limit threads.

        What is wrong with an option is said of its flag, or of its key in an option file. While it loads, a
        signal ends the process without a word.
        """
        import_module("onnx_lapq.pipeline")
        keep_what_is_loaded()
        from onnx_lapq.common.blas import one_blas_thread

        with signals_as_interrupt(), one_blas_thread():
            try:
                return super().invoke(ctx)
            except ConfigError as error:
                flags = {param.name for param in self.params if param.name is not None} - file_keys()
                raise ConfigError(in_flags(str(error), flags)) from error
