"""The report of a run as one HTML page that needs nothing else."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from pathlib import PurePath

from markupsafe import Markup

from onnx_lapq.method.closeness import worst
from onnx_lapq.method.combined_loss import describe
from onnx_lapq.method.powell.search_state import StopReason
from onnx_lapq.method.step_sizes.interpolation import QuadraticFit
from onnx_lapq.report.bits_flags import bits_flags
from onnx_lapq.report.figures import (
    draw_convergence,
    draw_histogram,
    draw_picture,
    draw_quadratic,
    draw_seconds,
)
from onnx_lapq.report.pictures import FindBoxes, Picture, map_of
from onnx_lapq.report.record import QuantizerRecord, Report
from onnx_lapq.report.rendering import render
from onnx_lapq.report.tensors import Histogram
from onnx_lapq.report.theme import figure_style

__all__ = ["report_page"]

_MOST_HISTOGRAMS = 200
_OPEN_UP_TO = 60
_MOST_IN_FLOAT = 100
_ENDED_BY: dict[StopReason, str] = {
    "none": "there was none",
    "negligible": "at a loss too low to matter",
    "converged": "where nothing is gained",
    "max-sweeps": "after its last sweep",
    "max-evaluations": "at --max-evals",
    "stopped": "at --max-minutes",
}


@dataclass(frozen=True)
class _Row:
    """A quantizer in the table, with the figure of its values where there is room for one."""

    record: QuantizerRecord
    ends: tuple[float, float]
    histogram: Markup | None


def report_page(
    report: Report,
    tensors: Sequence[Histogram],
    pictures: Sequence[Picture] = (),
    find_boxes: FindBoxes | None = None,
) -> str:
    """Write the page.

    Args:
        report: The record of the run.
        tensors: The values of its quantized tensors.
        pictures: Samples that are images; those on which nothing can be drawn are left out.
        find_boxes: Finds the boxes in the outputs on an image.

    Returns:
        HTML without scripts or references; the same input gives the same text. Of more than 200 tensors,
        those with the lowest SNR get a histogram.
    """
    rows = _rows(report, tensors)
    return render(
        "report.html.j2",
        report=report,
        title=PurePath(report.model.path or "model").name,
        loss=describe(report.loss_parts).replace("`", ""),
        figures=_figures(report),
        pictures=_pictures(pictures, find_boxes),
        rows=rows,
        shown=[row for row in rows if row.histogram],
        open_up_to=_OPEN_UP_TO,
        in_float=_in_float(report),
        details=_details(report),
        ended_by=_ended_by(report),
        worst=worst,
        equal=inf,
        bits_flags=None if report.promotion is None else bits_flags(report.promotion, report.options),
    )


def _figures(report: Report) -> list[tuple[str, Markup]]:
    figures = []
    with figure_style():
        if report.quadratic is not None:
            figures.append(("Loss against p", draw_quadratic(QuadraticFit(**report.quadratic), report.loss)))
        if len(report.history) > 1:
            figures.append(("Joint step", draw_convergence(report)))
        figures.append(("Time", draw_seconds(report.seconds)))
    return [(title, Markup(figure)) for title, figure in figures]


def _pictures(pictures: Sequence[Picture], find_boxes: FindBoxes | None) -> list[Markup]:
    with figure_style():
        return [
            Markup(draw_picture(picture, find_boxes, number))
            for number, picture in enumerate(pictures)
            if find_boxes is not None or map_of(picture, 0) is not None
        ]


def _rows(report: Report, tensors: Sequence[Histogram]) -> list[_Row]:
    by_loss = sorted(report.quantizers, key=lambda one: float("inf") if one.snr_db is None else one.snr_db)
    drawn = {record.name for record in by_loss[:_MOST_HISTOGRAMS]}
    by_name = {tensor.name: tensor for tensor in tensors}
    with figure_style():
        return [
            _row(record, by_name[record.name], number if record.name in drawn else None)
            for number, record in enumerate(report.quantizers)
        ]


def _row(record: QuantizerRecord, tensor: Histogram, number: int | None) -> _Row:
    figure = None if number is None else Markup(draw_histogram(tensor, record.clip, number))
    return _Row(record, (tensor.edges[0], tensor.edges[-1]), figure)


def _in_float(report: Report) -> list[tuple[str, list[str], int]]:
    """Reason, the first nodes, and how many more."""
    ordered = sorted(report.in_float, key=lambda node: node.reason)
    groups = [(reason, [*nodes]) for reason, nodes in groupby(ordered, key=lambda node: node.reason)]
    return [
        (
            reason,
            [f"{node.op_type} {node.name}" for node in nodes[:_MOST_IN_FLOAT]],
            max(len(nodes) - _MOST_IN_FLOAT, 0),
        )
        for reason, nodes in groups
    ]


def _ended_by(report: Report) -> str:
    """What ended the joint step, in words."""
    return _ENDED_BY[report.stopped]


def _details(report: Report) -> str:
    """Files, samples, libraries and options, as JSON."""
    names = ("model", "output", "calibration", "options", "libraries")
    record = json.loads(report.to_json())
    return json.dumps({name: record[name] for name in names}, indent=2, ensure_ascii=False)
