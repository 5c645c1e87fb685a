"""``onnx-lapq evaluate``: models side by side on labelled or unlabelled data."""

from pathlib import Path

import click

from onnx_lapq.cli.command import WorkCommand
from onnx_lapq.cli.logs import set_up_logging
from onnx_lapq.cli.options import metric_option, run_options
from onnx_lapq.common.records import to_json
from onnx_lapq.config import QuantizationConfig

__all__ = ["evaluate"]

_PATH = click.Path(path_type=Path)


@click.command(cls=WorkCommand)
@click.argument("models", type=_PATH, nargs=-1, required=True)
@click.option("--data", type=_PATH, required=True, help="A folder of images or arrays, or one .npz.")
@metric_option
@run_options(("samples", "provider", "batch_axis", "set"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    models: tuple[Path, ...], data: Path, metric: str | None, config: QuantizationConfig, as_json: bool
) -> None:
    """Score MODELS in onnxruntime: accuracy, loss, size, latency.

    The first model is the one that the others are compared with.
    """
    from onnx_lapq.cli.tables import print_scores
    from onnx_lapq.study.metric import find_metric
    from onnx_lapq.study.scores import evaluate_models

    set_up_logging(0, quiet=False)
    own = find_metric(metric) if metric else None
    scores = evaluate_models(
        models, data, config.preprocessing, config.samples, config.provider, own, config.feeding()
    )
    if as_json:
        click.echo(to_json(scores), nl=False)
    else:
        print_scores(scores)
