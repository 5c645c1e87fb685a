"""What the loss looks at in each output of a network, decided from its values and its last operators.

Kinds are tried in this order, and the first that fits decides:

| kind | what shows it | loss |
| --- | --- | --- |
| single value | one number for each sample, within 0..1 or not far out | `kl`, of Bernoulli probabilities |
| | another one: an age, a price | `row-mse` |
| class probabilities | rows that sum to one, or their logarithms | `kl` along that axis |
| sigmoid scores | all within 0..1, and a Sigmoid at the end | `binary-kl` |
| boxes beside scores | some rows within 0..1, others not; a Sigmoid at the end, or ranges far apart | both |
| logits | a dense layer at the end, and classes that stand out; few, and labels | `kl` |
| vector | one for each sample or token, such as an embedding | `direction` |
| rows of very different range | landmarks, decoded boxes | `row-mse` |
| anything else | | `mse` |

"Both" is `row-mse` of the boxes and `binary-kl` of the scores.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from onnx_lapq.common.arrays import AnyArray, FloatArray

__all__ = ["LossName", "Part", "choose_parts", "class_axis", "part_of", "span"]

LossName = Literal[
    "kl", "soft-kl", "binary-kl", "cross-entropy", "binary-cross-entropy", "mse", "row-mse", "direction"
]

_MOST_SAMPLES = 32
_MOST_VECTORS = 2048
_SIGMOIDS = frozenset({"HardSigmoid", "Sigmoid"})
_DENSE = frozenset({"Gemm", "MatMul"})
_NORMALISED = frozenset(
    {"Div", "InstanceNormalization", "LayerNormalization", "LpNormalization", "RMSNormalization"}
)
"""Operators that give vectors of a fixed length or spread, which are no logits."""

_WIDE = 10.0
"""Root mean squares of rows that differ by more are of very different range."""

_VECTOR = 16
"""Vectors of fewer elements are numbers of their own: a pose, the corners of a box."""

_ALIKE = 0.9
"""Vectors that have more than this share of their power in common are coordinates, not directions."""

_COORDINATES = 0.98
"""Few numbers with more than this share of their power in common are no logits."""

_SATURATED = 16.0
"""Beyond it a logit is a decision without doubt; numbers that all lie there are no logits."""


@dataclass(frozen=True)
class Part:
    """An output, or some rows of one, and the loss that sees it.

    Attributes:
        output: Name of the output.
        loss: Name of the loss.
        axis: Classes, rows or elements of a vector lie along it; None where every value is on its own.
        rows: Positions along the axis; None for all.
    """

    output: str
    loss: LossName
    axis: int | None = None
    rows: tuple[int, ...] | None = None


@dataclass(frozen=True)
class _Look:
    """What there is to see of an output.

    Attributes:
        name: Of the output.
        values: Some samples, float64 [n, ...].
        ends: Its last operators.
        tokens: Whether positions may be padding, which some input says.
        labels: Whether the samples have class numbers, and how many classes at least; 0 without them.
    """

    name: str
    values: FloatArray
    ends: frozenset[str]
    tokens: bool
    labels: int

    @property
    def wide(self) -> list[int]:
        """Axes of more than one element, but for the samples."""
        return [axis for axis, size in enumerate(self.values.shape) if axis and size > 1]

    @property
    def bounded(self) -> bool:
        """Whether all values could be probabilities."""
        return bool(self.values.min() >= 0 and self.values.max() <= 1 + 1e-3)


def choose_parts(
    reference: Mapping[str, AnyArray],
    ends: Mapping[str, frozenset[str]],
    labels: AnyArray | None = None,
    *,
    tokens: bool = False,
    soft: bool = False,
) -> tuple[Part, ...]:
    """Choose what the loss looks at.

    Args:
        reference: Outputs of the float network by name, [N, ...] each.
        ends: Their last operators by name; an output that only passes on an input has none, and no part where
            there is any other.
        labels: Of the samples; class numbers [N] make class scores of a few numbers for each sample.
        tokens: Whether the inputs have a padding mask.
        soft: "soft-kl" in place of "kl".

    Returns:
        At least one part of every output that takes part.
    """
    computed = [name for name in reference if ends.get(name, frozenset({"?"}))]
    parts: list[Part] = []
    for name in computed or reference:
        parts += _parts(name, reference[name], ends.get(name, frozenset()), tokens, _classes(labels))
    return tuple(replace(part, loss="soft-kl") if soft and part.loss == "kl" else part for part in parts)


def part_of(output: str, values: AnyArray, loss: LossName) -> Part:
    """The part for an output whose loss is named."""
    if loss == "row-mse":
        return Part(output, loss, _row_axis(values))
    if loss in ("mse", "binary-kl"):
        return Part(output, loss)
    return Part(output, loss, values.ndim - 1 if loss == "direction" else class_axis(values))


def span(rows: Sequence[int] | None) -> str:
    """Which rows, in short: "[4:84]", or "[0,2,5]"; nothing for all."""
    if rows is None:
        return ""
    first, last = rows[0], rows[-1] + 1
    if last - first == len(rows):
        return f"[{first}:{last}]" if len(rows) > 1 else f"[{first}]"
    return f"[{','.join(map(str, rows))}]"


def class_axis(values: AnyArray) -> int | None:
    """Where classes lie unless something says otherwise; None for single logits."""
    if values.ndim == 1:
        return None
    axis = 1 if values.ndim == 4 else values.ndim - 1
    return None if values.shape[axis] == 1 else axis


def _classes(labels: AnyArray | None) -> int:
    """How many classes there are at least by labels that are class numbers; else 0."""
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        return 0
    return int(labels.max(initial=-1)) + 1


def _parts(name: str, values: AnyArray, ends: frozenset[str], tokens: bool, labels: int) -> list[Part]:
    if not np.issubdtype(values.dtype, np.floating) or not values.size:
        return [Part(name, "mse")]
    some = values[:: -(-len(values) // _MOST_SAMPLES)].astype(np.float64)
    look = _Look(name, some, ends, tokens, labels)
    found = (kind(look) for kind in _KINDS)
    return next((parts for parts in found if parts), [Part(name, "mse")])


def _single_value(look: _Look) -> list[Part]:
    if look.wide:
        return []
    doubtful = np.abs(look.values).min() < _SATURATED
    return [Part(look.name, "kl" if look.bounded or doubtful else "row-mse")]


def _probabilities(look: _Look) -> list[Part]:
    last = look.values.ndim - 1
    for axis in sorted({1, last} & set(look.wide), reverse=last != 3):
        sums = look.values if look.bounded else np.exp(np.minimum(look.values, 1.0))
        if np.allclose(sums.sum(axis=axis), 1.0, rtol=0.0, atol=1e-3):
            return [Part(look.name, "kl", axis)]
    return []


def _sigmoid_scores(look: _Look) -> list[Part]:
    return [Part(look.name, "binary-kl")] if look.bounded and look.ends & _SIGMOIDS else []


def _boxes_beside_scores(look: _Look) -> list[Part]:
    axis = _row_axis(look.values)
    if axis is None:
        return []
    others = _other_axes(look.values, axis)
    scores = (look.values.min(axis=others) >= 0) & (look.values.max(axis=others) <= 1 + 1e-3)
    scores &= look.values.any(axis=others)
    apart = look.ends & _SIGMOIDS or (len(look.wide) > 1 and _is_uneven(look.values, axis))
    if scores.all() or not scores.any() or not apart:
        return []
    return [
        Part(look.name, "row-mse", axis, tuple(np.flatnonzero(~scores).tolist())),
        Part(look.name, "binary-kl", axis, tuple(np.flatnonzero(scores).tolist())),
    ]


def _logits(look: _Look) -> list[Part]:
    if look.ends & _NORMALISED:
        return []
    last = look.values.ndim - 1
    axis = look.wide[0] if len(look.wide) == 1 else 1 if last == 3 else last
    size = look.values.shape[axis]
    if axis not in look.wide or (len(look.wide) > 2 and size == 2):
        return []
    if len(look.wide) == 1 and 0 < look.labels <= size < 2 * _VECTOR:
        return [Part(look.name, "kl", axis)]
    vectors = np.moveaxis(look.values, axis, -1).reshape(-1, size)
    vectors = vectors[:: -(-len(vectors) // _MOST_VECTORS)]
    dense = look.ends <= (_DENSE | {"Conv"} if len(look.wide) == 1 else _DENSE)
    return [Part(look.name, "kl", axis)] if _are_logits(vectors, dense) else []


def _vectors(look: _Look) -> list[Part]:
    last = look.values.ndim - 1
    if len(look.wide) == 2 and last == 2 and (look.tokens or look.ends <= _NORMALISED):
        return [Part(look.name, "direction", last)]
    if len(look.wide) != 1 or look.values.shape[look.wide[0]] < _VECTOR:
        return []
    common = np.square(look.values.mean(axis=0)).sum() / max(
        np.square(look.values).mean(axis=0).sum(), 1e-300
    )
    rows = np.sqrt(np.square(look.values).mean(axis=_other_axes(look.values, look.wide[0])))
    low, high = np.quantile(rows, (0.1, 0.9))
    alike = len(look.values) > 1 and common > _ALIKE
    return [] if alike or high > _WIDE * low else [Part(look.name, "direction", look.wide[0])]


def _uneven_rows(look: _Look) -> list[Part]:
    axis = _row_axis(look.values)
    if axis is None or not (len(look.wide) == 1 or _is_uneven(look.values, axis)):
        return []
    return [Part(look.name, "row-mse", axis)]


_KINDS: Sequence[Callable[[_Look], list[Part]]] = (
    _single_value,
    _probabilities,
    _sigmoid_scores,
    _boxes_beside_scores,
    _logits,
    _vectors,
    _uneven_rows,
)


def _are_logits(vectors: FloatArray, dense: bool) -> bool:
    """Whether one class stands out in each vector, as in what a classifier gives.

    Vectors of many elements also have to be lopsided: in an embedding the lowest elements lie as far from the
    middle as the highest.

    Args:
        vectors: Float64 [n, classes].
        dense: Whether a dense layer has computed them; others have to be surer.
    """
    count = vectors.shape[1]
    shifted = vectors - vectors.max(axis=1, keepdims=True)
    p = np.exp(shifted)
    total = p.sum(axis=1)
    entropy = np.log(total) - (p * shifted).sum(axis=1) / total
    if entropy.mean() > (0.9 if dense else 0.2) * np.log(count):
        return False
    if count < 2 * _VECTOR:
        return bool(vectors.min() < 0 < vectors.max()) and not _are_coordinates(vectors)
    spread = np.maximum(vectors.std(axis=1), 1e-300)
    above = ((vectors.max(axis=1) - vectors.mean(axis=1)) / spread).mean()
    below = ((vectors.mean(axis=1) - vectors.min(axis=1)) / spread).mean()
    return bool(above > max(np.sqrt(2 * np.log(count)), 1.2 * below))


def _are_coordinates(vectors: FloatArray) -> bool:
    """Whether vectors hardly differ, beside how far they lie from zero; not even those of one class do."""
    common = np.square(vectors.mean(axis=0)).sum() / np.square(vectors).mean(axis=0).sum()
    return len(vectors) > 1 and bool(common > _COORDINATES)


def _row_axis(values: AnyArray) -> int | None:
    """The axis of channels, columns or elements; None where there are no two.

    Of three axes it is the shorter one; of four the first, or the last in an NHWC map; else the last.
    """
    shape, last = values.shape, values.ndim - 1
    axis = last
    if last == 2:
        axis = 1 if shape[1] < shape[2] else 2
    elif last == 3 and not shape[1] == shape[2] != shape[3]:
        axis = 1
    return axis if axis > 0 and shape[axis] > 1 else None


def _is_uneven(values: FloatArray, axis: int) -> bool:
    return _unevenness(values, axis) > _WIDE


def _unevenness(values: FloatArray, axis: int) -> float:
    """The largest root mean square of rows over the smallest that is not zero."""
    power = np.square(values).mean(axis=_other_axes(values, axis))
    alive = power[power > 0]
    return float(np.sqrt(alive.max() / alive.min())) if alive.size else 1.0


def _other_axes(values: FloatArray, axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(values.ndim) if other != axis)
