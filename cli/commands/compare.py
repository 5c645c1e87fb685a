"""``onnx-lapq compare``: every method at every pair of bit widths, in one table."""

from pathlib import Path
from typing import get_args

import click

from onnx_lapq.cli.command import WorkCommand
from onnx_lapq.cli.fields import TABLES
from onnx_lapq.cli.logs import set_up_logging
from onnx_lapq.cli.options import files_read, metric_option, run_options
from onnx_lapq.cli.types import BIT_PAIRS, NAMES
from onnx_lapq.config import MethodName, QuantizationConfig
from onnx_lapq.progress import Progress

__all__ = ["compare"]

_PATH = click.Path(path_type=Path)
_METHODS = get_args(MethodName)
_VARIED = {"method", "weight_bits", "activation_bits", "bias_correction"}
_OF_ONE_RUN = {"resume", "report"}
_CORRECTIONS = {"both": (True, False), "on": (True,), "off": (False,)}


@click.command(cls=WorkCommand)
@click.argument("model", type=_PATH)
@click.argument("calib", type=_PATH)
@click.option("--test", type=_PATH, help="Samples for the scores. [default: CALIB]")
@metric_option
@click.option(
    "--also", type=_PATH, multiple=True, help="A model that another tool quantized; may be repeated."
)
@click.option("-o", "--output", type=_PATH, help="OUT.json and OUT.csv. [default: MODEL_compare, here]")
@click.option("--methods", type=NAMES, default=_METHODS, help=f"Of {', '.join(_METHODS)}. [default: all]")
@click.option(
    "--pairs",
    type=BIT_PAIRS,
    help="Bits of weights and activations, such as 8/8,4/4. [default: those of the paper]",
)
@click.option(
    "--bias-correction",
    "corrections",
    type=click.Choice(list(_CORRECTIONS)),
    default="both",
    show_default=True,
)
@run_options([name for name in TABLES[""] if name not in _VARIED | _OF_ONE_RUN])
@click.option("-q", "--quiet", is_flag=True, help="No progress, no table; errors only.")
def compare(
    model: Path,
    calib: Path,
    test: Path | None,
    metric: str | None,
    also: tuple[Path, ...],
    output: Path | None,
    methods: tuple[MethodName, ...],
    pairs: tuple[tuple[int, int], ...] | None,
    corrections: str,
    config: QuantizationConfig,
    quiet: bool,
) -> None:
    """Quantize MODEL by every method at many bit widths, and score.

    An interrupted comparison goes on where it stopped when the same command is given again.
    """
    from onnx_lapq.cli.overwriting import refuse_overwriting
    from onnx_lapq.cli.progress import show_progress
    from onnx_lapq.cli.tables import print_comparison
    from onnx_lapq.common.whole_files import check_writable
    from onnx_lapq.study.comparison import DEFAULT_PAIRS, cases, compare_models
    from onnx_lapq.study.comparison_table import table_files
    from onnx_lapq.study.metric import find_metric

    set_up_logging(0, quiet=quiet)
    runs = cases(config, methods, pairs or DEFAULT_PAIRS, _CORRECTIONS[corrections])
    target = output or Path(f"{model.stem}_compare")
    for file in table_files(target):
        check_writable(file)
    refuse_overwriting(table_files(target), [model, *also], files_read(calib, test))
    own = find_metric(metric) if metric else None
    total = 1 + len(runs) + len(also)
    with show_progress(quiet=quiet) as observer:

        def on_row(done: int) -> None:
            observer(Progress("compare", done, total))

        try:
            rows = compare_models(model, calib, test, runs, also, target, on_row, own)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(
                f"Interrupted; {target}.json has the rows so far, and the same command goes on from there"
            ) from error
    if not quiet:
        print_comparison(rows, target)
