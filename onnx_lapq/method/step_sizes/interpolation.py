"""Quadratic approximation of the loss over p.

docs/method.md, "Quadratic approximation over p"; paper section 4.2, Algorithm 1 lines 5-6.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnx_lapq.errors import RunError

__all__ = ["Candidate", "QuadraticFit", "most_losses", "quadratic_start"]

Candidate = Literal["quadratic", "sample", "min-max"]
Coefficients = tuple[float, float, float]


@dataclass(frozen=True)
class QuadraticFit:
    """Where the joint optimisation starts, and why.

    Attributes:
        samples: Pairs (p, loss) of the grid, in the order evaluated.
        coefficients: (a, b, c) of ``f(p) = a p^2 + b p + c``, or None where no parabola can be fitted.
        p_star: Vertex ``-b / 2a`` of a convex parabola, also when it is not used, or None.
        p_star_loss: Loss at ``p_star`` if it was evaluated, else None.
        min_max_loss: Loss of the min-max point if it competed, else None.
        chosen: Which candidate won.
        p: The p to start from; infinity stands for min-max.
        loss: The loss there.
        reason: One sentence for the report.
    """

    samples: tuple[tuple[float, float], ...]
    coefficients: Coefficients | None
    p_star: float | None
    p_star_loss: float | None
    min_max_loss: float | None
    chosen: Candidate
    p: float
    loss: float
    reason: str


def quadratic_start(
    ps: Sequence[float],
    loss_of_p: Callable[[float], float],
    min_max_loss: float | None = None,
    should_stop: Callable[[], bool] | None = None,
    is_worth: Callable[[float], bool] | None = None,
) -> QuadraticFit:
    """Choose the p whose step sizes start the joint optimisation.

    Evaluates the loss on the grid, fits a parabola by least squares and evaluates its vertex. The best sample
    (or min-max) is taken where the parabola is not convex, its vertex leaves the grid's range, or its loss
    there is worse.

    Args:
        ps: The grid of p, at least one value.
        loss_of_p: Loss of the network whose step sizes minimise the L_p error. A loss that is not finite
            takes no part in the fit and never wins.
        min_max_loss: Loss of the min-max step sizes, if they are to compete.
        should_stop: Asked before every p but the first; true ends the grid there.
        is_worth: Asked before the vertex, with the lowest loss seen so far or promised there; false leaves it
            out. None never does.

    Returns:
        The choice with everything that led to it. ``loss_of_p`` is called at most `most_losses` times.

    Raises:
        RunError: No candidate has a finite loss.
    """
    samples: tuple[tuple[float, float], ...] = ()
    for p in ps:
        if samples and should_stop is not None and should_stop():
            break
        samples += ((float(p), float(loss_of_p(p))),)
    tried = [p for p, _ in samples]
    coefficients = _parabola([sample for sample in samples if math.isfinite(sample[1])])
    p_star = _vertex(coefficients)
    candidates: list[tuple[float, float, Candidate]] = [(loss, p, "sample") for p, loss in samples]
    if min_max_loss is not None:
        candidates.append((min_max_loss, math.inf, "min-max"))
    finite = [candidate for candidate in candidates if math.isfinite(candidate[0])]
    p_star_loss = None
    if coefficients is not None and p_star is not None and min(tried) <= p_star <= max(tried):
        promised = float(np.polyval(coefficients, p_star))
        if is_worth is None or is_worth(min(promised, *(loss for loss, *_ in finite))):
            p_star_loss = float(loss_of_p(p_star))
            if math.isfinite(p_star_loss):
                finite.insert(0, (p_star_loss, p_star, "quadratic"))
    if not finite:
        raise RunError("the quantized network has no finite loss at any p; check the model and the samples")
    loss, p, chosen = min(finite, key=lambda candidate: candidate[0])
    reason = _reason(chosen, p, tried, coefficients, p_star, p_star_loss)
    return QuadraticFit(samples, coefficients, p_star, p_star_loss, min_max_loss, chosen, p, loss, reason)


def most_losses(ps: Sequence[float]) -> int:
    """Losses that `quadratic_start` asks for at most: of the grid, and of a vertex where there may be one."""
    return len(ps) + (len(ps) > 2)


def _parabola(samples: Sequence[tuple[float, float]]) -> Coefficients | None:
    """Least squares (a, b, c); None with fewer than three different p."""
    if len({p for p, _ in samples}) < 3:
        return None
    ps, losses = np.array(samples, dtype=np.float64).T
    centre = float(ps.mean())
    a, b, c = (float(value) for value in np.polyfit(ps - centre, losses, 2))
    return a, b - 2 * a * centre, c - b * centre + a * centre**2


def _vertex(coefficients: Coefficients | None) -> float | None:
    """Minimum of a convex parabola, else None."""
    if coefficients is None or coefficients[0] <= 0:
        return None
    vertex = -coefficients[1] / (2 * coefficients[0])
    return vertex if math.isfinite(vertex) else None


def _reason(
    chosen: Candidate,
    p: float,
    tried: Sequence[float],
    coefficients: Coefficients | None,
    p_star: float | None,
    p_star_loss: float | None,
) -> str:
    """Why the chosen candidate was taken."""
    if chosen == "quadratic":
        return f"the parabola's vertex, p = {p:.4g}, has the lowest loss"
    taken = "min-max" if chosen == "min-max" else f"the sample p = {p:.4g}"
    if coefficients is None:
        return f"no parabola can be fitted to fewer than three values of p; {taken} has the lowest loss"
    if p_star is None:
        return f"the loss is not convex in p; {taken} has the lowest loss"
    if p_star_loss is None and min(tried) <= p_star <= max(tried):
        return f"the parabola's vertex, p = {p_star:.4g}, promises too little; {taken} has the lowest loss"
    if p_star_loss is None:
        return f"the parabola's vertex, p = {p_star:.4g}, lies outside the grid; {taken} has the lowest loss"
    return f"the parabola's vertex, p = {p_star:.4g}, has a higher loss than {taken}"
