"""Task metrics of models in plain onnxruntime, side by side."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from onnx_lapq.calibrate import batch_limit, fixed_batch, read_samples
from onnx_lapq.calibration.labels import check_labels
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.calibration.samples import Samples
from onnx_lapq.evaluation.evaluator import batches
from onnx_lapq.evaluation.session import open_file, run
from onnx_lapq.graph.external import bytes_on_disk
from onnx_lapq.graph.loading import load
from onnx_lapq.method.losses import cross_entropy, kl_divergence, log_softmax

__all__ = ["ModelScore", "evaluate_models"]

_LATENCY_RUNS = 30
_TOP = 5


@dataclass(frozen=True)
class ModelScore:
    """What a model does on a data set.

    Attributes:
        path: The model file.
        bytes: Its size, with external data.
        latency_ms: Median of one sample, or of the batch that the model fixes, on one thread.
        top1: Share of samples whose best class is the label; None without labels or class scores.
        top5: Share of samples whose label is among the best five classes.
        cross_entropy: Mean over the samples, in nats.
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
    first = load(models[0])
    samples = read_samples(first, data, preprocessing, limit, lambda done: None)
    batch = fixed_batch(first)
    reference: npt.NDArray[np.float64] | None = None
    scores = []
    for path in models:
        session = open_file(path)
        outputs = _outputs(session, samples, batch or batch_limit(session, samples))
        latency = _latency(session, samples, batch or 1)
        scores.append(_score(path, latency, outputs, samples.labels, reference))
        if reference is None and _has_classes(outputs):
            reference = log_softmax(outputs)
    return scores


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
    reference: npt.NDArray[np.float64] | None,
) -> ModelScore:
    top1 = top5 = entropy = kl = None
    if (
        labels is not None
        and _has_classes(outputs)
        and labels.ndim == 1
        and np.issubdtype(labels.dtype, np.integer)
    ):
        check_labels(labels, outputs.shape[1])
        ranked = np.argsort(-outputs, axis=1, kind="stable") == labels[:, None]
        top1, top5 = float(ranked[:, :1].any(1).mean()), float(ranked[:, :_TOP].any(1).mean())
        entropy = float(cross_entropy(outputs, labels).mean())
    if reference is not None and outputs.shape == reference.shape:
        kl = float(kl_divergence(outputs, reference).mean())
    return ModelScore(str(path), bytes_on_disk(path), latency, top1, top5, entropy, kl)


def _has_classes(outputs: np.ndarray) -> bool:
    return outputs.ndim == 2 and outputs.shape[1] > 1


def _latency(session: ort.InferenceSession, samples: Samples, batch: int) -> float:
    one = samples.batch(0, batch)
    times = []
    for _ in range(_LATENCY_RUNS):
        start = time.perf_counter()
        run(session, one)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)
