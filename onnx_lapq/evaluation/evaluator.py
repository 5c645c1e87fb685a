"""The loss of the quantized network as a function of its encodings.

The network is a list of segments (`onnx_lapq.graph.simulate`). Every value at a cut has a key: a hash of
the scales, weights and values it was computed from. An evaluation runs the segments whose key it does
not know and takes the others from memory, so along a coordinate only the layers behind the changed step
size run again. Both ways run the same sessions on the same batches, so the loss is the same bit for bit.

A value is remembered once its key shows up in two evaluations in a row (or nothing is remembered for
it): trial points come and go, the point the search stands on stays. Only the smallest values that fit the
budget together are ever remembered, and what a new one replaces goes first, so the budget holds at every
moment.
"""

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from onnx_lapq.evaluation.providers import CPU
from onnx_lapq.evaluation.session import Feeds, detach, open_session, run
from onnx_lapq.graph.encodings import WeightEncoding
from onnx_lapq.graph.export import weight_tensors
from onnx_lapq.graph.qdq import code_limits, limits_name, scale_name
from onnx_lapq.graph.simulate import Segment

__all__ = ["Evaluator", "Point", "SegmentEvaluator", "batches"]

Losses = npt.NDArray[np.float64]
T = TypeVar("T")
_Opener = Callable[[onnx.ModelProto, Mapping[str, np.ndarray]], ort.InferenceSession]

_SESSIONS = 3


@dataclass(frozen=True)
class Point:
    """One candidate network: scales of all activation sites, encodings of all weight sites."""

    scales: Mapping[str, float]
    weights: Mapping[str, WeightEncoding]


class Evaluator(Protocol):
    """What the search needs of a network."""

    evaluations: int

    def losses(self, point: Point) -> Losses:
        """Loss of every calibration sample, [samples], at a point."""


class BatchSource(Protocol):
    """Calibration samples by position."""

    def __len__(self) -> int: ...

    def batch(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Feeds of samples start .. stop - 1."""


class LossFunction(Protocol):
    """Per-sample loss of the outputs of some consecutive samples."""

    def __call__(self, outputs: list[np.ndarray], samples: slice, /) -> Losses: ...


def batches(count: int, size: int) -> list[slice]:
    """Consecutive slices of at most ``size`` samples."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class SegmentEvaluator:
    """Runs segments over the calibration set on worker threads, remembering values at the cuts.

    Args:
        segments: In topological order.
        outputs: Names of the graph's outputs, in the order the loss expects.
        samples: The calibration set.
        loss: Per-sample loss of the outputs.
        batch_size: Samples per session run.
        workers: Threads; the result does not depend on their number.
        memory: Bytes that remembered values may take at any moment; the largest are not remembered.
        precise: Run kernels that do not overflow, for a target whose own do not.
        provider: What runs the segments.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        outputs: Sequence[str],
        samples: BatchSource,
        loss: LossFunction,
        *,
        batch_size: int,
        workers: int,
        memory: int,
        precise: bool = False,
        provider: str = CPU,
    ) -> None:
        self.evaluations = 0
        self._open = partial(open_session, precise=precise, provider=provider)
        self._runners = [_Runner(segment, self._open) for segment in segments]
        self._probes: dict[str, _Runner] = {}
        self._outputs = list(outputs)
        self._samples = samples
        self._loss = loss
        self.batches = batches(len(samples), batch_size)
        self._pool = ThreadPoolExecutor(max_workers=workers)
        self._ahead = 2 * workers
        self._cache = _Cache(memory)
        self._graph_inputs = {name for runner in self._runners for name in runner.segment.inputs} - {
            runner.segment.output for runner in self._runners
        }

    def losses(self, point: Point) -> Losses:
        """Loss of every calibration sample at a point, float64 [samples]; counts as one evaluation."""
        self.evaluations += 1
        return np.concatenate(list(self._evaluate(self._runners, self._outputs, point, self._loss)))

    def observe(self, probe: Segment, point: Point, finish: Callable[[np.ndarray, slice], T]) -> Iterator[T]:
        """Look at a value inside the network, batch by batch.

        The network runs while the results are taken, only a few batches ahead of them.

        Args:
            probe: A segment that ends in the value.
            point: The candidate network.
            finish: What to make of the value on a batch of samples; called on worker threads.

        Returns:
            The results in sample order.
        """
        if probe.output not in self._probes:
            self._probes[probe.output] = _Runner(probe, self._open)
        runners = [*self._runners, self._probes[probe.output]]
        return self._evaluate(
            runners, [probe.output], point, lambda outputs, where: finish(outputs[0], where)
        )

    def _evaluate(
        self,
        runners: Sequence["_Runner"],
        outputs: Sequence[str],
        point: Point,
        finish: Callable[[list[np.ndarray], slice], T],
    ) -> Iterator[T]:
        keys = self._keys(runners, point)
        plan = self._plan(runners, outputs, keys)
        for runner in plan:
            runner.load(point)
        lasting = [runner.segment.output for runner in plan if runner in self._runners]
        self._measure(plan, outputs, lasting)
        store = self._cache.make_room(lasting, keys)

        def one(index: int) -> tuple[T, dict[str, np.ndarray]]:
            values, kept = self._run_batch(index, plan, outputs, store)
            return finish(values, self.batches[index]), kept

        parts = []
        for result, kept in self._in_order(one):
            parts.append(kept)
            yield result
        for name in store:
            self._cache.put(name, keys[name], [kept[name] for kept in parts])
        self._cache.seen(keys)

    def _in_order(self, one: Callable[[int], T]) -> Iterator[T]:
        """Results for all batches; few wait at a time."""
        pending: deque[Future[T]] = deque()
        for index in range(len(self.batches)):
            pending.append(self._pool.submit(one, index))
            if len(pending) > self._ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _measure(self, plan: Sequence["_Runner"], outputs: Sequence[str], names: Sequence[str]) -> None:
        """Tell the cache what remembering new values would take, from one batch."""
        unknown = set(names) - self._cache.sizes.keys()
        if unknown:
            _, kept = self._run_batch(0, plan, outputs, unknown)
            for name, values in kept.items():
                self._cache.sizes[name] = values.nbytes * len(self.batches)

    def _keys(self, runners: Sequence["_Runner"], point: Point) -> dict[str, bytes]:
        keys = {name: name.encode() for name in self._graph_inputs}
        for runner in runners:
            segment = runner.segment
            state = hashlib.blake2b(segment.output.encode(), digest_size=16)
            state.update(np.array([point.scales[site] for site in segment.sites], dtype=np.float32).tobytes())
            for name in segment.weights:
                state.update(point.weights[name].digest)
            for name in segment.inputs:
                state.update(keys[name])
            keys[segment.output] = state.digest()
        return keys

    def _plan(
        self, runners: Sequence["_Runner"], outputs: Sequence[str], keys: Mapping[str, bytes]
    ) -> list["_Runner"]:
        """Runners of the values that are needed and not remembered, in topological order."""
        missing = {name for name in outputs if not self._cache.has(name, keys)}
        plan = []
        for runner in reversed(runners):
            if runner.segment.output in missing:
                plan.append(runner)
                missing.update(name for name in runner.segment.inputs if not self._cache.has(name, keys))
        return plan[::-1]

    def _run_batch(
        self, index: int, plan: Sequence["_Runner"], outputs: Sequence[str], store: set[str]
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        where = self.batches[index]
        values: dict[str, np.ndarray] = {}
        last_use = {name: step for step, runner in enumerate(plan) for name in runner.segment.inputs}
        if any(name in self._graph_inputs for name in last_use):
            values.update(self._samples.batch(where.start, where.stop))
        kept = {}
        for step, runner in enumerate(plan):
            for name in runner.segment.inputs:
                if name not in values:
                    values[name] = self._cache.get(name, index)
            values[runner.segment.output] = runner.run(values)
            if runner.segment.output in store:
                kept[runner.segment.output] = values[runner.segment.output]
            for name in runner.segment.inputs:
                if last_use[name] == step and name not in outputs:
                    del values[name]
        return [values[name] if name in values else self._cache.get(name, index) for name in outputs], kept


class _Runner:
    """A segment with its sessions: the one in use and the last few, for the point the search returns to."""

    def __init__(self, segment: Segment, open_one: _Opener) -> None:
        self.segment = segment
        self._open = open_one
        self._proto, self._tensors = detach(segment.model)
        self._initializers = {tensor.name: tensor for tensor in self._proto.graph.initializer}
        self._sessions: OrderedDict[bytes, ort.InferenceSession] = OrderedDict()
        self._session: ort.InferenceSession | None = None

    def load(self, point: Point) -> None:
        """Make ready to run at a point."""
        scales = {name: np.array(point.scales[name], dtype=np.float32) for name in self.segment.sites}
        key = b"".join(scale.tobytes() for scale in scales.values())
        key += b"".join(point.weights[name].digest for name in self.segment.weights)
        if key not in self._sessions:
            for name, scale in scales.items():
                self._replace(scale_name(name), scale)
            for site in self.segment.limited:
                self._replace(limits_name(site.name), code_limits(site, point.scales[site.name]))
            for name in self.segment.weights:
                for tensor, values in weight_tensors(name, point.weights[name]).items():
                    self._replace(tensor, values)
            self._sessions[key] = self._open(self._proto, self._tensors)
            if len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(key)
        self._session = self._sessions[key]

    def run(self, values: Feeds) -> np.ndarray:
        """The value at the segment's end, on one batch."""
        assert self._session is not None
        return run(self._session, {name: values[name] for name in self.segment.inputs})[0]

    def _replace(self, name: str, values: np.ndarray) -> None:
        if name in self._tensors:
            self._tensors[name] = np.asarray(values, order="C")
        else:
            tensor = self._initializers[name]
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.reshape(tensor.dims), name))


class _Cache:
    """Values at the cuts for one key each, within a memory budget."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._entries: dict[str, tuple[bytes, list[np.ndarray]]] = {}
        self._previous: dict[str, bytes] = {}
        self.sizes: dict[str, int] = {}

    def has(self, name: str, keys: Mapping[str, bytes]) -> bool:
        return name in self._entries and self._entries[name][0] == keys[name]

    def get(self, name: str, batch: int) -> np.ndarray:
        return self._entries[name][1][batch]

    def make_room(self, names: Sequence[str], keys: Mapping[str, bytes]) -> set[str]:
        """Which of the values to remember; what was remembered in their place is dropped."""
        wanted = self._affordable().intersection(names)
        store = {
            name for name in wanted if name not in self._entries or self._previous.get(name) == keys[name]
        }
        for name in store:
            self._entries.pop(name, None)
        return store

    def put(self, name: str, key: bytes, parts: list[np.ndarray]) -> None:
        self._entries[name] = (key, parts)

    def seen(self, keys: Mapping[str, bytes]) -> None:
        self._previous = dict(keys)

    def _affordable(self) -> set[str]:
        """The smallest values that fit the budget together."""
        names = sorted(self.sizes, key=lambda name: (self.sizes[name], name))
        total = np.cumsum([self.sizes[name] for name in names])
        return set(names[: int(np.searchsorted(total, self._budget, side="right"))])
