"""Losses of a stage, on the samples of the search and on the guard."""

import math

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.step_sizes import Steps
from onnx_lapq.stages.found import StageRecord

__all__ = ["guard_share", "is_lower", "is_worse", "measured", "record_of"]


def measured(bench: Bench, stage: str, steps: Steps) -> StageRecord:
    """Evaluate a stage at step sizes of all quantizers."""
    return record_of(bench, stage, bench.stage_losses(steps))


def record_of(bench: Bench, stage: str, losses: FloatArray) -> StageRecord:
    """Losses of the judging samples, float64 [n], as the record of a stage."""
    is_guard = np.isin(bench.judging, bench.guard)
    guard = float(losses[is_guard].mean()) if is_guard.any() else None
    return StageRecord(stage, float(losses[~is_guard].mean()), guard, bench.evaluations)


def guard_share(bench: Bench) -> float:
    """The guard's share of all samples."""
    return len(bench.guard) / len(bench.samples)


def is_lower(losses: FloatArray, others: FloatArray) -> bool:
    """Whether losses by sample are lower than others by more than a standard error of the mean difference."""
    if not np.isfinite(others).all():
        return True
    gain = others - losses
    return bool(gain.mean() > gain.std() / math.sqrt(gain.size))


def is_worse(stage: StageRecord, before: StageRecord) -> bool:
    """Whether a stage has raised the loss of the search or that of the guard."""
    if stage.guard_loss is not None and before.guard_loss is not None:
        return stage.loss > before.loss or stage.guard_loss > before.guard_loss
    return stage.loss > before.loss
