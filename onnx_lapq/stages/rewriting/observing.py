"""One look at the float network for all rewritings that scale channels by what they see of it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.network.batching import small_batch, some_samples
from onnx_lapq.network.float_network import float_runs

__all__ = ["HELD_OUT", "Candidate", "held_out", "observed_samples", "scale_channels"]

_SAMPLES = 64
HELD_OUT = 4
"""One sample in so many judges."""


class Candidate(Protocol):
    """A value whose channels may be scaled, and what was seen of it."""

    @property
    def names(self) -> Sequence[str]:
        """Values of the float network to look at."""
        ...

    def look(self, values: Mapping[str, np.ndarray], at: slice) -> None:
        """Take in these values on a batch of samples."""
        ...

    def scale(self, graph: ir.Graph) -> bool:
        """Scale the channels in place, and say so, where that brings what reads them nearer to float."""
        ...


def scale_channels(
    model: ir.Model, samples: Samples, config: QuantizationConfig, candidates: Sequence[Candidate]
) -> int:
    """Scale the channels of all candidates that gain by it; what the float network computes stays the same.

    Args:
        model: The prepared model that the candidates are of; changed in place.
        samples: The calibration set.
        config: Options of the run.
        candidates: In the order in which they are scaled.

    Returns:
        The number of values whose channels were scaled.
    """
    if not candidates:
        return 0
    few = observed_samples(model, samples)
    runs = float_runs(model, few, small_batch(model, few), config.threads, config.provider)
    for where, values in runs(list(dict.fromkeys(name for each in candidates for name in each.names))):
        for candidate in candidates:
            candidate.look(values, where)
    return sum(candidate.scale(model.graph) for candidate in candidates)


def observed_samples(model: ir.Model, samples: Samples) -> Samples:
    """Those of the calibration set that are looked at."""
    return some_samples(model, samples, _SAMPLES)


def held_out(at: slice) -> npt.NDArray[np.bool_]:
    """Which samples of a batch judge."""
    judges: npt.NDArray[np.bool_] = np.arange(at.start, at.stop) % HELD_OUT == HELD_OUT - 1
    return judges
