"""Options that several commands share."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from onnx_lapq.calibration.preprocessing import PRESETS, Preprocessing
from onnx_lapq.cli.config_file import read_config
from onnx_lapq.cli.types import BITS, NAMES, NUMBERS, SIZE
from onnx_lapq.graph.placement.targets import TARGETS
from onnx_lapq.runtime.providers import CPU
from onnx_lapq.study.gate import Gate
from onnx_lapq.study.tracking import Tracking

__all__ = [
    "config_option",
    "files_read",
    "gate_options",
    "placement_options",
    "preprocessing_options",
    "provider_option",
    "tracking_options",
]

_CONFIG_FILE = "onnx_lapq.cli.config_file"
"""Where a click context keeps the path of its option file."""

_BITS_HELP = "2 to 8, or 32 for float."


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option file, whose values become the defaults of the other options."""

    def read(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
        if path is not None:
            ctx.default_map = read_config(path)
            ctx.meta[_CONFIG_FILE] = path

    option = click.option(
        "--config",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=read,
        help="An option file, see onnx-lapq config; flags win.",
    )
    return option(command)


def files_read(*given: Path | None) -> list[Path]:
    """Those of the arguments that were given, and the option file of this command."""
    found: Path | None = click.get_current_context().meta.get(_CONFIG_FILE)
    return [path for path in (*given, found) if path is not None]


def provider_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the choice of what runs the network."""
    option = click.option(
        "--provider",
        default=CPU,
        show_default=True,
        help="Execution provider of onnxruntime, such as CUDA or OpenVINO.",
    )
    return option(command)


def placement_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that decide which tensors get a quantizer, and at how many bits."""
    options = [
        click.option("-w", "--weight-bits", type=BITS, default=8, show_default=True, help=_BITS_HELP),
        click.option("-a", "--activation-bits", type=BITS, default=8, show_default=True, help=_BITS_HELP),
        click.option(
            "--per-channel/--per-tensor",
            default=None,
            help="Scales of the weights. [default: per-channel; per-tensor in placement paper]",
        ),
        click.option(
            "--first-last",
            type=click.Choice(["8", "float", "same"]),
            default="8",
            show_default=True,
            help="Bits of the first and last layers.",
        ),
        click.option(
            "--placement", type=click.Choice(["integer", "paper"]), default="integer", show_default=True
        ),
        click.option(
            "--target",
            type=click.Choice(list(TARGETS)),
            default="ort-x86",
            show_default=True,
            help="The runtime that the model is for.",
        ),
        click.option(
            "--full-range", is_flag=True, help="All 8 bits of 8-bit weights, also where 7 run faster."
        ),
        click.option(
            "--storage",
            type=click.Choice(["int8", "packed"]),
            default="int8",
            show_default=True,
            help="Packed: two 4-bit or four 2-bit weights to a byte.",
        ),
        click.option("--include", type=NAMES, default=(), help="Nodes (globs) or operators quantized."),
        click.option("--exclude", type=NAMES, default=(), help="Nodes (globs) or operators left in float."),
        click.option("--op-types", type=NAMES, default=(), help="Only these operators, such as Conv,Gemm."),
        click.option(
            "--bits",
            multiple=True,
            help="PATTERN=BITS, as 'Gemm=w4a8', or auto (measured); may be repeated.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the limits that a quantized model must keep; the command receives ``gate``."""

    @click.option("--test", help="Test samples, as CALIB; float and quantized model are shown on them.")
    @click.option("--min-accuracy", type=float, help="Least top-1 on --test, such as 0.9; else exit code 3.")
    @click.option("--max-drop", type=float, help="Most fall of top-1 on --test, such as 0.01.")
    @click.option("--max-kl", type=float, help="Most KL from the float model on --test, in nats.")
    @wraps(command)
    def with_gate(
        *args: Any,
        test: str | None,
        min_accuracy: float | None,
        max_drop: float | None,
        max_kl: float | None,
        **rest: Any,
    ) -> Any:
        return command(*args, gate=Gate(test, min_accuracy, max_drop, max_kl), **rest)

    return with_gate


def tracking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add where a finished run goes on record; the command receives ``tracking``."""

    @click.option("--mlflow", metavar="URI", help="Put the run on record in this MLflow server or store.")
    @click.option(
        "--experiment", default=Tracking.experiment, show_default=True, help="Its experiment there."
    )
    @wraps(command)
    def with_tracking(*args: Any, mlflow: str | None, experiment: str, **rest: Any) -> Any:
        return command(*args, tracking=Tracking(mlflow, experiment), **rest)

    return with_tracking


def preprocessing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of image preprocessing; the command receives ``preprocessing``."""

    @click.option("--preset", type=click.Choice(sorted(PRESETS)), help="Start from a known preprocessing.")
    @click.option("--resize", type=SIZE, help="Shorter side, or HEIGHTxWIDTH. [default: the model's size]")
    @click.option("--crop", type=SIZE, help="Centre crop after resizing.")
    @click.option("--scale", type=float, help="Factor on pixels of 0..255. [default: 1/255]")
    @click.option("--mean", type=NUMBERS, help="Subtracted; one value or one per channel.")
    @click.option("--std", type=NUMBERS, help="Divisor; one value or one per channel.")
    @click.option(
        "--color", type=click.Choice(["auto", "rgb", "bgr", "gray"]), help="Channel order of the model."
    )
    @click.option("--layout", type=click.Choice(["auto", "nchw", "nhwc"]), help="Place of the channels.")
    @wraps(command)
    def with_preprocessing(
        *args: Any,
        preset: str | None,
        resize: int | tuple[int, int] | None,
        crop: int | tuple[int, int] | None,
        scale: float | None,
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
        color: str | None,
        layout: str | None,
        **rest: Any,
    ) -> Any:
        square = (crop, crop) if isinstance(crop, int) else crop
        given: dict[str, Any] = {
            "resize": resize,
            "crop": square,
            "scale": scale,
            "mean": mean,
            "std": std,
            "color": color,
            "layout": layout,
        }
        base = PRESETS[preset] if preset else Preprocessing()
        chosen = {name: value for name, value in given.items() if value is not None}
        return command(*args, preprocessing=replace(base, **chosen), **rest)

    return with_preprocessing
