"""The record of a run, as a person and a machine read it."""

from dataclasses import dataclass, field
from typing import Any

from onnx_lapq.common.records import HOLDS, to_json
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.roles import FloatNode
from onnx_lapq.graph.saving import ModelRecord
from onnx_lapq.method.closeness import OutputScore
from onnx_lapq.method.parts import Part
from onnx_lapq.method.powell.search_state import StopReason
from onnx_lapq.method.step_sizes.interpolation import QuadraticFit
from onnx_lapq.stages.found import Ladder, StageRecord
from onnx_lapq.stages.promotion import Promotion

__all__ = ["SCHEMA_VERSION", "ModelScore", "OutputScore", "QuantizerRecord", "Report"]

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class QuantizerRecord:
    """One quantizer of the written model.

    Attributes:
        name: Initializer or activation.
        kind: ``weight`` or ``activation``.
        bits: 2 to 8, or 16.
        scale: Step size; for per-channel weights the median.
        channels: Number of scales.
        zero_point: Code of real zero.
        searched: Whether the joint step moved it.
        moved_by: Final step size over the one it started the joint step with.
        clip: The lowest and the highest value that survive; for per-channel weights at the median scale.
        snr_db: Power of the float values over that of their error, in dB; None without an error.
        sensitivity: Rise of the loss when this tensor alone is quantized, as the command ``sensitivity``
            measures it; None in runs without ``options.report``.
    """

    name: str
    kind: str
    bits: int
    scale: float
    channels: int
    zero_point: int
    searched: bool
    moved_by: float
    clip: tuple[float, float]
    snr_db: float | None
    sensitivity: float | None


@dataclass(frozen=True)
class ModelScore:
    """What a model does on a data set.

    Attributes:
        path: The model file; None for a model in memory.
        bytes: Its size, with external data.
        provider: What ran it, but for the nodes that only the CPU runs.
        latency_ms: Median of one sample, or of the batch that the model fixes, on one thread.
        top1: Share of samples, or of positions that have labels, whose best class is the label (one logit:
            whose sign is that of the label); None without labels or class scores.
        top5: Share of those whose label is among the best five classes; None for one logit.
        cross_entropy: Mean over them, in nats; of one logit the binary one.
        kl: Mean divergence from the first model, in nats; None for the first, and without class scores.
        outputs: Closeness of every output, or part of one, to the first model's.
        metric: What the user's own metric gives; None without one.
    """

    path: str | None
    bytes: int
    provider: str
    latency_ms: float
    top1: float | None
    top5: float | None
    cross_entropy: float | None
    kl: float | None
    outputs: tuple[OutputScore, ...]
    metric: float | None = None


@dataclass(frozen=True)
class Report:
    """Everything about a run; ``to_json`` is what ``OUT.report.json`` holds.

    Attributes:
        schema: Version of these fields; it rises when one is renamed, removed or changes its meaning.
        version: Of onnx-lapq.
        libraries: Versions of Python and of the libraries that decide numbers.
        model: The float model.
        output: The quantized model; None until it is saved.
        options: Options of the run, with what ``auto`` stood for.
        calibration: Where the samples are from, how many, their labels, preprocessing and range, and a hash
            of what reaches the model.
        loss: Name of the loss; ``combined`` where it has several parts, ``custom`` for one of the caller's.
        loss_parts: What it looks at: outputs, or some of their rows, each with the name of its loss.
        ladder: How the bits of the weights were chosen; None where the options give them.
        stages: Losses on the way.
        quadratic: The fit over p; None for methods that have none.
        history: Evaluations, search loss and guard loss at the start of the joint step and at every
            point that it accepted.
        quantizers: All quantizers of the written model.
        in_float: Nodes that compute in float, and why.
        outputs: Closeness of every float output, or part of one, to that of the user's file, on guard
            samples.
        latency_ratio: Time of one run over that of the float model, on one thread of the machine that made
            it; None where the model is for another runtime.
        stopped: What ended the joint step; ``none`` where there was none.
        evaluations: Loss evaluations of the whole run.
        seconds: Wall-clock time by phase.
        test: The float and the quantized model on the test set, where one was given.
        warnings: What a person should know.
        promotion: How bits were raised until the limits held; None in runs that were not asked to.
        compared: Samples that ``outputs`` are of.
    """

    schema: int
    version: str
    libraries: dict[str, str]
    model: ModelRecord
    output: ModelRecord | None
    options: dict[str, Any] = field(metadata={HOLDS: QuantizationConfig})
    calibration: dict[str, Any]
    loss: str
    loss_parts: tuple[Part, ...]
    ladder: Ladder | None
    stages: tuple[StageRecord, ...]
    quadratic: dict[str, Any] | None = field(metadata={HOLDS: QuadraticFit})
    history: tuple[tuple[int, float, float | None], ...]
    quantizers: tuple[QuantizerRecord, ...]
    in_float: tuple[FloatNode, ...]
    outputs: tuple[OutputScore, ...]
    latency_ratio: float | None
    evaluations: int
    stopped: StopReason
    seconds: dict[str, float]
    test: tuple[ModelScore, ...]
    warnings: tuple[str, ...]
    promotion: Promotion | None = None
    compared: int = 0

    def to_json(self) -> str:
        """Indented JSON with the field names of this class, in this order; no NaN, no infinity."""
        return to_json(self)
