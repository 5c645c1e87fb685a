"""Figures of a run's report, as SVG for a page."""

from collections.abc import Mapping
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from onnx_lapq.method.step_sizes.interpolation import QuadraticFit
from onnx_lapq.report.curves import draw_fit
from onnx_lapq.report.pictures import FindBoxes, Picture, boxes_in, map_of
from onnx_lapq.report.record import Report
from onnx_lapq.report.tensors import Histogram
from onnx_lapq.report.theme import COLORS, inline_svg, new_figure

__all__ = ["draw_convergence", "draw_histogram", "draw_picture", "draw_quadratic", "draw_seconds"]

_SIZE = (4.0, 2.8)
_MOST_PIXELS = 320


def draw_quadratic(fit: QuadraticFit, loss: str) -> str:
    """The loss against p with the fitted parabola."""
    figure, (axes,) = new_figure(*_SIZE)
    draw_fit(axes, fit, loss)
    return inline_svg(figure, "quadratic", "loss against p with the fitted parabola")


def draw_convergence(report: Report) -> str:
    """The joint step: the loss of every accepted point on search and guard samples."""
    figure, (axes,) = new_figure(*_SIZE)
    evaluations, search, guard = zip(*report.history, strict=True)
    draw = partial(axes.step, where="post", marker="o", markersize=3)
    draw(evaluations, search, color=COLORS["one"], label="search samples")
    if None not in guard:
        draw(evaluations, guard, color=COLORS["two"], label="guard samples")
    axes.set_xlabel("loss evaluations of the joint step")
    axes.set_ylabel(f"{report.loss} loss")
    axes.legend()
    return inline_svg(figure, "convergence", "loss of the accepted points of the joint step")


def draw_seconds(seconds: Mapping[str, float]) -> str:
    """Time per phase."""
    figure, (axes,) = new_figure(*_SIZE)
    places = np.arange(len(seconds))
    bars = axes.barh(places, list(seconds.values()), color=COLORS["one"], height=0.6)
    axes.bar_label(bars, [f"{value:.1f}" for value in seconds.values()], padding=3, color=COLORS["ink"])
    axes.set_yticks(places, list(seconds))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("seconds")
    return inline_svg(figure, "seconds", "seconds of each phase")


def draw_histogram(tensor: Histogram, clip: tuple[float, float], number: int) -> str:
    """The values of a tensor on a logarithmic scale, and the two values at which it is clipped."""
    figure = Figure(figsize=(2.6, 0.9))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.stairs(np.log10(1 + tensor.counts), tensor.edges, fill=True, color=COLORS["area"])
    for value in {*clip} - {0.0}:
        axes.axvline(value, color=COLORS["two"], linewidth=1.5)
    axes.margins(x=0.02)
    return inline_svg(figure, f"h{number}", "histogram with clip values")


def draw_picture(picture: Picture, find_boxes: FindBoxes | None, number: int) -> str:
    """An image twice, with what the float and the quantized model find: a map over it, boxes, or both."""
    height, width = picture.size
    figure, both = new_figure(_SIZE[0], 0.4 + _SIZE[0] / 2 * height / width, columns=2)
    step = -(-max(height, width) // _MOST_PIXELS)
    wanted = map_of(picture, 0)
    for side, (axes, name) in enumerate(zip(both, ("float", "quantized"), strict=True)):
        axes.set_axis_off()
        axes.set_title(name)
        show = partial(axes.imshow, extent=(0, width, height, 0), interpolation="none")
        show(picture.image[::step, ::step])
        found = map_of(picture, side)
        if wanted is not None and found is not None:
            show(found, alpha=0.5, vmin=wanted.min(), vmax=wanted.max())
        for left, top, right, bottom in () if find_boxes is None else boxes_in(picture, side, find_boxes):
            size = right - left, bottom - top
            axes.add_patch(Rectangle((left, top), *size, fill=False, edgecolor=COLORS["two"]))
    return inline_svg(figure, f"p{number}", "an image with what the float and the quantized model find")
