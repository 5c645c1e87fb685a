"""What a run ends with: the written model beside the user's own file, and a sentence where that is bad."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnx_lapq.calibration.samples import subset
from onnx_lapq.errors import ModelError
from onnx_lapq.evaluation.evaluator import batches
from onnx_lapq.evaluation.fidelity import open_given, output_snr
from onnx_lapq.graph.loading import ModelSource
from onnx_lapq.network.batching import fixed_batch
from onnx_lapq.network.bench import Bench
from onnx_lapq.runtime.latency import latency_ratio
from onnx_lapq.runtime.providers import CPU
from onnx_lapq.runtime.session import open_session

__all__ = ["Closing", "compare_with_source"]

_SAMPLES = 32
_BAD_DB = 10.0
"""Below it, the error of an output has more than a tenth of the output's power."""
_SLOWER = 1.05
"""What the clock alone makes of two models that are equally fast."""


@dataclass(frozen=True)
class Closing:
    """The quantized model beside the float one.

    Attributes:
        snr_db: Signal-to-noise ratio of every float output on guard samples, in dB; None where nothing
            differs or there is no signal. Empty where onnxruntime does not run the user's file as it is.
        latency_ratio: Time of one run over that of the float model, on one thread of this machine; None where
            the model is for another runtime.
        warnings: A sentence for every output that lost its signal, and for a model that got slower.
    """

    snr_db: Mapping[str, float | None]
    latency_ratio: float | None
    warnings: tuple[str, ...]


def compare_with_source(source: ModelSource, written: ir.Model, bench: Bench) -> Closing:
    """Run the quantized model and the user's own file on guard samples, or on the first ones without a guard.

    Args:
        source: The model as the user gave it.
        written: The quantized model.
        bench: The network that it was made from.
    """
    samples = bench.samples
    if len(bench.guard) >= bench.batch:
        samples = subset(bench.samples, bench.guard[: max(_SAMPLES, bench.batch)])
    whole = len(samples) - len(samples) % bench.batch or len(samples)
    parts = [samples.batch(at.start, at.stop) for at in batches(min(whole, _SAMPLES), bench.batch)]
    try:
        given = open_given(source)
    except ModelError:
        return Closing({}, None, ())
    quantized = open_session(written, arena=True)
    snr, ratio = output_snr(given, quantized, parts), None
    if snr and bench.config.target in ("ort-x86", "ort-x86-vnni") and bench.config.provider == CPU:
        feeds = bench.samples.batch(0, fixed_batch(bench.network.model) or 1)
        ratio = latency_ratio(quantized, given, feeds)
    return Closing(snr, ratio, tuple(_warnings(snr, ratio)))


def _warnings(snr: Mapping[str, float | None], ratio: float | None) -> Iterator[str]:
    for name, decibels in snr.items():
        if decibels is not None and decibels < _BAD_DB:
            yield (
                f"output {name!r} keeps only {decibels:.1f} dB of its signal on samples held out; give more "
                "bits (-w, -a), more or other samples, or leave the worst layers in float (--exclude)"
            )
    if ratio is not None and ratio > _SLOWER:
        yield (
            f"the quantized model takes {ratio:.2f} times as long as the float one here; `onnx-lapq inspect` "
            "on it names the nodes that run in float"
        )
