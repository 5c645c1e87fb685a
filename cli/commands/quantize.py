"""``onnx-lapq quantize``, the default command."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import click

from onnx_lapq.cli.command import WorkCommand
from onnx_lapq.cli.logs import LogFormat, set_up_logging
from onnx_lapq.cli.options import files_read, gate_options, run_options
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import GateError
from onnx_lapq.study.limits import SEEN_BEFORE, Gate

__all__ = ["quantize"]

logger = logging.getLogger(__name__)

_PATH = click.Path(path_type=Path)

_REUSED = f"the samples of --test (%s) are those of the calibration, {SEEN_BEFORE}: give others"


@click.command(cls=WorkCommand)
@click.argument("model", type=_PATH)
@click.argument("calib", type=_PATH)
@click.option("-o", "--output", type=_PATH, help="Quantized model. [default: MODEL_w8a8.onnx, here]")
@run_options()
@gate_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of a table.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Lines on stderr.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no table; errors only.")
@click.option("-v", "--verbose", count=True, help="Say more; -vv for all.")
def quantize(
    model: Path,
    calib: Path,
    output: Path | None,
    config: QuantizationConfig,
    gate: Gate,
    as_json: bool,
    log_format: LogFormat,
    quiet: bool,
    verbose: int,
) -> None:
    """Quantize MODEL with the samples of CALIB (the default command)."""
    from onnx_lapq import pipeline
    from onnx_lapq.cli.config_file import promoted_config
    from onnx_lapq.cli.overwriting import refuse_overwriting
    from onnx_lapq.cli.progress import show_progress
    from onnx_lapq.cli.tables import print_report
    from onnx_lapq.common.whole_files import check_writable, write_whole
    from onnx_lapq.result import check_output, output_files, page_path, report_path
    from onnx_lapq.stages.state_file import state_path
    from onnx_lapq.study.gate import Gatekeeper
    from onnx_lapq.study.promotion import promote

    set_up_logging(verbose, quiet=quiet, form=log_format)
    target = output or Path(f"{model.stem}_w{config.weight_bits}a{config.activation_bits}.onnx")
    state = state_path(target)
    check_output(target)
    read = files_read(calib, Path(gate.test) if gate.test else None)
    if gate.test and Path(gate.test).resolve() == calib.resolve():
        logger.warning(_REUSED, gate.test)
    options = [target.with_name(f"{target.name}.lapq.toml")] if gate.promote else []
    refuse_overwriting([*output_files(target), state, *options], [model], read)
    for file in options:
        check_writable(file)
    gatekeeper = Gatekeeper(gate, model, config.preprocessing, config.provider, config.feeding())
    with nullcontext() if gate.promote else _resumable(state):
        with show_progress(quiet=quiet, form=log_format) as observer:
            if gate.promote:
                result = promote(model, calib, config, gatekeeper, observer)
            else:
                result = pipeline.quantize(model, calib, config, observer=observer, state=state)
        report = (result if gate.promote else gatekeeper.admit(result)).save(target)
    for file in options:
        write_whole(file, promoted_config(report, gate).encode())
    if as_json:
        click.echo(report.to_json(), nl=False)
    elif not quiet:
        records = [*options, report_path(target), *([page_path(target)] if config.report else [])]
        print_report(report, records, gatekeeper.where)


@contextmanager
def _resumable(state: Path) -> Iterator[None]:
    """Name the state file where a run is interrupted, and delete it where nothing is left to search."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not state.exists():
            raise
        raise KeyboardInterrupt(f"Interrupted; --resume goes on from {state}") from error
    except GateError:
        state.unlink(missing_ok=True)
        raise
    state.unlink(missing_ok=True)
