"""The sensitivity of a model's tensors as one HTML page that needs nothing else."""

from pathlib import PurePath

import numpy as np
from markupsafe import Markup

from onnx_lapq.report.rendering import render
from onnx_lapq.report.theme import COLORS, figure_style, inline_svg, new_figure, shorten
from onnx_lapq.study.sensitivity import SensitivityTable

__all__ = ["sensitivity_page"]

_DRAWN = 40
_ROW = 0.2


def sensitivity_page(found: SensitivityTable) -> str:
    """Write the page: a plot of the tensors that cost most, and the table of all."""
    with figure_style():
        figure = _draw(found)
    return render(
        "sensitivity.html.j2",
        found=found,
        title=PurePath(found.model).name,
        loss=found.loss.replace("`", ""),
        figure=Markup(figure),
    )


def _draw(found: SensitivityTable) -> str:
    """Loss and SNR of the tensors that cost most, a bar for each."""
    shown = found.tensors[:_DRAWN]
    figure, (losses, snr) = new_figure(9.0, 1.0 + _ROW * len(shown), columns=2)
    places = np.arange(len(shown))
    colors = [COLORS["one"] if one.kind == "weight" else COLORS["two"] for one in shown]
    losses.barh(places, [max(one.loss, 0.0) for one in shown], color=colors, height=0.7)
    losses.set_yticks(places, [f"{shorten(one.name)}  {one.bits}" for one in shown], fontsize=7)
    losses.set_xlabel("loss of this tensor alone")
    decibels = [np.nan if one.worst_db is None else one.worst_db for one in shown]
    snr.barh(places, decibels, color=colors, height=0.7)
    snr.set_yticks(places, [""] * len(shown))
    snr.set_xlabel("SNR of the worst part, dB")
    for kind, color in (("weight", COLORS["one"]), ("activation", COLORS["two"])):
        losses.barh([0], [0], color=color, label=kind)
    losses.legend(loc="lower right")
    for axes in (losses, snr):
        axes.invert_yaxis()
    return inline_svg(figure, "sensitivity", "loss and SNR of the tensors that cost most")
