"""What the search needs of an evaluator, and an evaluator of its calibration set."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.evaluation.runner import Point

__all__ = ["BatchSource", "Evaluator", "LossFunction"]


class Evaluator(Protocol):
    """What the search needs of a network."""

    @property
    def evaluations(self) -> int:
        """Loss evaluations so far."""

    def losses(self, point: Point) -> FloatArray:
        """Loss of every calibration sample, [samples], at a point."""


class BatchSource(Protocol):
    """Calibration samples by position."""

    def __len__(self) -> int: ...

    @property
    def groups(self) -> Sequence[int]:
        """Sizes of the runs of samples that can be fed together."""

    def batch(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Feeds of samples start .. stop - 1."""


class LossFunction(Protocol):
    """Per-sample loss of the outputs of some samples, by their positions."""

    def __call__(self, outputs: list[np.ndarray], samples: slice, /) -> FloatArray:
        """One loss per sample, float64."""
