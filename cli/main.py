"""The ``onnx-lapq`` command: quantize by default, and its other commands by name."""

import logging

import click
from click.shell_completion import CompletionItem
from threadpoolctl import threadpool_limits

from onnx_lapq._version import __version__
from onnx_lapq.cli.compare import compare
from onnx_lapq.cli.config import config
from onnx_lapq.cli.errors import one_sentence_errors
from onnx_lapq.cli.evaluate import evaluate
from onnx_lapq.cli.inspect import inspect
from onnx_lapq.cli.landscape import landscape
from onnx_lapq.cli.logs import asks_for_json, set_up_logging
from onnx_lapq.cli.quantize import quantize
from onnx_lapq.cli.report import report
from onnx_lapq.cli.signals import signals_as_interrupt

__all__ = ["main"]

_GROUP_OPTIONS = {"--help", "-h", "--version"}


class _DefaultToQuantize(click.Group):
    """A group whose first argument, where it names no command, belongs to ``quantize``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if asks_for_json(args):
            set_up_logging(0, quiet=False, form="json")
        if args and args[0] not in self.commands and args[0] not in _GROUP_OPTIONS:
            args.insert(0, quantize.name or "quantize")
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands and, since no command need be named, the files and options of ``quantize``."""
        of_quantize = quantize.shell_complete(click.Context(quantize, ctx, quantize.name), incomplete)
        files = [] if incomplete.startswith("-") else [CompletionItem(incomplete, type="file")]
        return [*files, *super().shell_complete(ctx, incomplete), *of_quantize]

    def invoke(self, ctx: click.Context) -> object:
        logging.captureWarnings(capture=True)
        # Sums of several BLAS threads round differently, and our own workers keep the cores busy.
        with one_sentence_errors(), signals_as_interrupt(), threadpool_limits(1, user_api="blas"):
            return super().invoke(ctx)


@click.group(cls=_DefaultToQuantize, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="onnx-lapq")
def main() -> None:
    """Quantize a trained ONNX model to 2 to 8 bits: onnx-lapq MODEL CALIB -o OUT.

    MODEL is the float model, CALIB a folder of images or arrays (or one .npz), OUT the QDQ model that
    plain onnxruntime runs. "onnx-lapq quantize --help" shows the options of a run, "--help-all" every one.
    """


main.add_command(quantize)
main.add_command(evaluate)
main.add_command(compare)
main.add_command(inspect)
main.add_command(landscape)
main.add_command(config)
main.add_command(report)
