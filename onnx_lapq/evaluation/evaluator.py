"""The loss of the quantized network as a function of its encodings.

The network is a list of segments (`onnx_lapq.graph.writing.segments`). Every value at a cut has a key: a
hash of the scales, weights and values it was computed from. An evaluation runs the segments whose key it does
not know and takes the others from memory, so along a coordinate only the layers behind the changed step
size run again. Both ways run the same sessions on the same batches, so the loss is the same bit for bit.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from onnx_lapq.calibration.stored import batches
from onnx_lapq.common.ahead import results_in_order
from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.common.scratch import Shelf
from onnx_lapq.evaluation.cache import Cache
from onnx_lapq.evaluation.protocols import BatchSource, LossFunction
from onnx_lapq.evaluation.runner import Point, Runner
from onnx_lapq.graph.writing.segments import InputCodes, Segment
from onnx_lapq.runtime.providers import CPU
from onnx_lapq.runtime.session import give_back_shared_memory, open_session

__all__ = ["SegmentEvaluator"]

T = TypeVar("T")


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
        evaluations: The loss evaluations so far, which are counted on here.
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
        evaluations: int = 0,
    ) -> None:
        self.evaluations = evaluations
        self._open = partial(open_session, precise=precise, provider=provider, arena="shared")
        self._runners = [Runner(segment, self._open) for segment in segments]
        self._probes: dict[str, Runner] = {}
        self._sizes: dict[str, int] = {}
        self._outputs = list(outputs)
        self._samples = samples
        self._loss = loss
        self.batches = batches(samples.groups, batch_size)
        self._pool = ThreadPoolExecutor(max_workers=workers)
        self._ahead = 2 * workers
        self._cache = Cache(memory)
        self._graph_inputs = {name for runner in self._runners for name in runner.segment.inputs} - {
            runner.segment.output for runner in self._runners
        }

    def losses(self, point: Point) -> FloatArray:
        """Loss of every calibration sample at a point, float64 [samples]; counts as one evaluation."""
        self.evaluations += 1
        return np.concatenate(list(self._evaluate(self._runners, self._outputs, point, self._loss)))

    def some_losses(self, point: Point, chosen: Sequence[int]) -> FloatArray:
        """The losses of the samples of some batches; counts as one evaluation. Nothing of it is remembered.

        Args:
            point: The candidate network.
            chosen: Indices of ``batches``, ascending.
        """
        self.evaluations += 1
        plan = self._loaded(self._runners, self._outputs, point, self._keys(self._runners, point))

        def one(index: int) -> FloatArray:
            outputs, _ = self._run_batch(index, plan, self._outputs, set())
            return self._loss(outputs, self.batches[index])

        return np.concatenate(list(results_in_order(self._pool, one, chosen, self._ahead)))

    def first_outputs(self, point: Point) -> list[np.ndarray]:
        """Outputs at a point on the first batch of samples; no evaluation."""
        plan = self._loaded(self._runners, self._outputs, point, self._keys(self._runners, point))
        return self._run_batch(0, plan, self._outputs, set())[0]

    def forget(self) -> None:
        """Give back the memory of values at the cuts, and of runs; the next evaluation needs them again."""
        self._cache.keep_only(set())
        give_back_shared_memory()

    def observe(
        self,
        probe: Segment | InputCodes,
        point: Point,
        finish: Callable[[np.ndarray, slice], T],
        unsettled: Set[str] = frozenset(),
    ) -> Iterator[T]:
        """Look at a value inside the network, batch by batch.

        The network runs while the results are taken, only a few batches ahead of them.

        Args:
            probe: A segment that ends in the value, or codes that it is dequantized from.
            point: The candidate network.
            finish: What to make of the value on a batch of samples; called on worker threads.
            unsettled: On a walk through the network, the weights that are still to change. Values that do not
                depend on them are kept as long as something that does reads them, and no others.

        Returns:
            The results in sample order.
        """

        def finish_one(outputs: list[np.ndarray], where: slice) -> T:
            (values,) = outputs
            if isinstance(probe, InputCodes):
                values = probe.dequantized(values, point.scales[probe.site])
            return finish(values, where)

        runners = self._runners
        if isinstance(probe, Segment):
            if probe.output not in self._probes:
                self._probes[probe.output] = Runner(probe, self._open)
            runners = [*runners, self._probes[probe.output]]
        return self._evaluate(runners, [probe.output], point, finish_one, unsettled)

    def _evaluate(
        self,
        runners: Sequence[Runner],
        outputs: Sequence[str],
        point: Point,
        finish: Callable[[list[np.ndarray], slice], T],
        unsettled: Set[str] = frozenset(),
    ) -> Iterator[T]:
        # A walk keeps only the frontier: what a layer that is still to change reads. Any other evaluation
        # keeps what the next point is likely to share, as far as there is memory.
        keys = self._keys(runners, point)
        plan, unknown = self._loaded(runners, outputs, point, keys), set[str]()
        if unsettled:
            needed = self._needed(unsettled, self._cache.known(keys))
            store = {runner.segment.output for runner in plan} & needed
        else:
            lasting = {runner.segment.output for runner in plan if runner in self._runners}
            unknown = lasting - self._cache.sizes.keys()
            store = self._cache.make_room(lasting - unknown, keys)
        parts: dict[str, Shelf | list[np.ndarray]]
        parts = {name: self._cache.shelf() if unsettled else [] for name in store}

        def one(index: int) -> tuple[T, dict[str, np.ndarray]]:
            values, kept = self._run_batch(index, plan, outputs, store)
            return finish(values, self.batches[index]), kept

        for result, kept in results_in_order(self._pool, one, range(len(self.batches)), self._ahead):
            for name, value in kept.items():
                parts[name].append(value)
            yield result
        for name in store:
            self._cache.put(name, keys[name], parts[name])
        if unknown:
            self._cache.learn({name: self._sizes[name] for name in unknown})
        if unsettled:
            self._cache.keep_only(self._needed(unsettled, self._cache.known(keys)))
        self._cache.seen(keys)

    def _needed(self, unsettled: Set[str], known: Set[str]) -> set[str]:
        """Values at cuts that weights do not change any more, and that something reads which is still to run.

        Args:
            unsettled: The weights that are still to change.
            known: Values that need not be computed again.
        """
        # Forward: what depends on a weight that is still to change moves. Backward: what a moving value, or a
        # needed one that is not known, reads is needed.
        moving: set[str] = set()
        for runner in self._runners:
            segment = runner.segment
            if not unsettled.isdisjoint(segment.weights) or moving.intersection(segment.inputs):
                moving.add(segment.output)
        needed: set[str] = set()
        for runner in reversed(self._runners):
            output = runner.segment.output
            if output in moving or (output in needed and output not in known):
                needed.update(runner.segment.inputs)
        return needed - moving - self._graph_inputs

    def _loaded(
        self, runners: Sequence[Runner], outputs: Sequence[str], point: Point, keys: Mapping[str, bytes]
    ) -> list[Runner]:
        """Runners of what is needed and not remembered, ready to run."""
        plan = self._plan(runners, outputs, self._cache.known(keys))
        for runner in plan:
            runner.load(point)
        return plan

    def _measure(self, name: str, value: np.ndarray) -> None:
        """Note the bytes of a value on all batches, by the last one.

        The samples are sorted by shape, so that those of the last batch are mostly large.
        """
        last = self.batches[-1]
        self._sizes[name] = int(value.nbytes * len(self._samples) / (last.stop - last.start))

    def _keys(self, runners: Sequence[Runner], point: Point) -> dict[str, bytes]:
        # A value's key hashes its own scales and weights and the keys of what it reads, so that two points
        # share a key exactly where the network is the same up to there.
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

    def _plan(self, runners: Sequence[Runner], outputs: Sequence[str], known: Set[str]) -> list[Runner]:
        """Runners of the values that are needed and not known, in topological order."""
        missing = set(outputs) - known
        plan = []
        for runner in reversed(runners):
            if runner.segment.output in missing:
                plan.append(runner)
                missing.update(set(runner.segment.inputs) - known)
        return plan[::-1]

    def _run_batch(
        self, index: int, plan: Sequence[Runner], outputs: Sequence[str], store: set[str]
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
            if index == len(self.batches) - 1:
                self._measure(runner.segment.output, values[runner.segment.output])
            if runner.segment.output in store:
                kept[runner.segment.output] = values[runner.segment.output]
            for name in runner.segment.inputs:
                if last_use[name] == step and name not in outputs:
                    del values[name]
        return [values[name] if name in values else self._cache.get(name, index) for name in outputs], kept
