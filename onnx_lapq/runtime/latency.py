"""How long models take, beside each other."""

import statistics
import time
from collections.abc import Sequence

import onnxruntime as ort

from onnx_lapq.runtime.session import Feeds, run

__all__ = ["latency_ratio", "rounds"]

SECONDS = 0.5
"""Of all runs together, but for the rounds that are run in any case."""

_LEAST, _MOST = 3, 30
"""Rounds; one of them runs both models."""


def latency_ratio(one: ort.InferenceSession, other: ort.InferenceSession, feeds: Feeds) -> float:
    """Median time of a session over that of another one.

    Args:
        one: A session on one thread.
        other: What it is compared with.
        feeds: What both are run on.
    """
    times, others = rounds([one, other], feeds, _LEAST, _MOST, SECONDS)
    return statistics.median(times) / statistics.median(others)


def rounds(
    sessions: Sequence[ort.InferenceSession], feeds: Feeds, least: int, most: int, seconds: float
) -> list[list[float]]:
    """Seconds of every run of each session, all run in turn, so that the machine's pace cancels out.

    Args:
        sessions: What is run; once before anything is timed.
        feeds: What they are run on.
        least: Rounds in any case.
        most: Rounds at most.
        seconds: After which no round is begun.
    """
    for session in sessions:
        run(session, feeds)
    times: list[list[float]] = [[] for _ in sessions]
    began = time.perf_counter()
    for done in range(most):
        if done >= least and time.perf_counter() - began > seconds:
            break
        for session, taken in zip(sessions, times, strict=True):
            start = time.perf_counter()
            run(session, feeds)
            taken.append(time.perf_counter() - start)
    return times
