"""A finished run on record in MLflow: options as parameters, losses and scores as metrics, and its files."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_lapq.common.extras import require_extra
from onnx_lapq.errors import ConfigError, RunError, first_line
from onnx_lapq.graph.saving import data_path
from onnx_lapq.report.record import Report
from onnx_lapq.result import page_path, report_path

__all__ = ["Tracker", "Tracking"]

_SCORES = ("top1", "top5", "cross_entropy", "kl", "latency_ms")
_BATCH = 1000
"""Metrics that a server takes at once."""


@dataclass(frozen=True)
class Tracking:
    """Where a finished run goes on record.

    Attributes:
        mlflow: An MLflow tracking server or store, such as ``http://localhost:5000`` or ``sqlite:///mlflow.db``;
            needs the extra ``mlflow``.
        experiment: The experiment that the run belongs to; it is made if it is not there.
    """

    mlflow: str | None = None
    experiment: str = "onnx-lapq"


class Tracker:
    """Puts finished runs on record.

    The experiment is looked up at once, so that a wrong address shows before the long run.

    Args:
        tracking: Where to; without an address nothing happens.

    Raises:
        ConfigError: MLflow is not installed, or not to be reached there.
    """

    def __init__(self, tracking: Tracking) -> None:
        self._uri = tracking.mlflow
        if tracking.mlflow is None:
            return
        require_extra("mlflow", "mlflow")
        from mlflow import MlflowClient

        try:
            self._client = MlflowClient(tracking.mlflow)
            found = self._client.get_experiment_by_name(tracking.experiment)
            self._experiment = (
                found.experiment_id if found else self._client.create_experiment(tracking.experiment)
            )
        except Exception as error:  # stores raise their own
            raise ConfigError(f"MLflow at {tracking.mlflow}: {first_line(error)}") from error

    def log(self, report: Report) -> str | None:
        """Put a run on record, with its files.

        Args:
            report: Of a run whose model is saved.

        Returns:
            The id of the run in MLflow; None without an address.

        Raises:
            RunError: MLflow did not take it.
        """
        if self._uri is None:
            return None
        assert report.output is not None
        assert report.output.path is not None
        output = Path(report.output.path)
        try:
            run: str = self._client.create_run(self._experiment, run_name=output.name).info.run_id
            self._log(run, report, output)
            self._client.set_terminated(run)
        except Exception as error:  # stores raise their own
            raise RunError(
                f"{output} is written, but MLflow at {self._uri} did not take the run: {first_line(error)}"
            ) from error
        return run

    def _log(self, run: str, report: Report, output: Path) -> None:
        from mlflow.entities import Metric, Param

        self._client.set_tag(run, "onnx_lapq.version", report.version)
        self._client.set_tag(run, "model.sha256", report.model.sha256)
        self._client.set_tag(run, "calibration.sha256", report.calibration["sha256"])
        self._client.log_batch(run, params=[Param(name, str(value)) for name, value in _params(report)])
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value, step in _metrics(report)]
        for first in range(0, len(metrics), _BATCH):
            self._client.log_batch(run, metrics=metrics[first : first + _BATCH])
        for path in _files(report, output):
            self._client.log_artifact(run, str(path))


def _params(report: Report) -> Iterator[tuple[str, Any]]:
    """Options by name, those of a table as ``table.name``; what was quantized with what."""
    yield "model", report.model.path
    yield "calibration", report.calibration["path"]
    yield "calibration.count", report.calibration["count"]
    for name, value in report.options.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{part}", inner) for part, inner in value.items())
        else:
            yield name, value


def _metrics(report: Report) -> Iterator[tuple[str, float, int]]:
    """Name, value and step: losses over the evaluations they took, then single figures."""
    last = report.stages[-1]
    for at, loss, guard in (*report.history, (last.evaluations, last.loss, last.guard_loss)):
        yield "loss", loss, at
        if guard is not None:
            yield "guard_loss", guard, at
    assert report.output is not None
    yield "bytes", report.output.bytes, 0
    yield "share_of_float_bytes", report.output.bytes / report.model.bytes, 0
    yield "evaluations", report.evaluations, 0
    yield "seconds", sum(report.seconds.values()), 0
    for model, score in zip(("float", "quantized"), report.test, strict=False):
        for name in _SCORES:
            value = getattr(score, name)
            if value is not None:
                yield f"{model}_{name}", value, 0


def _files(report: Report, output: Path) -> Iterator[Path]:
    """The model with its external data, the report and the page."""
    yield output
    if report.output is not None and report.output.bytes > output.stat().st_size:
        yield data_path(output)
    yield report_path(output)
    if report.options["report"]:
        yield page_path(output)
