"""How close quantized models are to the float one, and how long each takes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from foreign import Feeds

from onnx_lapq.method.measures import decibels
from onnx_lapq.runtime.latency import rounds

__all__ = ["MOST_DB", "lowest_snr", "microseconds", "open_model"]

MOST_DB = 100.0
"""SNR of outputs that are the same but for float rounding."""

_ROUNDS, _SECONDS = 300, 10.0


def open_model(model: Path) -> ort.InferenceSession:
    """A session on one thread of the processor."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def lowest_snr(given: ort.InferenceSession, found: ort.InferenceSession, batches: Sequence[Feeds]) -> float:
    """SNR in dB of the worst float output, where the float model's values are finite.

    Raises:
        AssertionError: Names, types or shapes of inputs and outputs are others.
    """
    signatures = [
        [(value.name, value.type) for value in (*session.get_inputs(), *session.get_outputs())]
        for session in (given, found)
    ]
    assert signatures[0] == signatures[1], f"signature {signatures[0]} became {signatures[1]}"
    powers = [[0.0, 0.0] for _ in given.get_outputs()]
    for feeds in batches:
        for power, wanted, value in zip(powers, given.run(None, feeds), found.run(None, feeds), strict=True):
            if not isinstance(wanted, np.ndarray) or not np.issubdtype(wanted.dtype, np.floating):
                continue
            assert wanted.shape == value.shape, f"shape {wanted.shape} became {value.shape}"
            finite = np.isfinite(wanted)
            exact = wanted[finite].astype(np.float64)
            power[0] += float(np.square(exact).sum())
            power[1] += float(np.square(value[finite] - exact).sum())
    return min((_snr(signal, noise) for signal, noise in powers), default=MOST_DB)


def _snr(signal: float, noise: float) -> float:
    if not np.isfinite(noise) or (noise > 0 and signal == 0):
        return -MOST_DB
    return min(MOST_DB, found) if (found := decibels(signal, noise)) is not None else MOST_DB


def microseconds(sessions: Sequence[ort.InferenceSession], feeds: Feeds) -> list[float]:
    """The shortest time of each session, all run in turn."""
    return [1e6 * min(times) for times in rounds(sessions, feeds, 3, _ROUNDS, _SECONDS)]
