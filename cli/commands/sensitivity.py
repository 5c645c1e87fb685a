"""``onnx-lapq sensitivity``: what each tensor alone costs."""

from pathlib import Path

import click

from onnx_lapq.cli.command import WorkCommand
from onnx_lapq.cli.logs import set_up_logging
from onnx_lapq.cli.options import NODES, files_read, run_options
from onnx_lapq.config import QuantizationConfig

__all__ = ["sensitivity"]

_PATH = click.Path(path_type=Path)
_OF_THE_RUN = (
    *(name for name in NODES if name != "storage"),
    *("equalize", "move_scales", "loss", "samples", "batch_axis", "set", "workers", "memory", "provider"),
)
"""What shapes the network and its loss."""


@click.command(cls=WorkCommand)
@click.argument("model", type=_PATH)
@click.argument("calib", type=_PATH)
@click.option("-o", "--output", type=_PATH, help="Page with a plot, such as OUT.html (extra report).")
@run_options(_OF_THE_RUN)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no table; errors only.")
def sensitivity(
    model: Path, calib: Path, output: Path | None, config: QuantizationConfig, as_json: bool, quiet: bool
) -> None:
    """Quantize each tensor of MODEL alone, and show what it costs.

    Weights and activations have the bits that a run would give them; all else is in float. Loss and SNR are
    those of the outputs on a part of the samples of CALIB.
    """
    from onnx_lapq.cli.bits_tables import print_sensitivity
    from onnx_lapq.cli.overwriting import refuse_overwriting
    from onnx_lapq.cli.progress import show_progress
    from onnx_lapq.study.sensitivity import sensitivity_file

    set_up_logging(0, quiet=quiet)
    refuse_overwriting([output] if output else [], [model], files_read(calib))
    with show_progress(quiet=quiet) as observer:
        found = sensitivity_file(model, calib, config, output, observer)
    if as_json:
        click.echo(found.to_json(), nl=False)
    elif not quiet:
        print_sensitivity(found, output)
