"""``onnx-lapq inspect``: what would be quantized, or what runs on integers."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from onnx_lapq.cli.logs import set_up_logging
from onnx_lapq.cli.options import config_option, placement_options
from onnx_lapq.cli.tables import print_kernels, print_plan
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.study.inspection import Plan, inspect_file

__all__ = ["inspect"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@placement_options
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def inspect(model: Path, as_json: bool, **options: Any) -> None:
    """What would be quantized in a float MODEL, or what runs on integer kernels in a quantized one.

    The options are those of quantize, so that a choice of nodes and bits can be looked at before a run.
    """
    set_up_logging(0, quiet=False)
    found = inspect_file(model, QuantizationConfig(**options))
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
    elif isinstance(found, Plan):
        print_plan(found)
    else:
        print_kernels(found)
