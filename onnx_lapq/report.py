"""The record of a run, as a person and a machine read it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx_lapq.accuracy import ModelScore
from onnx_lapq.files import ModelRecord
from onnx_lapq.graph.roles import FloatNode
from onnx_lapq.method.search_state import StopReason

__all__ = ["SCHEMA_VERSION", "QuantizerRecord", "Report", "StageRecord"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class StageRecord:
    """Loss of one stage of the search.

    Attributes:
        stage: ``float``, ``min-max``, ``p=2`` and other p, ``quadratic`` (or the baseline's name),
            ``compensated`` or ``joint``.
        loss: Mean over the samples that the search minimises.
        guard_loss: Mean over the samples that it never minimises; None without a guard. From ``compensated``
            on these samples have had a part in the codes, so it is lower than on samples never seen.
        evaluations: Loss evaluations spent up to here.
    """

    stage: str
    loss: float
    guard_loss: float | None
    evaluations: int


@dataclass(frozen=True)
class QuantizerRecord:
    """One quantizer of the written model.

    Attributes:
        name: Initializer or activation.
        kind: ``weight`` or ``activation``.
        bits: 2 to 8.
        scale: Step size; for per-channel weights the median.
        channels: Number of scales.
        zero_point: Code of real zero.
        searched: Whether the joint step moved it.
        moved_by: Final step size over the one it started the joint step with.
    """

    name: str
    kind: str
    bits: int
    scale: float
    channels: int
    zero_point: int
    searched: bool
    moved_by: float


@dataclass(frozen=True)
class Report:
    """Everything about a run, as ``OUT.report.json`` holds it; ``stopped`` is what ended the joint step."""

    schema: int
    version: str
    libraries: dict[str, str]
    model: ModelRecord
    output: ModelRecord | None
    options: dict[str, Any]
    calibration: dict[str, Any]
    loss: str
    stages: tuple[StageRecord, ...]
    quadratic: dict[str, Any] | None
    history: tuple[tuple[int, float, float | None], ...]
    quantizers: tuple[QuantizerRecord, ...]
    in_float: tuple[FloatNode, ...]
    evaluations: int
    stopped: StopReason
    seconds: dict[str, float]
    test: tuple[ModelScore, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> str:
        """Indented JSON with the field names of this class, in this order."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
