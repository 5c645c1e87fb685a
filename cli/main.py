"""The ``onnx-lapq`` command: quantize by default, and its other commands by name."""

import logging
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from onnx_lapq._version import __version__
from onnx_lapq.cli.errors import one_sentence_errors
from onnx_lapq.cli.logs import asks_for_json, set_up_logging

__all__ = ["main"]

_COMMANDS = ("quantize", "evaluate", "compare", "inspect", "sensitivity", "landscape", "config", "report")
"""Each is a function of its name in a module of its name, loaded when it is asked for."""

_GROUP_OPTIONS = {"--help", "-h", "--version"}


class _DefaultToQuantize(click.Group):
    """A group whose first argument, where it names no command, belongs to ``quantize``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"onnx_lapq.cli.commands.{cmd_name}"), cmd_name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if asks_for_json(args):
            set_up_logging(0, quiet=False, form="json")
        if args and args[0] not in _GROUP_OPTIONS and not _means_command(args[0]):
            args.insert(0, _COMMANDS[0])
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names, or a guess at what it should have been."""
        if args[0] not in _COMMANDS:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {_near(args[0])[0]!r}?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands and, since no command need be named, the files and options of ``quantize``."""
        quantize = self.get_command(ctx, _COMMANDS[0])
        assert quantize is not None
        of_quantize = quantize.shell_complete(click.Context(quantize, ctx, quantize.name), incomplete)
        files = [] if incomplete.startswith("-") else [CompletionItem(incomplete, type="file")]
        return [*files, *super().shell_complete(ctx, incomplete), *of_quantize]

    def invoke(self, ctx: click.Context) -> object:
        logging.captureWarnings(capture=True)
        with one_sentence_errors():
            return super().invoke(ctx)


def _means_command(word: str) -> bool:
    """Whether the first word names a command, or is no file but a slip of the pen away from one."""
    return word in _COMMANDS or (bool(_near(word)) and not Path(word).exists())


def _near(word: str) -> list[str]:
    return get_close_matches(word, _COMMANDS, n=1, cutoff=0.75)


@click.group(cls=_DefaultToQuantize, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="onnx-lapq")
def main() -> None:
    """Quantize a trained ONNX model to 2 to 8 bits: onnx-lapq MODEL CALIB -o OUT.

    MODEL is the float model, CALIB a folder of images or arrays (or one .npz), OUT the QDQ model that
    plain onnxruntime runs. "onnx-lapq quantize --help" shows the options of a run, "--help-all" every one.
    """
