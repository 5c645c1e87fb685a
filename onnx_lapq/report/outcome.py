"""What a search found, and its record."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_lapq._version import __version__
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.evaluation.verification import Expectation
from onnx_lapq.graph.saving import ModelRecord
from onnx_lapq.method.powell.search_state import SearchResult
from onnx_lapq.network.network import Network
from onnx_lapq.network.step_sizes import Steps
from onnx_lapq.report.record import SCHEMA_VERSION, Ladder, QuantizerRecord, Report, StageRecord
from onnx_lapq.report.tensors import Fidelity, Histogram
from onnx_lapq.stages.search import Start

__all__ = ["Outcome", "record"]

_LIBRARIES = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "scipy")


@dataclass(frozen=True)
class Outcome:
    """The end of a run, before anything is written.

    Attributes:
        model: The quantized model.
        network: The network that was searched, with the biases that were written.
        loss: Name of the loss.
        start: Where the joint step began.
        stages: Losses on the way.
        steps: Where it ended.
        result: How it went.
        evaluations: Loss evaluations of the search.
        fidelities: What quantization leaves of every tensor, by quantizer.
        sensitivities: What the loss makes of each searched step size; empty without ``config.report``.
        histograms: The values of every quantized tensor, for the page; empty without ``config.report``.
        oddities: Tensors whose numbers look wrong.
        expected: What the written file must compute; None without ``config.verify``.
    """

    model: ir.Model
    network: Network
    loss: str
    start: Start
    stages: tuple[StageRecord, ...]
    steps: Steps
    result: SearchResult
    evaluations: int
    fidelities: Mapping[str, Fidelity]
    sensitivities: Mapping[str, float]
    histograms: tuple[Histogram, ...]
    oddities: tuple[str, ...]
    expected: Expectation | None


def record(
    outcome: Outcome,
    config: QuantizationConfig,
    *,
    model: ModelRecord,
    calibration: dict[str, Any],
    seconds: dict[str, float],
    warnings: Sequence[str],
    ladder: Ladder | None = None,
) -> Report:
    """Put a run on record; the output is not yet written."""
    result = outcome.result
    return Report(
        schema=SCHEMA_VERSION,
        version=__version__,
        libraries={"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        model=model,
        output=None,
        options=asdict(config),
        calibration=calibration,
        loss=outcome.loss,
        ladder=ladder,
        stages=outcome.stages,
        quadratic=None if outcome.start.fit is None else asdict(outcome.start.fit),
        history=tuple((at.evaluations, at.loss, at.guard) for at in result.history),
        quantizers=tuple(_quantizers(outcome)),
        in_float=outcome.network.placement.in_float,
        evaluations=outcome.evaluations,
        stopped=result.stopped,
        seconds=dict(seconds),
        test=(),
        warnings=(*warnings, *_notes(outcome)),
    )


def _quantizers(outcome: Outcome) -> list[QuantizerRecord]:
    records = []
    network = outcome.network
    for site in network.placement.activations:
        grid = network.grids[site.name]
        records.append(
            _quantizer(outcome, site.name, "activation", site.bits, grid.zero_point, site.searched)
        )
    for name, layer in network.layers.items():
        records.append(_quantizer(outcome, name, "weight", layer.site.bits, 0, searched=True))
    return records


def _quantizer(
    outcome: Outcome, name: str, kind: str, bits: int, zero_point: int, searched: bool
) -> QuantizerRecord:
    fidelity = outcome.fidelities[name]
    scale, before = np.median(outcome.steps[name]), np.median(outcome.start.steps[name])
    return QuantizerRecord(
        name=name,
        kind=kind,
        bits=bits,
        scale=float(scale),
        channels=int(np.size(outcome.steps[name])),
        zero_point=zero_point,
        searched=searched,
        moved_by=float(scale / before),
        clip=fidelity.clip,
        snr_db=fidelity.snr_db,
        sensitivity=outcome.sensitivities.get(name),
    )


def _notes(outcome: Outcome) -> list[str]:
    fit, network = outcome.start.fit, outcome.network
    notes = [] if fit is None or fit.chosen == "quadratic" else [fit.reason]
    if outcome.result.stopped == "negligible":
        notes.append(f"a loss of {outcome.result.loss:.2g} is too low for a joint step to matter")
    return [*outcome.oddities, *notes, *network.target.notes(site.bits for site in network.placement.weights)]
