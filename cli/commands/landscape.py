"""``onnx-lapq landscape``: the shape of the loss around the step sizes, as figures and numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from onnx_lapq.cli.command import WorkCommand
from onnx_lapq.cli.logs import set_up_logging
from onnx_lapq.cli.options import NODES, files_read, run_options
from onnx_lapq.cli.types import BIT_PAIRS, COUNTS
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.study.extent import Extent

__all__ = ["landscape"]

_PATH = click.Path(path_type=Path)
_DEFAULT = Extent()
_OF_THE_RUN = (
    *(name for name in NODES if name != "storage"),
    *("equalize", "loss", "p_values", "samples", "max_evaluations", "workers", "provider"),
)
"""What shapes the loss; the cap on evaluations is that of each joint step of --sizes."""


@click.command(cls=WorkCommand)
@click.argument("model", type=_PATH)
@click.argument("calib", type=_PATH)
@click.option("-o", "--output", type=_PATH, help="Folder for the files. [default: MODEL_landscape, here]")
@click.option(
    "--pairs", type=BIT_PAIRS, help="Several bit widths at once, such as 8/8,4/4; instead of -w, -a."
)
@click.option("--over", nargs=2, help="Two quantizers for the surface. [default: the most coupled two]")
@click.option(
    "--hessian", type=int, default=_DEFAULT.hessian, show_default=True, help="Step sizes in the Hessian."
)
@click.option(
    "--grid", type=int, default=_DEFAULT.grid, show_default=True, help="Points a side of the surface."
)
@click.option(
    "--span", type=float, default=_DEFAULT.span, show_default=True, help="Reach of the surface, as a share."
)
@click.option(
    "--distance",
    type=float,
    default=_DEFAULT.distance,
    show_default=True,
    help="For second derivatives.",
)
@click.option("--sizes", type=COUNTS, default=(), help="Numbers of calibration samples, such as 16,64,256.")
@click.option("--test", type=_PATH, help="What --sizes is judged on. [default: every fifth sample of CALIB]")
@click.option("--format", "image", type=click.Choice(["png", "svg"]), default="png", show_default=True)
@run_options(_OF_THE_RUN)
@click.option("-q", "--quiet", is_flag=True, help="No progress, no table; errors only.")
def landscape(
    model: Path,
    calib: Path,
    output: Path | None,
    pairs: tuple[tuple[int, int], ...] | None,
    over: tuple[str, str] | None,
    hessian: int,
    grid: int,
    span: float,
    distance: float,
    sizes: tuple[int, ...],
    test: Path | None,
    image: Literal["png", "svg"],
    config: QuantizationConfig,
    quiet: bool,
) -> None:
    """Draw the loss of MODEL around its layer-wise step sizes.

    Weights are rounded to nearest. The surface costs --grid squared loss evaluations, the Hessian of k step
    sizes 4 k (k - 1) + 18 k; above --hessian step sizes those with the largest curvature are taken.
    """
    from onnx_lapq.cli.overwriting import refuse_overwriting
    from onnx_lapq.cli.progress import show_progress
    from onnx_lapq.cli.tables import print_landscape
    from onnx_lapq.study.landscape import check_folder, landscape_file, output_files

    set_up_logging(0, quiet=quiet)
    configs = [
        replace(config, weight_bits=weights, activation_bits=activations)
        for weights, activations in pairs or [(config.weight_bits, config.activation_bits)]
    ]
    folder = output or Path(f"{model.stem}_landscape")
    check_folder(folder, image)
    refuse_overwriting(output_files(folder, image), [model], files_read(calib, test))
    with show_progress(quiet=quiet) as observer:
        found, files = landscape_file(
            model,
            calib,
            folder,
            configs,
            Extent(over, hessian, grid, span, distance),
            sizes=sizes,
            test=test,
            image=image,
            observer=observer,
        )
    if not quiet:
        print_landscape(found, files)
