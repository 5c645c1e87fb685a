"""Curves that several figures share."""

import math

import numpy as np
from matplotlib.axes import Axes

from onnx_lapq.method.step_sizes.interpolation import QuadraticFit
from onnx_lapq.report.theme import COLORS

__all__ = ["draw_fit"]


def draw_fit(axes: Axes, fit: QuadraticFit, loss: str) -> None:
    """The loss against p, the parabola through it, and the p that was taken (Fig. 3, 5b)."""
    ps, losses = zip(*fit.samples, strict=True)
    axes.plot(ps, losses, "o", color=COLORS["one"], label="measured")
    if fit.coefficients is not None:
        dense = np.linspace(min(ps), max(ps), 100)
        axes.plot(dense, np.polyval(fit.coefficients, dense), color=COLORS["one"], label="parabola")
    if math.isfinite(fit.p):
        axes.plot(fit.p, fit.loss, "*", color=COLORS["two"], markersize=11, label=f"taken, p = {fit.p:.3g}")
    axes.set_xlabel("p")
    axes.set_ylabel(f"{loss} loss")
    axes.legend()
