"""Figures of the loss landscape: one panel for each pair of bit widths."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from onnx_lapq.report.curves import draw_fit
from onnx_lapq.report.theme import COLORS, figure_style, new_figure, shorten, to_bytes
from onnx_lapq.study.calibration_size import SizePoint
from onnx_lapq.study.landscape_view import View

__all__ = ["draw_landscape"]

_PANEL = 3.6
_SERIES = (COLORS["one"], COLORS["two"], COLORS["three"], COLORS["ink"])


def draw_landscape(
    views: Sequence[View], sizes: Sequence[SizePoint], image: Literal["png", "svg"]
) -> dict[str, bytes]:
    """Draw everything that was measured.

    Args:
        views: One for each pair of bit widths.
        sizes: May be empty.
        image: Format of the files.

    Returns:
        File contents by file name.
    """
    with figure_style():
        figures = {
            "surface": _panels(views, _surface),
            "quadratic": _panels(views, lambda axes, view: draw_fit(axes, view.fit, view.loss)),
            "errors": _errors(views),
            "hessian": _panels(views, _hessian),
            "coupling": _coupling(views),
        }
        if sizes:
            figures["sizes"] = _sizes(sizes, views[0].loss)
        return {f"{name}.{image}": to_bytes(figure, image) for name, figure in figures.items()}


def _panels(views: Sequence[View], draw: Callable[[Axes, View], None]) -> Figure:
    canvas, panels = new_figure(_PANEL * len(views) + 0.4, _PANEL, columns=len(views))
    for axes, view in zip(panels, views, strict=True):
        draw(axes, view)
        axes.set_title(_title(view))
    return canvas


def _title(view: View) -> str:
    return f"W{view.weight_bits}A{view.activation_bits}"


def _surface(axes: Axes, view: View) -> None:
    first, second = view.pair_names
    drawn = axes.contourf(view.axis, view.axis, view.surface, levels=14, cmap="viridis")
    axes.contour(view.axis, view.axis, view.surface, levels=14, colors="white", linewidths=0.4)
    row, column = np.unravel_index(int(view.surface.argmin()), view.surface.shape)
    axes.plot(1, 1, "o", color="white", markeredgecolor="black", label="layer-wise", clip_on=False)
    axes.plot(view.axis[column], view.axis[row], "*", color="white", markeredgecolor="black", markersize=11,
              label="lowest", clip_on=False)  # fmt: skip
    axes.set_xlabel(f"step of {shorten(second)}")
    axes.set_ylabel(f"step of {shorten(first)}")
    axes.figure.colorbar(drawn, ax=axes, label=f"{view.loss} loss")


def _hessian(axes: Axes, view: View) -> None:
    most = float(np.abs(view.hessian.values).max()) or 1.0
    drawn = axes.imshow(view.hessian.values, cmap="RdBu_r", vmin=-most, vmax=most)
    ticks = range(len(view.chosen))
    axes.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=7)
    axes.set_yticks(ticks, [f"{shorten(name, 20)}  {tick}" for tick, name in enumerate(view.chosen_names)],
                    fontsize=7)  # fmt: skip
    axes.set_xlabel(f"off the diagonal:\n{view.coupling.text}")
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8)


def _errors(views: Sequence[View]) -> Figure:
    columns = len(views)
    canvas, panels = new_figure(_PANEL * columns + 0.4, 1.8 * _PANEL, rows=2, columns=columns)
    for index, axes in enumerate(panels):
        view, which = views[index % columns], index // columns
        curves = view.errors[which]
        for p, errors, color in zip(curves.ps, curves.errors, _SERIES, strict=False):
            axes.plot(curves.steps, errors / errors.min(), color=color, label=f"p = {p:g}")
            axes.plot(curves.steps[errors.argmin()], 1, "o", color=color)
        axes.set_ylim(0.9, 4)
        axes.set_title(f"{_title(view)}: {shorten(view.pair_names[which])}")
        axes.set_xlabel("step size")
        axes.set_ylabel("error over its minimum")
        axes.legend()
    return canvas


def _coupling(views: Sequence[View]) -> Figure:
    canvas, (share, norm, bend) = new_figure(3 * _PANEL, 0.8 * _PANEL, columns=3)
    places = np.arange(len(views))
    known = [view.coupling if view.coupling.is_known else None for view in views]
    shares = [100 * each.share if each else 0 for each in known]
    errors = [100 * each.error if each else np.nan for each in known]
    bars = share.bar(places, shares, 0.6, yerr=errors, capsize=3, color=COLORS["one"])
    share.bar_label(bars, ["" if each else "noise" for each in known], padding=3)
    share.set_ylim(0, 100)
    share.set_ylabel("% of the Hessian off its diagonal")
    norm.bar(places, [view.coupling.norm for view in views], color=COLORS["three"], width=0.6)
    norm.set_yscale("symlog", linthresh=1e-6)
    norm.yaxis.set_major_formatter("{x:g}")
    norm.set_ylabel("norm off the diagonal")
    bend.plot(places, [view.curvature.log10 for view in views], "o-", color=COLORS["two"])
    bend.set_ylabel("log10 |Gaussian curvature|")
    for axes in (share, norm, bend):
        axes.set_xticks(places, [_title(view) for view in views])
    return canvas


def _sizes(sizes: Sequence[SizePoint], loss: str) -> Figure:
    accurate = all(point.accuracy is not None for point in sizes)
    canvas, panels = new_figure(_PANEL * (1 + accurate) + 0.4, _PANEL, columns=1 + accurate)
    series: dict[str, list[SizePoint]] = {}
    for point in sizes:
        series.setdefault(f"W{point.weight_bits}A{point.activation_bits}", []).append(point)
    for index, (name, points) in enumerate(series.items()):
        at, color = [point.samples for point in points], _SERIES[index % len(_SERIES)]
        panels[0].plot(at, [point.loss for point in points], "o-", color=color, label=name)
        if accurate:
            top = [100 * (point.accuracy or 0) for point in points]
            panels[1].plot(at, top, "o-", color=color, label=name)
    if all(point.loss > 0 for point in sizes):
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_formatter("{x:g}")
        panels[0].yaxis.set_minor_formatter("{x:.2g}")
    for axes, label in zip(panels, (f"{loss} loss, held out", "top-1 %, held out"), strict=False):
        axes.set_xlabel("calibration samples")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return canvas
