"""``onnx-lapq inspect``: what would be quantized, or what runs on integers."""

from pathlib import Path

import click

from onnx_lapq.cli.command import WorkCommand
from onnx_lapq.cli.logs import set_up_logging
from onnx_lapq.cli.options import NODES, run_options
from onnx_lapq.common.records import to_json
from onnx_lapq.config import QuantizationConfig

__all__ = ["inspect"]


@click.command(cls=WorkCommand)
@click.argument("model", type=click.Path(path_type=Path))
@run_options((*NODES, "set"), preprocessing=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def inspect(model: Path, config: QuantizationConfig, as_json: bool) -> None:
    """Show what would be quantized, or what runs on integers.

    Of a float model the layers and the bits they would get, of a quantized one its integer kernels.

    The options are those of quantize, so that a choice of nodes and bits can be looked at before a run.
    """
    from onnx_lapq.cli.inspection_tables import print_kernels, print_plan
    from onnx_lapq.study.inspection import Plan, inspect_file

    set_up_logging(0, quiet=False)
    found = inspect_file(model, config)
    if as_json:
        click.echo(to_json(found), nl=False)
    elif isinstance(found, Plan):
        print_plan(found)
    else:
        print_kernels(found)
