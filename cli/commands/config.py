"""``onnx-lapq config``: a file that holds every option."""

import click

from onnx_lapq.cli.config_file import default_config

__all__ = ["config"]


@click.command()
def config() -> None:
    """Print a file for --config: every option and its default."""
    click.echo(default_config())
