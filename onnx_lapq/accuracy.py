"""Task metrics of models in plain onnxruntime, side by side."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from onnx_lapq.calibrate import batch_limit, fixed_batch, read_samples
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.calibration.samples import Samples
from onnx_lapq.evaluation.evaluator import batches
from onnx_lapq.evaluation.session import open_file, run
from onnx_lapq.graph.external import bytes_on_disk
from onnx_lapq.graph.loading import load
from onnx_lapq.method.objective import default_loss, make_loss

__all__ = ["Judge", "ModelScore", "evaluate_models"]

_LATENCY_RUNS = 30
_TOP = 5


@dataclass(frozen=True)
class ModelScore:
    """What a model does on a data set.

    Attributes:
        path: The model file.
        bytes: Its size, with external data.
        latency_ms: Median of one sample, or of the batch that the model fixes, on one thread.
        top1: Share of samples whose best class is the label (one logit: whose sign is that of the label);
            None without labels or class scores.
        top5: Share of samples whose label is among the best five classes; None for one logit.
        cross_entropy: Mean over the samples, in nats; of one logit the binary one.
        kl: Mean divergence from the first model, in nats; None for the first.
    """

    path: str
    bytes: int
    latency_ms: float
    top1: float | None
    top5: float | None
    cross_entropy: float | None
    kl: float | None


def evaluate_models(
    models: Sequence[Path], data: Path, preprocessing: Preprocessing, limit: int | None = None
) -> list[ModelScore]:
    """Run models over a data set with onnxruntime's default options on one thread.

    Args:
        models: Files with the same inputs; the first is the reference.
        data: A folder of images or arrays, or one ``.npz``.
        preprocessing: For images.
        limit: At most this many samples.

    Raises:
        InputError: A model or the data cannot be read, or they do not fit.
        RunError: Onnxruntime failed.
    """
    judge = Judge(models[0], data, preprocessing, limit)
    return [judge.score(path) for path in models]


class Judge:
    """Scores models on a data set, one after another; the first one is the reference of the others.

    Args:
        model: A file with the models' inputs.
        data: A folder of images or arrays, or one ``.npz``.
        preprocessing: For images.
        limit: At most this many samples.

    Raises:
        InputError: The model or the data cannot be read, or they do not fit.
    """

    def __init__(
        self, model: Path, data: Path, preprocessing: Preprocessing, limit: int | None = None
    ) -> None:
        first = load(model)
        self._samples = read_samples(first, data, preprocessing, limit, lambda done: None)
        self._batch = fixed_batch(first)
        self._reference: np.ndarray | None = None

    def score(self, path: Path) -> ModelScore:
        """Run a model over the data set.

        Raises:
            InputError: The model cannot be read, or labels do not fit.
            RunError: Onnxruntime failed.
        """
        session = open_file(path)
        batch = self._batch or batch_limit(session, self._samples)
        outputs = _outputs(session, self._samples, batch)
        latency = _latency(session, self._samples, self._batch or 1)
        score = _score(path, latency, outputs, self._samples.labels, self._reference)
        if self._reference is None:
            self._reference = outputs
        return score


def _outputs(session: ort.InferenceSession, samples: Samples, batch: int) -> np.ndarray:
    parts = [
        run(session, samples.batch(where.start, where.stop))[0] for where in batches(len(samples), batch)
    ]
    return np.concatenate(parts)


def _score(
    path: Path,
    latency: float,
    outputs: np.ndarray,
    labels: np.ndarray | None,
    reference: np.ndarray | None,
) -> ModelScore:
    top1 = top5 = entropy = kl = None
    if default_loss([outputs]) == "kl":
        every = slice(0, len(outputs))
        if labels is not None and labels.ndim == 1:
            entropy = float(make_loss("cross-entropy", [outputs], labels)([outputs], every).mean())
            top1, top5 = _hits(outputs, labels)
        if reference is not None and outputs.shape == reference.shape:
            kl = float(make_loss("kl", [reference])([outputs], every).mean())
    return ModelScore(str(path), bytes_on_disk(path), latency, top1, top5, entropy, kl)


def _hits(outputs: np.ndarray, labels: np.ndarray) -> tuple[float, float | None]:
    """Shares of labels that are the best class and among the best five."""
    if outputs.size == len(outputs):
        return float(((outputs.reshape(-1) > 0) == (labels > 0)).mean()), None
    ranked = np.argsort(-outputs, axis=1, kind="stable") == labels[:, np.newaxis]
    return float(ranked[:, :1].any(1).mean()), float(ranked[:, :_TOP].any(1).mean())


def _latency(session: ort.InferenceSession, samples: Samples, batch: int) -> float:
    one = samples.batch(0, batch)
    times = []
    for _ in range(_LATENCY_RUNS):
        start = time.perf_counter()
        run(session, one)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)
