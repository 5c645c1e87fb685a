"""What a run ends with: the written model beside the user's own file."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.calibration.balancing import evenly
from onnx_lapq.calibration.capture import as_given, stacked
from onnx_lapq.calibration.samples import Samples, batches, subset
from onnx_lapq.common.ahead import results_in_order
from onnx_lapq.errors import ModelError
from onnx_lapq.evaluation.fidelity import open_given, outputs_beside
from onnx_lapq.evaluation.verification import Beside
from onnx_lapq.graph.loading import ModelSource
from onnx_lapq.graph.placement.options import WIDE_BITS
from onnx_lapq.graph.placement.roles import FloatNode
from onnx_lapq.method.closeness import OutputScore, compare_outputs
from onnx_lapq.network.batching import fixed_batch, full_batches, positions_of
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.loss import compared_parts
from onnx_lapq.network.network import Network
from onnx_lapq.network.padding import padding_mask
from onnx_lapq.network.trial import Trial
from onnx_lapq.report.alarm import alarm, trouble
from onnx_lapq.report.pictures import Picture, take_pictures
from onnx_lapq.runtime.kernels import lacks_integer_kernel
from onnx_lapq.runtime.latency import latency_ratio
from onnx_lapq.runtime.providers import CPU
from onnx_lapq.runtime.session import open_session
from onnx_lapq.stages.found import Found

__all__ = ["Closing", "closing_samples", "compare_with_source"]

_SAMPLES = 64
_TRIAL_SAMPLES = 8
_KINDS = 3
_SLOWER = 1.05
"""What the clock alone makes of two models that are equally fast."""


@dataclass(frozen=True)
class Closing:
    """The quantized model beside the float one.

    Attributes:
        outputs: Closeness of every float output, or part of one, on `closing_samples`. Empty where
            onnxruntime does not run the user's file as it is.
        latency_ratio: Time of one run over that of the float model, on one thread of this machine; None where
            the model is for another runtime.
        warnings: A sentence for a model that lost what matters, and one for a model that got slower.
        pictures: The first of these samples where they are images, for the page.
        beside: The first batch of them, for the self-check of the written file.
        samples: How many they are.
    """

    outputs: tuple[OutputScore, ...]
    latency_ratio: float | None
    warnings: tuple[str, ...]
    pictures: tuple[Picture, ...] = ()
    beside: Beside | None = None
    samples: int = 0


def compare_with_source(source: ModelSource, written: ir.Model, bench: Bench, found: Found) -> Closing:
    """Run the quantized model and the user's own file on `closing_samples`.

    Args:
        source: The model as the user gave it.
        written: The quantized model.
        bench: The network that it was made from.
        found: What the stages have found.
    """
    try:
        given = open_given(source)
    except ModelError:
        return Closing((), None, ())
    positions = _closing_positions(bench)
    samples = subset(bench.samples, positions)
    slices = batches(samples.groups, bench.sizes.plain)
    quantized, mask = open_session(written, arena="own"), padding_mask(samples)
    axes, threads = bench.captured.axes, bench.config.threads

    def both(at: slice) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        return outputs_beside(given, quantized, [samples.batch(at.start, at.stop)], axes)

    with ThreadPoolExecutor(threads) as pool:
        pairs = list(results_in_order(pool, both, slices, threads - 1))
    wanted, seen = (_on_all(outputs) for outputs in zip(*pairs, strict=True))
    network = bench.network
    named = compared_parts(network.model, bench.captured, bench.samples, bench.config.loss, wanted)
    parts = [part for part in named if part.output in wanted]
    outputs = compare_outputs(parts, wanted, seen, mask)
    fixed, ratio = fixed_batch(network.model, bench.samples), None
    if outputs and bench.config.target in ("ort-x86", "ort-x86-vnni") and bench.config.provider == CPU:
        ratio = latency_ratio(quantized, given, bench.samples.batch(0, fixed or 1))
    has_wide = any(site.bits == WIDE_BITS for site in network.placement.activations)
    warnings = [*_slow(ratio, _in_float(network), has_wide=has_wide)]
    bad = trouble(outputs, bench, found)
    if bad is not None and parts:
        part = parts[outputs.index(bad.score or min(outputs, key=lambda score: score.lowest_db))]
        count = fixed or min(_TRIAL_SAMPLES, slices[0].stop)
        warnings.insert(0, alarm(bad.said, bench, found, Trial(bench, positions[:count], [part])))
    pictures = _pictures(bench, samples, wanted, seen) if bench.config.report else ()
    first_given, first_found = (_as_given(found, axes) for found in pairs[0])
    beside = Beside(samples.batch(slices[0].start, slices[0].stop), first_given, first_found)
    return Closing(outputs, ratio, tuple(warnings), pictures, beside, len(samples))


def _as_given(outputs: Mapping[str, np.ndarray], axes: Mapping[str, int | None]) -> dict[str, np.ndarray]:
    return {name: as_given(values, axes.get(name, 0)) for name, values in outputs.items()}


def _pictures(
    bench: Bench, samples: Samples, wanted: Mapping[str, np.ndarray], seen: Mapping[str, np.ndarray]
) -> tuple[Picture, ...]:
    """The first samples of one shape, where they are images and outputs have a row for each."""
    if len(samples.groups) > 1:
        return ()
    blue_first = bench.config.preprocessing.color == "bgr"
    return take_pictures(samples.batch(0, bench.sizes.plain), wanted, seen, blue_first=blue_first)


def _on_all(batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Outputs on all batches, of those that every batch has."""
    names = [name for name in batches[0] if all(name in outputs for outputs in batches)]
    return {name: stacked([outputs[name] for outputs in batches]) for name in names}


def closing_samples(bench: Bench) -> Samples:
    """Some samples, evenly from the guard where it has as many, else from all; of several shapes, of each.

    They depend on the samples and the guard's share alone, so that runs of other options can be compared.
    """
    return subset(bench.samples, _closing_positions(bench))


def _closing_positions(bench: Bench) -> npt.NDArray[np.intp]:
    among = bench.guard if len(bench.guard) >= _SAMPLES else np.arange(len(bench.samples))
    samples, size = subset(bench.samples, among), fixed_batch(bench.network.model, bench.samples) or 1
    if len(samples.groups) == 1:
        count = min(len(samples), max(_SAMPLES, size))
        return among[evenly(len(samples), count - count % size or count)]
    whole = full_batches(samples, size)
    some = whole[:: max(1, len(whole) * size // _SAMPLES)]
    return among[positions_of(some)] if some else np.arange(len(bench.samples))


def _in_float(network: Network) -> list[FloatNode]:
    """Nodes that no quantizer reaches, and layers of quantized weights for which there is no kernel."""
    left, reason = list(network.placement.in_float), "onnxruntime has no integer kernel for it"
    others = set(network.placement.layers) - {node.name for node in left}
    layers = [node for node in network.model.graph if node.name in others]
    return left + [
        FloatNode(node.name or "", node.op_type, reason)
        for node in layers
        if lacks_integer_kernel(node.op_type)
    ]


def _slow(ratio: float | None, in_float: Sequence[FloatNode], *, has_wide: bool) -> Iterator[str]:
    """A sentence on a model that got slower: what runs in float, if anything, and what to do."""
    if ratio is None or ratio <= _SLOWER:
        return
    why = "all of it runs on integers, and it is too small to gain; keep the float model where time counts"
    if has_wide:
        why = "there are no kernels for activations of 16 bits here"
    elif in_float:
        first = {node.op_type: node.name for node in reversed(in_float)}
        kinds = Counter(node.op_type for node in in_float).most_common(_KINDS)
        named = ", ".join(f"{count} {kind} ({first[kind]!r})" for kind, count in kinds)
        why = f"in float run {named}; leave the layers beside them in float too, with --exclude"
    yield f"the quantized model takes {ratio:.2f} times as long as the float one here; {why}"
