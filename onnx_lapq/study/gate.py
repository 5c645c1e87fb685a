"""What a quantized model must reach on a test set before it is written."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.calibration.request import Feeding
from onnx_lapq.calibration.samples import Samples
from onnx_lapq.errors import ConfigError, GateError
from onnx_lapq.graph.loading import ModelSource
from onnx_lapq.method.closeness import OutputScore, worst
from onnx_lapq.report.pictures import boxes_in
from onnx_lapq.report.record import ModelScore
from onnx_lapq.result import QuantizationResult
from onnx_lapq.runtime.providers import CPU
from onnx_lapq.study.limits import Gate
from onnx_lapq.study.metric import find_metric
from onnx_lapq.study.scores import Scorer

__all__ = ["Gatekeeper", "Verdict", "shown_below"]


CALIBRATION = "calibration samples"
"""What limits hold on where there is no test set."""


@dataclass(frozen=True)
class Verdict:
    """What a model makes of the limits.

    Attributes:
        score: The model on the samples.
        missed: What falls short, in words; nothing where all limits hold.
        share: Of its distance from the float model, what the limits allow; above 1 where they hold.
        noisy: Parts below the least signal-to-noise ratio, where that is the limit that asks most.
    """

    score: ModelScore
    missed: tuple[str, ...]
    share: float
    noisy: tuple[OutputScore, ...]


class Gatekeeper:
    """Keeps the limits of a gate.

    A test set is read and the float model scored at once, so that what is wrong with them shows before
    the long run.

    Args:
        gate: The test set and the limits; without a test set everything passes, until `judge_on`.
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
        self._model = model
        self._scorer: Scorer | None = None
        self._metric = None if gate.metric is None else find_metric(gate.metric)
        self._scorer_on = partial(
            Scorer,
            model,
            preprocessing=preprocessing,
            provider=provider,
            metric=self._metric,
            feeding=feeding,
        )
        if gate.test is not None:
            self.judge_on(gate.test)

    @property
    def where(self) -> str:
        """What models are judged on."""
        return self._gate.test or CALIBRATION

    @property
    def has_samples(self) -> bool:
        """Whether there is something to judge models on."""
        return self._scorer is not None

    @property
    def has_test_set(self) -> bool:
        """Whether that is a test set, which should have had no part in the calibration."""
        return self._gate.test is not None

    def judge_on(self, samples: str | Samples) -> None:
        """Judge models on these samples, where the gate has no test set.

        Raises:
            ConfigError: A limit needs labels or class scores that are not there.
            GateError: Bits are to be raised to an accuracy that the float model itself does not have.
        """
        self._scorer = self._scorer_on(data=samples)
        self._float = self._scorer.score(self._model)
        _check(self._gate, self.where, self._float, self._scorer.no_accuracy)

    def verdict(self, model: ir.Model) -> Verdict:
        """Judge a model by all limits; `judge_on` has to have been called where there is no test set."""
        assert self._scorer is not None
        score = self._scorer.score(model)
        found = list(_limits(self._gate, self._float, score))
        tightest = min(found, key=lambda limit: limit.share, default=None)
        return Verdict(
            score,
            tuple(limit.missed for limit in found if limit.missed is not None),
            math.inf if tightest is None else tightest.share,
            () if tightest is None else tightest.noisy,
        )

    def admit(self, result: QuantizationResult) -> QuantizationResult:
        """Evaluate a quantized model, and refuse it where it misses a limit.

        Returns:
            The result with the scores of both models in its report.

        Raises:
            GateError: A limit is missed.
        """
        if self._scorer is None:
            return result
        verdict = self.verdict(result.ir_model)
        if verdict.missed:
            raise GateError(
                f"{self.where}: {' and '.join(verdict.missed)}; nothing was written; give more bits with -w "
                "and -a, or let --promote find where they are needed"
            )
        return self.on_record(result, verdict)

    def on_record(self, result: QuantizationResult, verdict: Verdict) -> QuantizationResult:
        """The result with the scores of both models in its report.

        Raises:
            RunError: The function that finds boxes for the page failed.
            ConfigError: It gave something else than boxes.
        """
        report = replace(result.report, test=(self._float, verdict.score))
        find_boxes = None if self._metric is None else self._metric.find_boxes
        if find_boxes is not None:
            for picture in result.pictures:  # before anything is written
                boxes_in(picture, 1, find_boxes)
        return replace(result, report=report, find_boxes=find_boxes)


def _check(gate: Gate, where: str, before: ModelScore, no_accuracy: str | None) -> None:
    """Refuse limits that make no sense for the float model; labels may not fit, which is said in words."""
    name, accuracy = _accuracy(before)
    if accuracy is None and (gate.min_accuracy, gate.max_drop) != (None, None):
        if no_accuracy is not None:
            raise ConfigError(f"{where}: there is no accuracy: {no_accuracy}")
        raise ConfigError(
            f"{where}: accuracy needs class labels and a model that gives class scores; "
            "use max_kl, min_snr or a --metric, or label the test set"
        )
    if gate.max_kl is not None and all(part.loss != "kl" for part in before.outputs):
        raise ConfigError(f"{where}: max_kl needs a model that gives class scores; use min_snr or a --metric")
    least = gate.min_accuracy
    if least is not None and accuracy is not None and accuracy < least:
        raise GateError(
            f"{where}: {name} of the float model is {accuracy:.4f}, below the limit of {least:g}, so "
            "that no bits are enough; nothing was written; lower the limit"
        )


@dataclass(frozen=True)
class _Limit:
    """A limit beside what was found.

    Attributes:
        missed: How it is missed; None where it holds.
        share: What it allows of the distance from the float model.
        noisy: Parts whose signal-to-noise ratio is below it.
    """

    missed: str | None
    share: float
    noisy: tuple[OutputScore, ...] = ()


def _limits(gate: Gate, before: ModelScore, after: ModelScore) -> Iterator[_Limit]:
    name, first = _accuracy(before)
    _, other = _accuracy(after)
    if first is not None and other is not None:
        drop = first - other
        if gate.min_accuracy is not None:
            text = f"{name} is {other:.4f}, below the limit of {gate.min_accuracy:g}"
            yield _limit(text, first - gate.min_accuracy, drop, other < gate.min_accuracy)
        if gate.max_drop is not None:
            text = f"{name} falls by {drop:.4f}, more than the limit of {gate.max_drop:g}"
            yield _limit(text, gate.max_drop, drop, drop > gate.max_drop)
    if gate.max_kl is not None:
        kl = math.inf if after.kl is None else after.kl  # None where the scores have another shape
        text = f"KL divergence from the float model is {kl:.4g}, above the limit of {gate.max_kl:g}"
        yield _limit(text, gate.max_kl, kl, kl > gate.max_kl)
    furthest = worst(after.outputs)
    if gate.min_snr is not None and furthest is not None:
        found = furthest.lowest_db
        shown = shown_below(found, gate.min_snr)
        text = f"SNR of {furthest.row}{furthest.label} is {shown} dB, below the limit of {gate.min_snr:g} dB"
        share = 10 ** ((found - gate.min_snr) / 10)
        noisy = tuple(part for part in after.outputs if part.lowest_db < gate.min_snr)
        yield _Limit(text if noisy else None, share, noisy)


def _limit(text: str, allowed: float, found: float, is_missed: bool) -> _Limit:
    share = max(allowed, 0.0) / found if found > 0 else math.inf
    return _Limit(text if is_missed else None, share)


def _accuracy(score: ModelScore) -> tuple[str, float | None]:
    """What the limits on accuracy hold for: the user's metric, where there is one."""
    return ("top-1 accuracy", score.top1) if score.metric is None else ("the metric", score.metric)


def shown_below(found: float, limit: float) -> str:
    """A number below a limit, with as many decimals as show that it is."""
    return f"{found:.1f}" if round(found, 1) < limit else f"{found:.4f}"
