"""Losses of a stage, on the samples of the search and on the guard."""

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.step_sizes import Steps
from onnx_lapq.stages.found import StageRecord

__all__ = ["guard_share", "measured", "record_of"]


def measured(bench: Bench, stage: str, steps: Steps) -> StageRecord:
    """Evaluate a stage at step sizes of all quantizers."""
    return record_of(bench, stage, bench.losses(steps))


def record_of(bench: Bench, stage: str, losses: FloatArray) -> StageRecord:
    """Losses by sample, float64 [samples], as the record of a stage."""
    guard = float(losses[bench.guard].mean()) if len(bench.guard) else None
    return StageRecord(stage, float(np.delete(losses, bench.guard).mean()), guard, bench.evaluations)


def guard_share(bench: Bench) -> float:
    """The guard's share of all samples."""
    return len(bench.guard) / len(bench.samples)
