"""What a quantized model must reach on a test set before it is written."""

from dataclasses import dataclass, replace

from onnx_lapq.accuracy import ModelScore, evaluate_models
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.errors import ConfigError, GateError
from onnx_lapq.graph.loading import ModelSource
from onnx_lapq.result import QuantizationResult

__all__ = ["Gate", "pass_gate"]


@dataclass(frozen=True)
class Gate:
    """Limits on a test set; a model that misses one is not written, and the exit code is 3.

    Attributes:
        test: A folder of images or arrays, or one ``.npz``; samples that had no part in the calibration.
        min_accuracy: Least top-1 accuracy, as a share from 0 to 1.
        max_drop: Most that top-1 accuracy may fall from the float model's, as a share from 0 to 1.
        max_kl: Most divergence from the float model, in nats.
    """

    test: str | None = None
    min_accuracy: float | None = None
    max_drop: float | None = None
    max_kl: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("min_accuracy", self.min_accuracy), ("max_drop", self.max_drop)):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}; give a share from 0 to 1, such as 0.9 for 90 %")
        if self.max_kl is not None and not self.max_kl >= 0:
            raise ConfigError(f"max_kl is {self.max_kl}; give a number of nats from 0 on")
        if self.test is None and {self.min_accuracy, self.max_drop, self.max_kl} != {None}:
            raise ConfigError("min_accuracy, max_drop and max_kl need a test set; give --test")


def pass_gate(
    result: QuantizationResult, model: ModelSource, gate: Gate, preprocessing: Preprocessing
) -> QuantizationResult:
    """Evaluate a quantized model beside the float one, and refuse it where it misses a limit.

    Args:
        result: The quantized model.
        model: The float one.
        gate: The test set and the limits; without a test set everything passes.
        preprocessing: For images.

    Returns:
        The result with the scores of both models in its report.

    Raises:
        GateError: A limit is missed.
        InputError: The test set cannot be read, or has no labels where a limit needs them.
    """
    if gate.test is None:
        return result
    before, after = evaluate_models([model, result.ir_model], gate.test, preprocessing)
    missed = _missed(gate, before, after)
    if missed:
        raise GateError(f"{gate.test}: {' and '.join(missed)}; nothing was written")
    return replace(result, report=replace(result.report, test=(before, after)))


def _missed(gate: Gate, before: ModelScore, after: ModelScore) -> list[str]:
    missed = []
    if gate.min_accuracy is not None and _accuracy(gate, after) < gate.min_accuracy:
        missed.append(
            f"top-1 accuracy is {_accuracy(gate, after):.4f}, below the {gate.min_accuracy:g} asked"
        )
    if gate.max_drop is not None:
        drop = _accuracy(gate, before) - _accuracy(gate, after)
        if drop > gate.max_drop:
            missed.append(f"top-1 accuracy falls by {drop:.4f}, more than the {gate.max_drop:g} allowed")
    if gate.max_kl is not None:
        if after.kl is None:
            raise ConfigError("max_kl needs a model that gives class scores; leave it out")
        if after.kl > gate.max_kl:
            missed.append(f"KL from the float model is {after.kl:.4g}, more than the {gate.max_kl:g} allowed")
    return missed


def _accuracy(gate: Gate, score: ModelScore) -> float:
    if score.top1 is None:
        raise ConfigError(
            f"{gate.test}: accuracy needs class labels and a model that gives class scores; "
            "use max_kl, or label the test set"
        )
    return score.top1
