"""The record of a run, from what its stages have found."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from onnx_lapq._version import __version__
from onnx_lapq.common.versions import library_version
from onnx_lapq.graph.saving import ModelRecord
from onnx_lapq.network.bench import Bench
from onnx_lapq.report.closing import Closing
from onnx_lapq.report.record import SCHEMA_VERSION, QuantizerRecord, Report
from onnx_lapq.report.tensors import Fidelity, fidelities
from onnx_lapq.stages.found import Found
from onnx_lapq.stages.rounding import rounding_note
from onnx_lapq.stages.sensitivity import measure_alone

__all__ = ["build_report"]

_FEW_SAMPLES = 20
"""Fewer leave the guard hardly any."""

_LIBRARIES = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "scipy")


def build_report(
    bench: Bench,
    found: Found,
    *,
    model: ModelRecord,
    calibration: dict[str, Any],
    warnings: Sequence[str],
    closing: Closing,
) -> Report:
    """Put a run on record; the output is not yet written.

    Args:
        bench: The network, with the codes that are written.
        found: What the stages have found.
        model: The float model.
        calibration: The record of the samples.
        warnings: What a person should know.
        closing: The quantized model beside the float one.
    """
    measured, _ = measure_alone(bench) if bench.config.report else ((), 0)
    alone = {one.name: one.loss for one in measured}
    return Report(
        schema=SCHEMA_VERSION,
        version=__version__,
        libraries={
            "python": platform.python_version(),
            **{name: library_version(name) for name in _LIBRARIES},
        },
        model=model,
        output=None,
        options=asdict(bench.config),
        calibration=calibration,
        loss=bench.loss.name,
        loss_parts=bench.loss.parts,
        ladder=found.ladder,
        stages=found.stages,
        quadratic=None if found.fit is None else asdict(found.fit),
        history=tuple((at.evaluations, at.loss, at.guard) for at in found.history),
        quantizers=tuple(_quantizers(bench, found, alone)),
        in_float=bench.network.placement.in_float,
        outputs=closing.outputs,
        latency_ratio=closing.latency_ratio,
        evaluations=bench.evaluations,
        stopped=found.stopped,
        seconds=dict(bench.clock.seconds),
        test=(),
        compared=closing.samples,
        warnings=(*warnings, *_notes(bench, found), *closing.warnings),
    )


def _quantizers(bench: Bench, found: Found, alone: Mapping[str, float]) -> list[QuantizerRecord]:
    network = bench.network
    fidelity = fidelities(bench, found.steps, network.point(found.steps))

    def record(name: str, kind: str, bits: int, zero_point: int, searched: bool) -> QuantizerRecord:
        return _quantizer(found, fidelity[name], name, kind, bits, zero_point, searched, alone.get(name))

    return [
        *(
            record(site.name, "activation", site.bits, network.grids[site.name].zero_point, site.searched)
            for site in network.placement.activations
        ),
        *(record(name, "weight", layer.site.bits, 0, True) for name, layer in network.layers.items()),
    ]


def _quantizer(
    found: Found,
    fidelity: Fidelity,
    name: str,
    kind: str,
    bits: int,
    zero_point: int,
    searched: bool,
    sensitivity: float | None,
) -> QuantizerRecord:
    scale, before = np.median(found.steps[name]), np.median(found.start[name])
    return QuantizerRecord(
        name=name,
        kind=kind,
        bits=bits,
        scale=float(scale),
        channels=int(np.size(found.steps[name])),
        zero_point=zero_point,
        searched=searched,
        moved_by=float(scale / before),
        clip=fidelity.clip,
        snr_db=fidelity.snr_db,
        sensitivity=sensitivity,
    )


def _notes(bench: Bench, found: Found) -> list[str]:
    cut, config = rounding_note(bench, found), bench.config
    notes = [] if cut is None else [cut]
    if len(bench.samples) < _FEW_SAMPLES:
        samples = f"{len(bench.samples)} sample{'s' if len(bench.samples) > 1 else ''}"
        notes.append(
            f"only {samples}: the codes fit these, and the figures here are theirs; give 100 or more"
        )
    if found.stopped == "stopped" and cut is None and config.max_minutes is not None:
        notes.append(
            f"time was up (--max-minutes {config.max_minutes:g}): the joint step ended after "
            f"{found.evaluations} loss evaluations"
        )
    if config.max_evaluations is not None and found.stopped == "none":
        why = ", since no tensor has fewer than 7 bits" if config.optimizer == "auto" else ""
        notes.append(
            f"--max-evals has nothing to bound: the joint step was not run{why}; --optimizer powell runs it"
        )
    return [*notes, *config.notes(*bench.network.placement.bits)]
