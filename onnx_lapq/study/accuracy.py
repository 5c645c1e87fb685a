"""How often a model is right, by class labels of samples or of the positions in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import AnyArray, AnyFloatArray
from onnx_lapq.errors import CalibrationError
from onnx_lapq.method.losses import NO_LABEL, make_loss
from onnx_lapq.method.measures import top_shares
from onnx_lapq.method.parts import Part, class_axis

__all__ = ["Accuracy", "Labelled", "find_labelled"]

_CHUNK = 1 << 18


@dataclass(frozen=True)
class Accuracy:
    """Hits of a model.

    Attributes:
        top1: Share of labels that are the best class.
        top5: Share of labels that are among the best five; None for one logit.
        cross_entropy: Mean over the labels, in nats.
    """

    top1: float
    top5: float | None
    cross_entropy: float


@dataclass(frozen=True, eq=False)
class Labelled:
    """Class numbers, and the output that they judge.

    Attributes:
        output: Its name.
        shape: Of the output.
        axis: Where its classes lie, if it has scores for positions; None where it has them for samples.
        labels: Class numbers of what is counted, [n].
        counted: Which positions these are, of the output's shape without the classes; all samples for None.
    """

    output: str
    shape: tuple[int, ...]
    axis: int | None
    labels: npt.NDArray[np.number]
    counted: npt.NDArray[np.bool_] | None = None

    def accuracy(self, outputs: Mapping[str, AnyFloatArray]) -> Accuracy | None:
        """Hits by the outputs of a model on all samples; None where this one is missing or reshaped."""
        scores = outputs.get(self.output)
        if scores is None or scores.shape != self.shape:
            return None
        if self.axis is not None:
            scores = np.moveaxis(scores, self.axis, -1)[self.counted]
        loss = make_loss("cross-entropy", [scores], self.labels)
        total, top1, top5 = 0.0, 0.0, 0.0
        count, last = len(scores), None
        for start in range(0, count, _CHUNK):
            at = slice(start, min(start + _CHUNK, count))
            share = (at.stop - start) / count
            best, last = top_shares(scores[at], self.labels[at])
            total += share * float(loss([scores[at]], at).mean())
            top1, top5 = top1 + share * best, top5 + share * (last or 0.0)
        return Accuracy(top1, None if last is None else top5, total)


def find_labelled(
    parts: Sequence[Part],
    outputs: Mapping[str, AnyArray],
    labels: npt.NDArray[np.number],
    mask: AnyArray | None,
) -> Labelled:
    """Find the output that labels judge.

    One label for each sample judges the first class scores. More judge the first output with a class axis
    whose other axes are those of the labels: classes lie last, or along axis 1 of maps.

    Args:
        parts: What is looked at.
        outputs: Of the float network on all samples.
        labels: Of the samples.
        mask: Bool [N, positions], True where a position is no padding; None where all count.

    Raises:
        CalibrationError: The labels are no class numbers of an output.
    """
    if labels.ndim > 1:
        return _of_positions(parts, outputs, labels, mask)
    scored = (part.output for part in parts if part.loss == "kl")
    name = next(
        (name for name in scored if labels.shape == outputs[name].shape[:1] and outputs[name].ndim <= 2), None
    )
    if name is None:
        raise CalibrationError(
            "there is one label for each sample, but no output with scores of classes for a sample; give "
            "labels of positions, or leave the labels out"
        )
    make_loss("cross-entropy", [outputs[name]], labels)  # every label is a class
    return Labelled(name, outputs[name].shape, None, labels)


def _of_positions(
    parts: Sequence[Part],
    outputs: Mapping[str, AnyArray],
    labels: npt.NDArray[np.number],
    mask: AnyArray | None,
) -> Labelled:
    with np.errstate(invalid="ignore"):
        numbers = labels.astype(np.int64)
    fits = ((name, axis) for name in _names(parts) for axis in _class_axes(outputs[name], labels.shape))
    name, axis = next(fits, (None, 0))
    if name is None or not np.array_equal(numbers, labels):
        raise CalibrationError(
            f"labels of shape {list(labels.shape)} are no class numbers of an output; give one for each "
            "sample, or for each position of scores [N, positions, classes] or [N, classes, height, width]"
        )
    counted = numbers != NO_LABEL
    if mask is not None and mask.shape == labels.shape:
        counted &= mask
    chosen, classes = numbers[counted], outputs[name].shape[axis]
    if not chosen.size or chosen.min() < 0 or chosen.max() >= classes:
        span = (
            f"go from {chosen.min()} to {chosen.max()}"
            if chosen.size
            else f"are all {NO_LABEL} or of padding"
        )
        raise CalibrationError(
            f"labels {span}, but the classes of output '{name}' are 0..{classes - 1}; correct the labels; "
            f"positions without a class have {NO_LABEL}"
        )
    return Labelled(name, outputs[name].shape, axis, chosen, counted)


def _names(parts: Sequence[Part]) -> list[str]:
    return list(dict.fromkeys(part.output for part in parts))


def _class_axes(values: AnyArray, shape: tuple[int, ...]) -> list[int]:
    """Axes that the classes may lie along, for labels of this shape, the likeliest first."""
    usual, last = class_axis(values), values.ndim - 1
    axes = [axis for axis in dict.fromkeys((usual, last, 1)) if axis is not None and 0 < axis < values.ndim]
    return [
        axis
        for axis in axes
        if values.shape[axis] > 1 and (*values.shape[:axis], *values.shape[axis + 1 :]) == shape
    ]
