"""How long a model takes beside another one."""

import statistics
import time

import onnxruntime as ort

from onnx_lapq.runtime.session import Feeds, run

__all__ = ["latency_ratio"]

SECONDS = 1.0
"""Of all runs together, but for the rounds that are run in any case."""

_LEAST, _MOST = 3, 200
"""Rounds; one of them runs both models."""


def latency_ratio(one: ort.InferenceSession, other: ort.InferenceSession, feeds: Feeds) -> float:
    """Median time of a session over that of another one, run in turn so that the machine's pace cancels out.

    Args:
        one: A session on one thread.
        other: What it is compared with.
        feeds: What both are run on.
    """
    times: dict[ort.InferenceSession, list[float]] = {one: [], other: []}
    for session in times:
        run(session, feeds)
    began = time.perf_counter()
    for done in range(_MOST):
        if done >= _LEAST and time.perf_counter() - began > SECONDS:
            break
        for session, taken in times.items():
            start = time.perf_counter()
            run(session, feeds)
            taken.append(time.perf_counter() - start)
    return statistics.median(times[one]) / statistics.median(times[other])
