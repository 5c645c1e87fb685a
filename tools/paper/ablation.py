"""Each part of the method on and off, the way the paper's Tables 3 and 4 do it.

    python tools/paper/ablation.py MODEL CALIB TEST [-w 4] [-a 4] [--mean M --std S] [--per-tensor]

Every row is one run of the whole pipeline; what is shown was measured on the test samples.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from paper_format import percent
from rich.console import Console
from rich.table import Table

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.study.scores import ModelScore, evaluate_models

_NOTHING: Mapping[str, Any] = {
    "method": "mmse",
    "rounding": "nearest",
    "bias_correction": False,
    "equalize": False,
    "optimizer": "none",
}
ROWS: Mapping[str, Mapping[str, Any]] = {
    "p = 2, nearest, nothing corrected": _NOTHING,
    "+ quadratic fit over p": {**_NOTHING, "method": "lapq"},
    "+ joint step": {**_NOTHING, "method": "lapq", "optimizer": "powell"},
    "p = 2, nearest, biases corrected": {**_NOTHING, "bias_correction": True},
    "+ quadratic fit over p, biases corrected": {**_NOTHING, "method": "lapq", "bias_correction": True},
    "+ compensated rounding": {
        **_NOTHING,
        "method": "lapq",
        "bias_correction": True,
        "rounding": "compensated",
    },
    "everything": {"optimizer": "powell", "rounding": "compensated"},
    "everything but compensated rounding": {"optimizer": "powell", "rounding": "nearest"},
    "everything but the joint step": {"optimizer": "none", "rounding": "compensated"},
    "everything but bias correction": {
        "optimizer": "powell",
        "rounding": "compensated",
        "bias_correction": False,
    },
}


def ablate(
    model: Path, calib: Path, test: Path, preprocessing: Preprocessing, options: Mapping[str, Any]
) -> tuple[ModelScore, dict[str, tuple[ModelScore, float]]]:
    """The score of the float model, and the score and seconds of every row."""
    rows = {}
    with TemporaryDirectory() as folder:
        output = Path(folder) / "model.onnx"
        for name, parts in ROWS.items():
            config = QuantizationConfig(preprocessing=preprocessing, **{**options, **parts})
            report = quantize(model, calib, config).save(output)
            before, after = evaluate_models([model, output], test, preprocessing)
            rows[name] = after, sum(report.seconds.values())
    return before, rows


@click.command(help=__doc__)
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.argument("calib", type=click.Path(path_type=Path, exists=True))
@click.argument("test", type=click.Path(path_type=Path, exists=True))
@click.option("-w", "--weight-bits", default=4, show_default=True)
@click.option("-a", "--activation-bits", default=4, show_default=True)
@click.option("--per-tensor", is_flag=True)
@click.option("--mean", type=float, default=0.2860, show_default=True)
@click.option("--std", type=float, default=0.3530, show_default=True)
def main(
    model: Path,
    calib: Path,
    test: Path,
    weight_bits: int,
    activation_bits: int,
    per_tensor: bool,
    mean: float,
    std: float,
) -> None:
    """Print one row for each set of parts."""
    options = {
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "per_channel": False if per_tensor else None,
    }
    before, rows = ablate(model, calib, test, Preprocessing(mean=(mean,), std=(std,)), options)
    table = Table("parts", "top-1 %", "KL from float", "seconds")
    table.add_row("float", percent(before.top1), "-", "-")
    for name, (score, seconds) in rows.items():
        table.add_row(
            name, percent(score.top1), "-" if score.kl is None else f"{score.kl:.4f}", f"{seconds:.1f}"
        )
    Console(width=90).print(table)


if __name__ == "__main__":
    main()
