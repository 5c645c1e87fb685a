"""The self-check of the written file: onnxruntime computes what the search saw, close to the user's model.

This looks at the quantized model, once it is written. `onnx_lapq.evaluation.fidelity` looks at the float
model, before the search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnx_lapq.errors import LapqError, RunError
from onnx_lapq.evaluation.evaluator import SegmentEvaluator
from onnx_lapq.evaluation.protocols import BatchSource
from onnx_lapq.evaluation.runner import Point
from onnx_lapq.runtime.session import Feeds, open_file, open_session, run

__all__ = ["Beside", "Expectation", "expect", "verify"]

_TOLERANCE = 0.1
"""Share of an output's spread. Sums in another order round to the next code now and then, and no more."""


@dataclass(frozen=True, eq=False)
class Beside:
    """A batch on which the quantized model stood beside the user's own file, before it was written.

    Attributes:
        feeds: The batch, by input name.
        given: Float outputs of the user's file on it, by name.
        found: Those of the quantized model.
    """

    feeds: Feeds
    given: Mapping[str, np.ndarray]
    found: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Expectation:
    """What the simulated network makes of a batch.

    Attributes:
        feeds: The batch, by input name.
        outputs: The outputs on it, by name.
        precise: Whether the model is for a runtime whose kernels do not overflow, unlike onnxruntime's.
        beside: The user's own file; None where onnxruntime does not run it as it is.
    """

    feeds: Feeds
    outputs: Mapping[str, np.ndarray]
    precise: bool
    beside: Beside | None = None


def expect(
    evaluator: SegmentEvaluator,
    point: Point,
    samples: BatchSource,
    outputs: Sequence[str],
    *,
    precise: bool,
    beside: Beside | None = None,
) -> Expectation:
    """Run the simulated network at a point on the first batch of samples.

    Args:
        evaluator: Of the network.
        point: The candidate network that is written.
        samples: The calibration set.
        outputs: Names of the outputs, in the order of the loss.
        precise: See `Expectation`.
        beside: See `Expectation`.
    """
    first = evaluator.batches[0]
    found = dict(zip(outputs, evaluator.first_outputs(point), strict=True))
    return Expectation(samples.batch(first.start, first.stop), found, precise, beside)


def verify(path: Path, expected: Expectation) -> None:
    """Load a file that was written, run it, and compare its float outputs with what is expected.

    Raises:
        RunError: Onnxruntime does not run it, or computes something else.
    """
    try:
        session = open_session(ir.load(path), precise=True) if expected.precise else open_file(path)
        outputs = run(session, expected.feeds, list(expected.outputs))
        beside = expected.beside
        again = [] if beside is None else run(session, beside.feeds, list(beside.given))
    except LapqError as error:
        raise RunError(
            f"nothing was written: {error}; please report it, or write with --no-verify"
        ) from error
    for (name, wanted), found in zip(expected.outputs.items(), outputs, strict=True):
        share = _error(found, wanted)
        if not share <= _TOLERANCE:
            raise RunError(
                f"nothing was written, since onnxruntime computes output {name!r} otherwise than the search "
                f"did, by {share:.0%} of its spread; please report it, or write with --no-verify"
            )
    if beside is not None:
        _check_beside(beside, again)


def _check_beside(beside: Beside, outputs: Sequence[np.ndarray]) -> None:
    """Refuse a file that is further from the user's model than the quantized model was in memory."""
    for (name, given), found in zip(beside.given.items(), outputs, strict=True):
        share, before = _error(found, given), _error(beside.found[name], given)
        if not share <= before + _TOLERANCE:
            raise RunError(
                f"nothing was written, since output {name!r} of the file is off your model's by {share:.0%} "
                f"of its spread, and was by {before:.0%} before; please report it, or write with --no-verify"
            )


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square of the difference over that of the wanted values around their mean."""
    if found.shape != wanted.shape:
        return np.inf
    if wanted.dtype.kind != "f":
        return 0.0
    finite = np.isfinite(wanted)
    wanted = wanted[finite].astype(np.float64)
    difference = found[finite] - wanted
    if not difference.any():
        return 0.0
    spread = wanted.std() or np.abs(wanted).max()
    return float(np.sqrt(np.square(difference).mean()) / spread) if spread > 0 else np.inf
