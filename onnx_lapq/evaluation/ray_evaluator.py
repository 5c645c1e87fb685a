"""The loss of the quantized network on Ray actors, each with a part of the calibration set.

An actor holds a `SegmentEvaluator` over its samples, with its sessions and remembered values, so it re-runs
no more than the local evaluator would. A message to it holds what changed since the last one; the answer is
one number per sample. Parts end where batches end and are joined in order: the losses are those of one
process, bit for bit.

An actor keeps nothing that cannot be made again. One that dies is replaced, and its part of the evaluation
repeated.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import ray

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.errors import ConfigError, RunError, first_line
from onnx_lapq.evaluation.evaluator import SegmentEvaluator
from onnx_lapq.evaluation.protocols import BatchSource, LossFunction
from onnx_lapq.evaluation.runner import Point
from onnx_lapq.graph.writing.encodings import WeightEncoding
from onnx_lapq.graph.writing.segments import Segment

__all__ = ["Changes", "RayEvaluator", "changes"]

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_NO_CODES = np.empty(0, dtype=np.int8)


@dataclass(frozen=True)
class Changes:
    """How a point differs from the one before; a weight without codes keeps those it has."""

    scales: Mapping[str, float]
    weights: Mapping[str, WeightEncoding]

    def of(self, before: Point) -> Point:
        """The point that differs so from another one."""
        weights = {
            name: encoding if encoding.codes.size else replace(encoding, codes=before.weights[name].codes)
            for name, encoding in self.weights.items()
        }
        return Point({**before.scales, **self.scales}, {**before.weights, **weights})


def changes(before: Point, after: Point) -> Changes:
    """What takes one point to another."""
    scales = {name: scale for name, scale in after.scales.items() if before.scales.get(name) != scale}
    weights = {}
    for name, encoding in after.weights.items():
        known = before.weights.get(name)
        if known is None or known.digest != encoding.digest:
            same = known is not None and known.codes is encoding.codes
            weights[name] = replace(encoding, codes=_NO_CODES) if same else encoding
    return Changes(scales, weights)


class RayEvaluator(SegmentEvaluator):
    """A `SegmentEvaluator` whose losses Ray actors compute; what else it does, it does in this process.

    Joins the cluster that ``RAY_ADDRESS`` names; without one it starts a local cluster, which ends with the
    process. Raises ConfigError where it cannot.

    Args:
        segments: In topological order.
        outputs: Names of the graph's outputs, in the order the loss expects.
        samples: The calibration set.
        loss: Per-sample loss of the outputs.
        actors: How many at most; None for one per CPU of the cluster.
        options: Those of a `SegmentEvaluator`.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        outputs: Sequence[str],
        samples: BatchSource,
        loss: LossFunction,
        *,
        actors: int | None,
        **options: Any,
    ) -> None:
        super().__init__(segments, outputs, samples, loss, **options)
        _join()
        network = ray.put([_packed(segment) for segment in segments])
        self.parts = []
        for where in _split(self.batches, actors or int(ray.cluster_resources().get("CPU", 1))):
            feeds = [samples.batch(at.start, at.stop) for at in self.batches[where]]
            sizes = [at.stop - at.start for at in self.batches[where]]
            first = self.batches[where][0].start
            self.parts.append(
                _Part(network, list(outputs), _Batches(feeds, sizes), _shifted(loss, first), options)
            )

    def losses(self, point: Point) -> FloatArray:
        """Loss of every calibration sample at a point, float64 [samples]; counts as one evaluation.

        Raises:
            RunError: Onnxruntime failed, or an actor died again and again.
        """
        self.evaluations += 1
        for part in self.parts:
            part.ask(point)
        return np.concatenate([part.answer() for part in self.parts])


class _Part:
    """A part of the calibration set, and the actor that has it."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments
        self._last = Point({}, {})
        self._start()

    def ask(self, point: Point) -> None:
        """Ask for the losses at a point."""
        self._pending = self.actor.losses.remote(changes(self._last, point))
        self._last = point

    def answer(self) -> FloatArray:
        """The losses asked for; from another actor, if this one has died."""
        for _ in range(_ATTEMPTS):
            try:
                losses: FloatArray = ray.get(self._pending)
            except ray.exceptions.RayActorError:
                logger.warning("a Ray actor has died; another one takes its samples")
                point = self._last
                self._start()
                self.ask(point)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            else:
                return losses
        raise RunError(f"Ray actors died {_ATTEMPTS} times in a row; see the logs of the cluster")

    def _start(self) -> None:
        self._last = Point({}, {})
        self.actor: Any = ray.remote(_Actor).options(scheduling_strategy="SPREAD").remote(*self._arguments)


class _Actor:
    def __init__(
        self,
        segments: Sequence[Mapping[str, Any]],
        outputs: Sequence[str],
        samples: BatchSource,
        loss: LossFunction,
        options: Mapping[str, Any],
    ) -> None:
        unpacked = [_unpacked(segment) for segment in segments]
        self._evaluator = SegmentEvaluator(unpacked, outputs, samples, loss, **{**options, "workers": 1})
        self._last = Point({}, {})

    def losses(self, changed: Changes) -> FloatArray:
        self._last = changed.of(self._last)
        return self._evaluator.losses(self._last)


@dataclass(frozen=True)
class _Batches:
    """The samples of a part, as the batches that it evaluates."""

    feeds: Sequence[dict[str, np.ndarray]]
    groups: Sequence[int]

    def __len__(self) -> int:
        return sum(self.groups)

    def batch(self, start: int, stop: int) -> dict[str, np.ndarray]:
        starts = np.cumsum([0, *self.groups])
        return self.feeds[int(np.searchsorted(starts, start))]


def _join() -> None:
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    try:
        with _own_signals():
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # its own and the system's
        raise ConfigError(f"no Ray cluster at {address}: {first_line(error)}; check RAY_ADDRESS") from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep SIGTERM what it was; Ray would have it end the process with a stack trace."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _split(batches: Sequence[slice], parts: int) -> list[slice]:
    """Batches of each part, as even as they come."""
    groups = np.array_split(np.arange(len(batches)), min(parts, len(batches)))
    return [slice(int(group[0]), int(group[-1]) + 1) for group in groups]


def _shifted(loss: LossFunction, first: int) -> LossFunction:
    """The loss of a part, whose first sample is number 0 there."""
    return lambda outputs, at: loss(outputs, slice(at.start + first, at.stop + first))


def _packed(segment: Segment) -> dict[str, Any]:
    """A segment as it travels."""
    proto = ir.to_proto(ir.external_data.load_to_model(segment.model.clone()))
    return {**vars(segment), "model": proto.SerializeToString()}


def _unpacked(fields: Mapping[str, Any]) -> Segment:
    return Segment(**{**fields, "model": ir.from_proto(onnx.load_from_string(fields["model"]))})
