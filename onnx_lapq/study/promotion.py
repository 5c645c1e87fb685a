"""Promotion: raise bits, as few as it takes, until a quantized model keeps its limits.

Bits are tried out in quick runs, without the joint step. Which bits come next is read from the ladder
(`onnx_lapq.stages.promotion`): where the model is so many times too far from the float one, the steps are
taken that leave so much less of what the network lacks. The last run is a whole one, of the bits found.
"""

from collections.abc import Iterator
from dataclasses import replace

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

__all__ = ["promote"]

_FINE = 0.002
"""Steps that together take a smaller share of the float weights are not told apart."""


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
        self._verdicts: dict[int, Verdict] = {}
        self._results: dict[int, QuantizationResult] = {}
        self._most: int | None = None
        self._evaluations = 0

    def result(self) -> QuantizationResult:
        """The whole run at the fewest steps that hold."""
        tried, verdict = self._quick(0, self._config)
        if not verdict.missed:
            result, verdict = self._whole(0, self._config)
            if not verdict.missed:
                return self._on_record(result, (), self._config)
        bench = tried.bench
        parts = noisy_parts(bench, verdict.noisy)
        noisy = verdict.noisy if len(parts) == len(verdict.noisy) else ()
        climb = climb_of(bench, measure_alone(bench, free_tensors(bench), parts)[0], noisy)
        del bench, tried
        self._most = len(climb.steps)
        for steps in _upwards(self._fewest(climb), self._top(climb)):
            config, is_late = replace(self._config, bits=climb.rules(steps)), self._is_late()
            result, verdict = self._whole(steps, config)
            if not verdict.missed:
                return self._on_record(result, climb.steps[:steps], config)
            if is_late:
                break
        raise self._failed()

    def _fewest(self, climb: Climb) -> int:
        """Steps of which a quick run holds, and one of hardly fewer does not."""
        low, high, top = 0, None, self._top(climb)
        fine = _FINE * climb.cost(len(climb.steps))
        while high is None or (high - low > 1 and climb.cost(high) - climb.cost(low) > fine):
            if low >= top or self._is_late():
                break
            steps = self._next(climb, low, high, top)
            config = replace(self._config, bits=climb.rules(steps))
            _, verdict = self._quick(steps, config)
            low, high = (steps, high) if verdict.missed else (low, steps)
        if high is None:
            raise self._failed()
        return high

    def _next(self, climb: Climb, low: int, high: int | None, top: int) -> int:
        """Steps to try out: those that the last miss asks for, more than so many, and fewer than others."""
        most = top if high is None else high - 1
        wanted = climb.left(low) * self._verdicts[low].share
        guess = next((steps for steps in range(low, most) if climb.left(steps) <= wanted), most)
        if high is None:
            return min(max(guess, 2 * low, 1), top)
        half = (climb.cost(low) + climb.cost(high)) / 2
        middle = next((steps for steps in range(low + 1, most) if climb.cost(steps) >= half), most)
        return max(guess, low + 1) if len(self._trials) % 2 else middle

    def _quick(self, steps: int, config: QuantizationConfig) -> tuple[TriedOut, Verdict]:
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

    def _whole(self, steps: int, config: QuantizationConfig) -> tuple[QuantizationResult, Verdict]:
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

    def _judged(self, steps: int, verdict: Verdict, *, joint: bool) -> Verdict:
        self._verdicts[steps] = verdict
        self._trials.append(Tried(steps, joint, verdict.missed))
        most = "" if self._most is None else f" of {self._most}"
        run = "whole run" if joint else "quick run"
        said = " and ".join(verdict.missed) or "all limits hold"
        self._job.clock.say("promote", f"trial {len(self._trials)}, {run}, {steps}{most} steps: {said}")
        return verdict

    def _on_record(
        self, result: QuantizationResult, steps: tuple[Raise, ...], config: QuantizationConfig
    ) -> QuantizationResult:
        promotion = Promotion(self._keeper.where, steps, config.bits, tuple(self._trials))
        return replace(result, report=replace(result.report, promotion=promotion))

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

    def _failed(self) -> GateError:
        fallen_short = [verdict for verdict in self._verdicts.values() if verdict.missed]
        best = max(fallen_short, key=lambda verdict: verdict.share)
        count = f"{len(self._trials)} trial{'s' if len(self._trials) > 1 else ''}"
        within = " within the minutes allowed" if self._is_late() else ""
        missed = " and ".join(best.missed)
        advice = "allow more minutes" if self._is_late() else "loosen the limit"
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
