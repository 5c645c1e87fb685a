"""``onnx-lapq quantize``, the default command."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import click

from onnx_lapq import pipeline
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.cli.help import SectionedCommand
from onnx_lapq.cli.logs import LogFormat, set_up_logging
from onnx_lapq.cli.options import (
    config_option,
    files_read,
    gate_options,
    placement_options,
    preprocessing_options,
    provider_option,
    tracking_options,
)
from onnx_lapq.cli.overwriting import refuse_overwriting
from onnx_lapq.cli.progress import show_progress
from onnx_lapq.cli.tables import print_report
from onnx_lapq.cli.types import BYTES, NUMBERS
from onnx_lapq.config import LossChoice, MethodName, QuantizationConfig
from onnx_lapq.errors import GateError
from onnx_lapq.result import check_output, output_files, page_path, report_path
from onnx_lapq.stages.state_file import state_path
from onnx_lapq.study.gate import Gate, Gatekeeper
from onnx_lapq.study.tracking import Tracker, Tracking

__all__ = ["options_of_a_run", "quantize"]

logger = logging.getLogger(__name__)

_PATH = click.Path(path_type=Path)
_DEFAULT = QuantizationConfig()


@click.command(cls=SectionedCommand)
@click.argument("model", type=_PATH)
@click.argument("calib", type=_PATH)
@click.option("-o", "--output", type=_PATH, help="Quantized model. [default: MODEL_w8a8.onnx, here]")
@placement_options
@click.option("--size-budget", type=float, help="Share of the float file; bits of layers are chosen to fit.")
@click.option(
    "--method",
    type=click.Choice(get_args(MethodName)),
    default="lapq",
    show_default=True,
    help="How step sizes are chosen.",
)
@click.option("--p", type=float, default=_DEFAULT.p, show_default=True, help="For --method lp.")
@click.option(
    "--percentile",
    type=float,
    default=_DEFAULT.percentile,
    show_default=True,
    help="For --method percentile: per cent of the values that are not clipped.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="For --method random.")
@click.option(
    "--equalize/--no-equalize",
    default=None,
    help="Even out channels between layers. [default: per-tensor, where it helps]",
)
@click.option(
    "--transform",
    type=click.Choice(["none", "ocs", "dual"]),
    default="none",
    show_default=True,
    help="Ocs splits outlier channels, dual makes the worst weights sums of two low-bit ones.",
)
@click.option(
    "--rounding",
    type=click.Choice(["auto", "compensated", "nearest"]),
    default="auto",
    show_default=True,
    help="Auto: compensated for lapq, nearest for other methods.",
)
@click.option(
    "--loss",
    type=click.Choice(get_args(LossChoice)),
    default="auto",
    show_default=True,
    help="What the search minimises; auto needs no labels.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["auto", "powell", "scipy-powell", "none"]),
    default="auto",
    show_default=True,
    help="The joint step. Auto: powell for lapq, none for other methods.",
)
@click.option(
    "--p-grid", "p_values", type=NUMBERS, default=_DEFAULT.p_values, help="p of the L_p errors. [2 to 4]"
)
@click.option("--bias-correction/--no-bias-correction", default=True)
@click.option("--samples", type=int, help="Use at most this many calibration samples.")
@click.option(
    "--guard", type=float, default=0.2, show_default=True, help="Share of samples held out of the search."
)
@click.option("--max-evals", "max_evaluations", type=int, help="Cap on the evaluations of the joint step.")
@click.option(
    "--max-minutes", type=float, help="Cap on the joint step, in minutes from the first evaluation on."
)
@click.option("--workers", type=int, help="Threads. [default: one per core]")
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Ray: the samples over as many actors of a Ray cluster as --workers.",
)
@provider_option
@click.option(
    "--memory", type=BYTES, default=_DEFAULT.memory, help="For remembered codes, such as 2G. [448M]"
)
@click.option("--resume", is_flag=True, help="Go on where an interrupted run to the same output was.")
@click.option("--keep-best", is_flag=True, help="When interrupted, write the best model so far.")
@click.option(
    "--verify/--no-verify", default=True, help="Deliver only what plain onnxruntime runs as the search did."
)
@click.option("--report", is_flag=True, help="Also write OUT.report.html, the run for a person to look at.")
@preprocessing_options
@gate_options
@tracking_options
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of a table.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Lines on stderr.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no table; errors only.")
@click.option("-v", "--verbose", count=True, help="Say more; -vv for all.")
def quantize(
    model: Path,
    calib: Path,
    output: Path | None,
    preprocessing: Preprocessing,
    gate: Gate,
    tracking: Tracking,
    as_json: bool,
    log_format: LogFormat,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> None:
    """Quantize MODEL with the samples of CALIB (the default command)."""
    set_up_logging(verbose, quiet=quiet, form=log_format)
    config = QuantizationConfig(preprocessing=preprocessing, **options)
    target = output or Path(f"{model.stem}_w{config.weight_bits}a{config.activation_bits}.onnx")
    check_output(target)
    read = files_read(calib, Path(gate.test) if gate.test else None)
    refuse_overwriting([*output_files(target), state_path(target)], [model], read)
    tracker = Tracker(tracking)
    gatekeeper = Gatekeeper(gate, model, preprocessing, config.provider)
    with _resumable(target) as state:
        with show_progress(quiet=quiet, form=log_format) as observer:
            result = pipeline.quantize(model, calib, config, observer=observer, state=state)
        report = gatekeeper.admit(result).save(target)
    run = tracker.log(report)
    if as_json:
        click.echo(report.to_json(), nl=False)
    elif not quiet:
        print_report(report, [report_path(target), *([page_path(target)] if config.report else [])])
    if run is not None:
        logger.info("MLflow run %s in %s", run, tracking.mlflow)


def options_of_a_run(names: Collection[str]) -> list[click.Parameter]:
    """The options of a run that have these names, for commands that make runs of their own."""
    return [option for option in quantize.params if option.name in names]


@contextmanager
def _resumable(target: Path) -> Iterator[Path]:
    """The state file of a run: named when the run is interrupted, deleted when nothing is left to search."""
    state = state_path(target)
    try:
        yield state
    except KeyboardInterrupt as error:
        if not state.exists():
            raise
        raise KeyboardInterrupt(f"Interrupted; --resume goes on from {state}") from error
    except GateError:
        state.unlink(missing_ok=True)
        raise
    state.unlink(missing_ok=True)
