"""Promotion: raise bits, as few as it takes, until a quantized model keeps its limits.

Bits are tried out in quick runs, without the joint step. Which bits come next is read from the ladder
(`onnx_lapq.stages.promotion`): where the model is so many times too far from the float one, the steps are
taken that leave so much less of what the network lacks. The last run is a whole one, of the bits found.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from onnx_lapq.calibration.samples import SampleSource
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError, GateError, ModelError
from onnx_lapq.graph.loading import ModelSource
from onnx_lapq.graph.placement.place import place
from onnx_lapq.job import Job, checked, open_job
from onnx_lapq.pipeline import TriedOut, finish, try_out
from onnx_lapq.progress import Clock, Observer, silent
from onnx_lapq.report.closing import closing_samples
from onnx_lapq.result import QuantizationResult
from onnx_lapq.stages.found import Found
from onnx_lapq.stages.promotion import Climb, Promotion, Raise, Tried, climb_of, free_tensors, noisy_parts
from onnx_lapq.stages.sensitivity import measure_alone
from onnx_lapq.study.gate import Gatekeeper, Verdict
from onnx_lapq.study.limits import SEEN_BEFORE

__all__ = ["promote"]

_Steps = tuple[Raise, ...]

_SEEN = f"the limits hold on calibration samples, {SEEN_BEFORE}: give --test with others"

_FINE = 0.002
"""Steps that together take a smaller share of the float weights are halved by their number."""
_ENDS = 4
"""How many tensors are tried out as the last one that is quantized."""


def promote(
    model: ModelSource,
    calibration: SampleSource,
    config: QuantizationConfig,
    gatekeeper: Gatekeeper,
    observer: Observer = silent,
) -> QuantizationResult:
    """Quantize a model at the fewest bits found at which it keeps its limits.

    Args:
        model: The float model.
        calibration: The samples.
        config: Options; bits are raised from those that they give.
        gatekeeper: Knows the limits.
        observer: Told of progress.

    Returns:
        The result, with the steps that were taken and the scores of both models in its report.

    Raises:
        GateError: The limits do not hold at any bits, or at none that were found in time.
        ConfigError: An option does not go with promotion.
        InputError: The model, the samples or an option is no good.
        RunError: Onnxruntime failed on sound input.
    """
    _check(config)
    packed = replace(config, storage="packed") if config.runtime().packed else config
    config = checked(packed)
    return _Search(open_job(model, calibration, config, Clock(observer)), config, gatekeeper).result()


def _check(config: QuantizationConfig) -> None:
    if config.chooses_bits:
        raise ConfigError(
            "--promote raises bits to a quality, and --bits auto and size_budget lower them to a size; give "
            "one of them"
        )
    if config.resume:
        raise ConfigError("--resume goes on with one run, and --promote makes several; leave one of them out")


class _Search:
    """The search for the fewest steps of the ladder, and what it has tried."""

    def __init__(self, job: Job, config: QuantizationConfig, gatekeeper: Gatekeeper) -> None:
        self._job = job
        self._config = config
        self._keeper = gatekeeper
        self._trials: list[Tried] = []
        self._verdicts: dict[_Steps, Verdict] = {}
        self._results: dict[_Steps, QuantizationResult] = {}
        self._most: int | None = None
        self._evaluations = 0

    def result(self) -> QuantizationResult:
        """The whole run at the fewest steps that hold."""
        tried, verdict = self._quick((), self._config)
        if not verdict.missed:
            result, verdict = self._whole((), self._config)
            if not verdict.missed:
                return self._on_record(result, (), self._config)
        bench = tried.bench
        parts = noisy_parts(bench, verdict.noisy)
        noisy = verdict.noisy if len(parts) == len(verdict.noisy) else ()
        climb = climb_of(bench, measure_alone(bench, free_tensors(bench), parts)[0], noisy)
        del bench, tried
        self._most = len(climb.steps)
        climb, fewest = self._fewest(climb)
        for steps in _upwards(fewest, self._top(climb)):
            config, is_late = self._at(climb, steps), self._is_late()
            result, verdict = self._whole(climb.steps[:steps], config)
            if not verdict.missed:
                return self._on_record(result, climb.steps[:steps], config)
            if is_late:
                break
        raise self._failed()

    def _fewest(self, climb: Climb) -> tuple[Climb, int]:
        """A ladder, and its steps of which a quick run holds, and one of a step fewer does not."""
        low, high = self._reached(climb)
        if high is None:
            climb, low, high = self._ended_elsewhere(climb)
        while high - low > 1 and not self._is_late():
            steps = self._between(climb, low, high)
            low, high = (steps, high) if self._misses(climb, steps) else (low, steps)
        return climb, high

    def _reached(self, climb: Climb) -> tuple[int, int | None]:
        """The most steps that missed, and the first ones behind them that hold, if any do."""
        low, top = 0, self._top(climb)
        while low < top and not self._is_late():
            steps = min(max(self._guess(climb, low, top), 2 * low, 1), top)
            if not self._misses(climb, steps):
                return low, steps
            low = steps
        return low, None

    def _ended_elsewhere(self, climb: Climb) -> tuple[Climb, int, int]:
        """A ladder that leaves another tensor quantized at its top and holds there; and steps that missed."""
        if self._top(climb) == len(climb.steps):
            raise self._failed()
        others = (climb.ending_with(step) for step in climb.steps_to_float() if step != climb.steps[-1])
        able = (other for other in others if self._quantizes(other.rules(len(other.steps) - 1)))
        for other in islice(able, _ENDS):
            if self._is_late():
                break
            top = len(other.steps) - 1
            if not self._misses(other, top):
                return other, max(steps for steps in range(top) if other.steps[:steps] in self._verdicts), top
        raise self._failed(at_float=True)

    def _between(self, climb: Climb, low: int, high: int) -> int:
        """Steps to try out: in turns those that the last miss asks for, and those that halve what is open."""
        guess = max(self._guess(climb, low, high - 1), low + 1)
        if climb.cost(high) - climb.cost(low) <= _FINE * climb.cost(len(climb.steps)):
            return (low + high) // 2
        half = (climb.cost(low) + climb.cost(high)) / 2
        middle = next((steps for steps in range(low + 1, high - 1) if climb.cost(steps) >= half), high - 1)
        return guess if len(self._trials) % 2 else middle

    def _guess(self, climb: Climb, low: int, most: int) -> int:
        """The steps that a miss asks for: those that leave so much less of what the network lacks."""
        wanted = climb.left(low) * self._verdicts[climb.steps[:low]].share
        return next((steps for steps in range(low, most) if climb.left(steps) <= wanted), most)

    def _at(self, climb: Climb, steps: int) -> QuantizationConfig:
        return replace(self._config, bits=climb.rules(steps))

    def _misses(self, climb: Climb, steps: int) -> bool:
        """Whether a quick run misses a limit."""
        return bool(self._quick(climb.steps[:steps], self._at(climb, steps))[1].missed)

    def _quick(self, steps: _Steps, config: QuantizationConfig) -> tuple[TriedOut, Verdict]:
        """A quick run. Where it holds and is as good as a whole one, that is kept."""
        job = self._job.again(config.least_opset())
        tried = try_out(job, config, Found(evaluations=self._evaluations))
        self._evaluations = tried.bench.evaluations
        if not self._keeper.has_samples:
            self._keeper.judge_on(closing_samples(tried.bench))
        verdict = self._judged(steps, self._keeper.verdict(tried.model), joint=False)
        if tried.result is not None and not verdict.missed:
            self._results = {steps: tried.result()}
        return tried, verdict

    def _whole(self, steps: _Steps, config: QuantizationConfig) -> tuple[QuantizationResult, Verdict]:
        """A whole run, with the scores of its model on record. Where it is late, it is the last one."""
        if steps in self._results:
            result, verdict = self._results[steps], self._verdicts[steps]
            return self._keeper.on_record(result, verdict), verdict
        if self._is_late():
            config = replace(config, optimizer="none", max_minutes=None)
        found = Found(evaluations=self._evaluations)
        result = finish(self._job.again(config.least_opset()), config, found, lambda found: None)
        self._evaluations = result.report.evaluations
        verdict = self._judged(steps, self._keeper.verdict(result.ir_model), joint=True)
        return self._keeper.on_record(result, verdict), verdict

    def _judged(self, steps: _Steps, verdict: Verdict, *, joint: bool) -> Verdict:
        self._verdicts[steps] = verdict
        self._trials.append(Tried(len(steps), joint, verdict.missed))
        most = "" if self._most is None else f" of {self._most}"
        run = "whole run" if joint else "quick run"
        said = " and ".join(verdict.missed) or "all limits hold"
        self._job.clock.say("promote", f"trial {len(self._trials)}, {run}, {len(steps)}{most} steps: {said}")
        return verdict

    def _on_record(
        self, result: QuantizationResult, steps: _Steps, config: QuantizationConfig
    ) -> QuantizationResult:
        promotion = Promotion(self._keeper.where, steps, config.bits, tuple(self._trials))
        report, seen = result.report, () if self._keeper.has_test_set else (_SEEN,)
        return replace(result, report=replace(report, promotion=promotion, warnings=report.warnings + seen))

    def _top(self, climb: Climb) -> int:
        """The most steps that leave something to quantize."""
        return next(steps for steps in range(len(climb.steps), -1, -1) if self._quantizes(climb.rules(steps)))

    def _quantizes(self, rules: tuple[str, ...]) -> bool:
        try:
            place(self._job.prepared, replace(self._config, bits=rules).placement_options())
        except ModelError:
            return False
        return True

    def _is_late(self) -> bool:
        return self._job.clock.is_past(self._config.max_minutes)

    def _failed(self, *, at_float: bool = False) -> GateError:
        """What fell short, at best; at float one tensor was quantized, and all else was not."""
        fallen_short = [verdict for verdict in self._verdicts.values() if verdict.missed]
        best = max(fallen_short, key=lambda verdict: verdict.share)
        count = f"{len(self._trials)} trial{'s' if len(self._trials) > 1 else ''}"
        within = " within the minutes allowed" if self._is_late() else ""
        missed = " and ".join(best.missed)
        advice = "allow more minutes" if self._is_late() else "loosen the limit"
        if at_float and not self._is_late():
            within = ", the last ones with a single tensor quantized"
            advice += ", or stay with the float model"
        if self._config.bits:
            advice += ", or leave --bits out"
        return GateError(
            f"{self._keeper.where}: {missed}, at best in {count} of bits{within}; nothing was written; "
            f"{advice}"
        )


def _upwards(first: int, top: int) -> Iterator[int]:
    """Numbers of steps from the first one on, ever further apart."""
    steps, stride = first, 1
    while steps < top:
        yield steps
        steps, stride = steps + stride, 2 * stride
    yield top
