"""The comparison: a prepared model computes what the user's own file computes.

Nothing behind the preparation can see a fault of it, since the loss and the self-check compare with the
prepared model. So both run on a few samples in plain onnxruntime, and

1. shapes are equal,
2. values are equal to float rounding; or else
3. every inner value that both models name is the same function of the inner values before it
   (`onnx_lapq.evaluation.first_difference`): then rounding alone, which a long network or a tie behind ArgMax
   has blown up, tells the outputs apart.

This looks at the float model, before the search. `onnx_lapq.evaluation.verification` looks at the written
file, after it.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnx_lapq.calibration.capture import by_sample, stacked
from onnx_lapq.calibration.stored import Samples, batches
from onnx_lapq.errors import ModelError, RunError
from onnx_lapq.evaluation.first_difference import Difference, first_difference
from onnx_lapq.graph.loading import ModelSource, load
from onnx_lapq.runtime.session import Feeds, first_run, open_file, open_session, run

__all__ = ["check_prepared", "open_given", "outputs_beside"]

_MOST_SAMPLES = 8
_ROUNDING = 2e-3
"""A difference, as a share of the output's spread, that gets no closer look."""

_VISIBLE = 0.01
"""What is told to the user although every step is the same."""


def check_prepared(source: ModelSource, prepared: ir.Model, samples: Samples, batch: int | None) -> list[str]:
    """Run the user's model and the prepared one on the first samples, and compare their outputs.

    Args:
        source: The model as the user gave it.
        prepared: What `prepare` made of it; left as it is.
        samples: Samples for it.
        batch: Samples that every run must hold; None where their number is free.

    Returns:
        What the user should know of: an output that rounding alone changes visibly, or a model that
        onnxruntime does not run as it is.

    Raises:
        ModelError: The user's model cannot be run on the samples.
        RunError: The prepared model computes something else.
    """
    try:
        given = open_given(source)
    except ModelError as error:
        return [f"the prepared model was not compared with the given one: {error}"]
    session = open_session(prepared)
    notes = []
    for samples_run in _compared(samples, batch):
        at, wanted = _first_outputs(given, samples, samples_run, batch)
        found = run(session, samples.batch(at.start, at.stop), list(wanted))
        far = {
            name: share
            for (name, values), other in zip(wanted.items(), found, strict=True)
            if not (share := _difference(other, values)) <= _ROUNDING
        }
        if far:
            worst = at if batch else _worst_sample(at, wanted, found)
            fault = first_difference(load(source), prepared, samples.batch(worst.start, worst.stop))
            if fault is not None:
                raise RunError(_fault(far, fault))
            notes += _visible(far)
    return list(dict.fromkeys(notes))


def outputs_beside(
    given: ort.InferenceSession,
    quantized: ort.InferenceSession,
    feeds: Iterable[Feeds],
    axes: Mapping[str, int | None] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Float outputs of the user's model, and those of a quantized one, on the same samples.

    Args:
        given: The user's model.
        quantized: The quantized model.
        feeds: Batches of samples, by input name.
        axes: Axis of the samples in outputs, by name; the first one where it is not said.

    Returns:
        Both by output name, `stacked`; without outputs that differ in shape.

    Raises:
        RunError: A model cannot be run on the samples.
    """
    names = [value.name for value in given.get_outputs()]
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
    along = {name: (axes or {}).get(name, 0) for name in names}
    for batch in feeds:
        outputs = zip(names, run(given, batch, names), run(quantized, batch, names), strict=True)
        for name, *both in outputs:
            wanted, found = (by_sample(values, along[name]) for values in both)
            pairs[name].append((wanted, found))
    fit = {name: found for name, found in pairs.items() if _can_be_compared(found)}
    sides = [{name: stacked([pair[side] for pair in fit[name]]) for name in fit} for side in (0, 1)]
    return sides[0], sides[1]


def _can_be_compared(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> bool:
    return all(a.ndim and a.shape == b.shape and _is_float(a) for a, b in pairs)


def open_given(source: ModelSource) -> ort.InferenceSession:
    """The user's model as the user's program opens it.

    Raises:
        ModelError: Onnxruntime does not run it as it is.
    """
    if isinstance(source, str | os.PathLike):
        return open_file(Path(source))
    return open_session(load(source), arena="own")


def _compared(samples: Samples, batch: int | None) -> list[slice]:
    """The samples to compare on: some of the first shape, and a run of the last where that is another one."""
    slices = batches(samples.groups, batch or _MOST_SAMPLES)
    if len(samples.groups) == 1:
        return slices[:1]
    return [slices[0], slice(slices[-1].start, slices[-1].start + (batch or 1))]


def _first_outputs(
    given: ort.InferenceSession, samples: Samples, at: slice, batch: int | None
) -> tuple[slice, Mapping[str, np.ndarray]]:
    """Those of the samples that the model takes in one run, if need be the first, and its outputs by name."""
    names = [value.name for value in given.get_outputs()]
    try:
        return at, dict(zip(names, first_run(given, samples.batch(at.start, at.stop)), strict=True))
    except ModelError:
        if batch is not None or at.stop - at.start == 1:
            raise
    one = slice(at.start, at.start + 1)
    return one, dict(zip(names, first_run(given, samples.batch(one.start, one.stop)), strict=True))


def _worst_sample(at: slice, wanted: Mapping[str, np.ndarray], found: Sequence[np.ndarray]) -> slice:
    """The sample whose outputs differ most, where they have a row for each sample; else all of them."""
    count = at.stop - at.start
    pairs = [
        (values, other)
        for values, other in zip(wanted.values(), found, strict=True)
        if values.shape[:1] == other.shape[:1] == (count,)
    ]
    if not pairs:
        return at
    worst = max(range(count), key=lambda row: max(_difference(b[row], a[row]) for a, b in pairs))
    return slice(at.start + worst, at.start + worst + 1)


def _visible(far: Mapping[str, float]) -> list[str]:
    return [
        f"output {name!r} differs by {share:.1%} of its spread between the prepared model and the given one, "
        "but every step in between is the same: float rounding, which the model blows up"
        for name, share in far.items()
        if share > _VISIBLE
    ]


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference as a share of the spread of what is wanted; of other than floats, what differs.

    Where both are not finite in the same way they agree.
    """
    if found.shape != wanted.shape:
        return np.inf
    if not _is_float(wanted):
        return float(np.mean(found != wanted)) if wanted.size else 0.0
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    apart = ~((found == wanted) | (np.isnan(found) & np.isnan(wanted)))
    if not apart.any():
        return 0.0
    finite = wanted[np.isfinite(wanted)]
    spread = finite.std() or np.abs(finite).max(initial=0.0)
    worst = np.abs(found[apart] - wanted[apart]).max()
    return float(worst / spread) if spread else np.inf


def _is_float(values: np.ndarray) -> bool:
    return bool(values.dtype.kind == "f")


def _fault(far: Mapping[str, float], fault: Difference) -> str:
    name, share = max(far.items(), key=lambda item: item[1])
    size = "has another shape or range" if not np.isfinite(share) else f"differs by {share:.0%} of its spread"
    return (
        f"output {name!r} {size} once the model is prepared for quantization, first in {fault}; please "
        "report it, or go on with --no-verify"
    )
