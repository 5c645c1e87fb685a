"""A command that works: its help is there at once, what it runs on is loaded when it begins."""

from importlib import import_module
from typing import Any

import click

from onnx_lapq.cli.help import SectionedCommand
from onnx_lapq.cli.signals import signals_as_interrupt

__all__ = ["WorkCommand"]


class WorkCommand(SectionedCommand):
    """A command that needs onnxruntime and a second to load it."""

    def invoke(self, ctx: click.Context) -> Any:
        """Load what the command runs on, and only then mind signals and limit threads.

        While it loads, a signal ends the process without a word. Sums of several BLAS threads round
        differently, and our own workers keep the cores busy; the limit holds for libraries that are loaded.
        """
        from threadpoolctl import threadpool_limits

        import_module("onnx_lapq.pipeline")
        with signals_as_interrupt(), threadpool_limits(1, user_api="blas"):
            return super().invoke(ctx)
