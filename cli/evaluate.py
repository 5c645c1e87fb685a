"""``onnx-lapq evaluate``: models side by side on labelled or unlabelled data."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.cli.logs import set_up_logging
from onnx_lapq.cli.options import config_option, preprocessing_options, provider_option
from onnx_lapq.cli.tables import print_scores
from onnx_lapq.study.scores import evaluate_models

__all__ = ["evaluate"]

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("models", type=_PATH, nargs=-1, required=True)
@click.option("--data", type=_PATH, required=True, help="A folder of images or arrays, or one .npz.")
@click.option("--samples", type=int, help="Use at most this many samples.")
@provider_option
@preprocessing_options
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    models: tuple[Path, ...],
    data: Path,
    samples: int | None,
    provider: str,
    preprocessing: Preprocessing,
    as_json: bool,
) -> None:
    """Accuracy, loss, size and latency of MODELS in plain onnxruntime.

    The first model is the one that the others are compared with.
    """
    set_up_logging(0, quiet=False)
    scores = evaluate_models(models, data, preprocessing, samples, provider)
    if as_json:
        click.echo(json.dumps([asdict(score) for score in scores], indent=2))
    else:
        print_scores(scores)
