"""What a quantized model must reach on a test set before it is written."""

import math
from collections.abc import Iterator
from dataclasses import replace

from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.calibration.request import Feeding
from onnx_lapq.config import Gate
from onnx_lapq.errors import ConfigError, GateError
from onnx_lapq.graph.loading import ModelSource
from onnx_lapq.method.closeness import worst
from onnx_lapq.report.record import ModelScore
from onnx_lapq.result import QuantizationResult
from onnx_lapq.runtime.providers import CPU
from onnx_lapq.study.metric import find_metric
from onnx_lapq.study.scores import Scorer

__all__ = ["Gatekeeper"]


class Gatekeeper:
    """Keeps the limits of a gate.

    The test set is read and the float model scored at once, so that what is wrong with them shows before
    the long run.

    Args:
        gate: The test set and the limits; without a test set everything passes.
        model: The float model.
        preprocessing: For images.
        provider: What runs the models.
        feeding: What is said of inputs that are not a batch along their first axis.

    Raises:
        InputError: The test set cannot be read, has no labels where a limit needs them, or the model gives
            no class scores where a limit needs those.
    """

    def __init__(
        self,
        gate: Gate,
        model: ModelSource,
        preprocessing: Preprocessing,
        provider: str = CPU,
        feeding: Feeding | None = None,
    ) -> None:
        self._gate = gate
        if gate.test is None:
            return
        metric = None if gate.metric is None else find_metric(gate.metric)
        self._find_boxes = None if metric is None else metric.find_boxes
        self._scorer = Scorer(
            model, gate.test, preprocessing, provider=provider, metric=metric, feeding=feeding
        )
        self._float = self._scorer.score(model)
        if _accuracy(self._float)[1] is None and (gate.min_accuracy, gate.max_drop) != (None, None):
            raise ConfigError(
                f"{gate.test}: accuracy needs class labels and a model that gives class scores; "
                "use max_kl, min_snr or a metric, or label the test set"
            )
        if gate.max_kl is not None and all(part.loss != "kl" for part in self._float.outputs):
            raise ConfigError(
                f"{gate.test}: max_kl needs a model that gives class scores; use min_snr or a metric"
            )

    def admit(self, result: QuantizationResult) -> QuantizationResult:
        """Evaluate a quantized model, and refuse it where it misses a limit.

        Returns:
            The result with the scores of both models in its report.

        Raises:
            GateError: A limit is missed.
        """
        if self._gate.test is None:
            return result
        score = self._scorer.score(result.ir_model)
        missed = list(_missed(self._gate, self._float, score))
        if missed:
            raise GateError(f"{self._gate.test}: {' and '.join(missed)}; nothing was written")
        report = replace(result.report, test=(self._float, score))
        return replace(result, report=report, find_boxes=self._find_boxes)


def _missed(gate: Gate, before: ModelScore, after: ModelScore) -> Iterator[str]:
    name, first = _accuracy(before)
    _, other = _accuracy(after)
    if first is not None and other is not None:
        drop = first - other
        if gate.min_accuracy is not None and other < gate.min_accuracy:
            yield f"{name} is {other:.4f}, below the {gate.min_accuracy:g} asked"
        if gate.max_drop is not None and drop > gate.max_drop:
            yield f"{name} falls by {drop:.4f}, more than the {gate.max_drop:g} allowed"
    if gate.max_kl is not None:
        kl = math.inf if after.kl is None else after.kl  # None where the scores have another shape
        if kl > gate.max_kl:
            yield f"KL from the float model is {kl:.4g}, more than the {gate.max_kl:g} allowed"
    furthest = worst(after.outputs)
    if gate.min_snr is not None and furthest is not None and furthest.lowest_db < gate.min_snr:
        where = f"{furthest.row}{furthest.label}"
        yield f"SNR of {where} is {furthest.lowest_db:.1f} dB, below the {gate.min_snr:g} asked"


def _accuracy(score: ModelScore) -> tuple[str, float | None]:
    """What the limits on accuracy hold for: the user's metric, where there is one."""
    return ("top-1 accuracy", score.top1) if score.metric is None else ("the metric", score.metric)
