"""The losses by name, against the outputs of the float network or the labels (docs/method.md, "The loss")."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import AnyArray, FloatArray
from onnx_lapq.errors import CalibrationError, ConfigError, RunError
from onnx_lapq.method import loss_formulas
from onnx_lapq.method.common_values import Common, as_float, common_of
from onnx_lapq.method.parts import LossName, Part, part_of
from onnx_lapq.method.probabilities import above_zero, to_logits, to_scores

__all__ = [
    "NO_LABEL",
    "CustomLoss",
    "SampleLoss",
    "custom_loss",
    "make_loss",
    "output_loss",
    "output_losses",
]

NO_LABEL = -100
"""Where a position has no class, as PyTorch's cross-entropy and its users write it."""

SampleLoss = Callable[[Sequence[AnyArray], Any], FloatArray]
"""Outputs of the quantized network, and which samples they belong to (a slice, or an array of positions), to
one loss per sample, float64 [n]."""

CustomLoss = Callable[[Mapping[str, AnyArray], Mapping[str, AnyArray], AnyArray | None], npt.ArrayLike]
"""Outputs of the quantized network on some samples by name, those of the float network, and the labels of
these samples or None, to one loss per sample; called from several threads."""

OutputLoss = Callable[[AnyArray, Any], FloatArray]
"""The same of one output."""

_TEMPERATURE = 1.5
"""Of ``soft-kl``: more samples lie near a decision boundary, so their mean has less noise than that of ``kl``
(measured: docs/measurements/results.md)."""


def make_loss(name: LossName, reference: Sequence[AnyArray], labels: AnyArray | None = None) -> SampleLoss:
    """Make the loss of a calibration set, one for all outputs. Several outputs are summed.

    Classes lie along the last axis, and along axis 1 of outputs of rank 4 (NCHW maps).

    Args:
        name: The loss.
        reference: Outputs of the float network over the whole calibration set, [N, ...] each.
        labels: See `output_loss`.

    Returns:
        The loss. It raises RunError for outputs of another shape than the reference.

    Raises:
        ConfigError: The name is not known.
        CalibrationError: Labels are missing, of another shape, or outside the range of the classes.
    """
    named = [part_of("", one, name) for one in reference]
    parts = [output_loss(part, one, labels) for part, one in zip(named, reference, strict=True)]

    def sample_loss(outputs: Sequence[AnyArray], samples: Any) -> FloatArray:
        values = [part(output, samples) for part, output in zip(parts, outputs, strict=True)]
        total: FloatArray = np.sum(values, axis=0, dtype=np.float64)
        return total

    return sample_loss


def output_loss(
    part: Part, reference: AnyArray, labels: AnyArray | None = None, weights: FloatArray | None = None
) -> OutputLoss:
    """Make the loss of an output, or of some of its rows.

    Outputs that are probabilities already (rows that sum to 1; single values within 0 to 1) are taken to
    logits first. A single logit makes "kl" the Bernoulli divergence and "cross-entropy" the binary one.

    Args:
        part: Which loss, along which axis, and of which rows.
        reference: The output of the float network over the whole calibration set, [N, ...].
        labels: Class numbers [N] (or [N, *positions]) for the cross-entropies, 0 or 1 for a single logit.
        weights: Of the positions, [N, positions]; None where all count alike.

    Returns:
        The loss. It raises RunError for an output of another shape than the reference.

    Raises:
        ConfigError: The loss is not known.
        CalibrationError: Labels are missing, of another shape, or outside the range of the classes.
    """
    (loss,) = output_losses(part, [reference], [labels], [weights])
    return loss


def output_losses(
    part: Part,
    references: Sequence[AnyArray],
    labels: Sequence[AnyArray | None],
    weights: Sequence[FloatArray | None],
) -> list[OutputLoss]:
    """Make the losses of an output on samples of several shapes, see `output_loss`.

    What is said of all samples, such as their power, is computed once, and every sample counts the same.

    Args:
        part: Which loss, along which axis, and of which rows.
        references: The output of the float network, [n, ...] for each shape.
        labels: Those of the samples of each shape.
        weights: Of the positions for each shape.

    Returns:
        A loss for each shape.
    """
    if part.loss not in _MAKERS:
        raise ConfigError(f"there is no loss {part.loss!r}; choose one of {', '.join(_MAKERS)}")
    rows = [_rows(part, reference) for reference in references]
    common = common_of(part, rows)
    seen = [_Seen(*each, part.axis, common) for each in zip(rows, labels, weights, strict=True)]
    return [
        _checked(part, reference, _MAKERS[part.loss](one))
        for reference, one in zip(references, seen, strict=True)
    ]


def _checked(part: Part, reference: AnyArray, loss: OutputLoss) -> OutputLoss:
    def checked(output: AnyArray, samples: Any) -> FloatArray:
        if output.shape[1:] != reference.shape[1:]:
            raise RunError(
                f"the quantized network gave an output of shape {output.shape[1:]} where "
                f"{reference.shape[1:]} was expected"
            )
        with np.errstate(invalid="ignore", over="ignore"):
            return loss(_rows(part, output), samples)

    return checked


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a loss is made from: the arguments of `output_loss`, with nothing but the rows that count."""

    reference: AnyArray
    labels: AnyArray | None
    weights: FloatArray | None
    axis: int | None
    common: Common

    def weights_of(self, samples: Any) -> FloatArray | None:
        return None if self.weights is None else self.weights[samples]


def custom_loss(
    function: CustomLoss, reference: Mapping[str, AnyArray], labels: AnyArray | None = None
) -> SampleLoss:
    """Make the loss of a calibration set from a function of the caller.

    Args:
        function: The caller's loss.
        reference: Outputs of the float network over the whole calibration set by name, [N, ...] each.
        labels: One row per sample, or None.

    Returns:
        The loss. It raises ConfigError where the function does not give one number per sample.
    """

    def sample_loss(outputs: Sequence[AnyArray], samples: slice) -> FloatArray:
        named = dict(zip(reference, outputs, strict=True))
        wanted = {name: one[samples] for name, one in reference.items()}
        losses = np.asarray(function(named, wanted, None if labels is None else labels[samples]), np.float64)
        count = len(outputs[0])
        if losses.shape != (count,):
            raise ConfigError(
                f"the loss function gave an array of shape {losses.shape} for {count} samples; return one "
                "number per sample"
            )
        return losses

    return sample_loss


def _kl(seen: _Seen, temperature: float = 1.0) -> OutputLoss:
    """Divergence from the float network's class distribution.

    Both softened by a temperature T, and the result times T squared, which keeps its scale (Hinton et al.,
    Distilling the Knowledge in a Neural Network, 2015, section 2).
    """
    reference, axis = seen.reference, seen.axis
    as_logits, squared = to_logits(axis, seen.common.probabilities), temperature * temperature

    def soft(output: AnyArray) -> FloatArray:
        return as_logits(output) / temperature

    def binary(output: AnyArray, samples: Any) -> FloatArray:
        wanted, weights = soft(reference[samples]), seen.weights_of(samples)
        return squared * loss_formulas.binary_kl(soft(output), wanted, weights)

    def over_classes(output: AnyArray, samples: Any) -> FloatArray:
        assert axis is not None
        wanted = loss_formulas.log_softmax(soft(reference[samples]), axis)
        return squared * loss_formulas.kl_divergence(soft(output), wanted, axis, seen.weights_of(samples))

    def over_probabilities(output: AnyArray, samples: Any) -> FloatArray:
        found, wanted = above_zero(output), above_zero(reference[samples])
        return loss_formulas.divergence(found, wanted, -1 if axis is None else axis, seen.weights_of(samples))

    if axis is None:
        return binary
    many = reference.ndim > 2 and temperature == 1.0
    return over_probabilities if many and seen.common.probabilities else over_classes


def _binary_kl(seen: _Seen) -> OutputLoss:
    """Divergence of scores that do not exclude each other, over that of scores that never change."""
    as_scores, scale = to_scores(seen.common.probabilities), seen.common.scale

    def loss(output: AnyArray, samples: Any) -> FloatArray:
        found, wanted = as_scores(output), as_scores(seen.reference[samples])
        return loss_formulas.binary_divergence(found, wanted, seen.weights_of(samples)) / scale

    return loss


def _cross_entropy(seen: _Seen) -> OutputLoss:
    """Cross-entropy with labels over classes."""
    reference, axis = seen.reference, seen.axis
    if axis is None:
        return _binary_cross_entropy(seen)
    shape = (*reference.shape[:axis], *reference.shape[axis + 1 :])
    labels, as_logits = seen.labels, to_logits(axis, seen.common.probabilities)
    is_of_positions = math.prod(shape[1:]) > 1
    if labels is not None and is_of_positions and seen.weights is not None and labels.shape == shape:
        padding = seen.weights.reshape(*seen.weights.shape, *(1,) * (len(shape) - 2)) == 0
        labels = np.where(padding, NO_LABEL, labels)
    classes = _checked_labels(labels, shape, reference.shape[axis], may_lack=is_of_positions)
    if classes.size and classes.max() < 0:
        raise CalibrationError(f"labels are all {NO_LABEL} or of padding; correct them, or use --loss kl")
    return lambda output, samples: loss_formulas.cross_entropy(
        as_logits(output), classes[samples], axis, seen.weights_of(samples)
    )


def _binary_cross_entropy(seen: _Seen) -> OutputLoss:
    """Cross-entropy with 0/1 labels of single logits."""
    if seen.axis is not None:
        raise ConfigError(
            "the binary cross-entropy needs one logit per sample, not an output of shape "
            f"{seen.reference.shape}; use cross-entropy"
        )
    targets = _checked_labels(seen.labels, seen.reference.shape, 2)
    as_logits = to_logits(None, seen.common.probabilities)
    return lambda output, samples: loss_formulas.binary_cross_entropy(as_logits(output), targets[samples])


def _direction(seen: _Seen) -> OutputLoss:
    """Angle to the float network's vectors, and difference in length."""
    axis = seen.reference.ndim - 1 if seen.axis is None else seen.axis
    truth = as_float(seen.reference)
    return lambda output, samples: loss_formulas.direction(
        output.astype(np.float64), truth[samples].astype(np.float64), axis, seen.weights_of(samples)
    )


def _squared(seen: _Seen) -> OutputLoss:
    """Squared difference from the float network's output, over the power of all or of each row."""
    if not seen.reference.size:
        return lambda output, samples: np.zeros(len(output))
    truth, power = as_float(seen.reference), seen.common.scale
    return lambda output, samples: loss_formulas.normalised_mse(
        output.astype(np.float64), truth[samples].astype(np.float64), power, seen.weights_of(samples)
    )


_MAKERS: Mapping[LossName, Callable[[_Seen], OutputLoss]] = {
    "kl": _kl,
    "soft-kl": lambda seen: _kl(seen, _TEMPERATURE),
    "binary-kl": _binary_kl,
    "cross-entropy": _cross_entropy,
    "binary-cross-entropy": _binary_cross_entropy,
    "mse": _squared,
    "row-mse": _squared,
    "direction": _direction,
}


def _rows(part: Part, values: AnyArray) -> AnyArray:
    """The rows of an output that a part has."""
    if part.rows is None or part.axis is None:
        return values
    rows: AnyArray = np.take(values, part.rows, axis=part.axis)
    return rows


def _checked_labels(
    labels: AnyArray | None, shape: tuple[int, ...], classes: int, *, may_lack: bool = False
) -> npt.NDArray[np.int64]:
    """Labels as int64 of the wanted shape, every one a class, or `NO_LABEL` where some may lack one."""
    if labels is None:
        raise CalibrationError(
            "the cross-entropy loss needs labels, but the samples have none; use --loss kl"
        )
    if labels.size != math.prod(shape) or labels.shape[:1] != shape[:1]:
        raise CalibrationError(
            f"labels of shape {labels.shape} do not fit outputs that want {shape}; give one each"
        )
    with np.errstate(invalid="ignore"):
        numbers: npt.NDArray[np.int64] = labels.astype(np.int64).reshape(shape)
    fits = (numbers >= 0) & (numbers < classes)
    if may_lack:
        fits |= numbers == NO_LABEL
    bad = np.argwhere((numbers != labels.reshape(shape)) | ~fits)
    if len(bad):
        first = tuple(bad[0])
        raise CalibrationError(
            f"label {labels.reshape(shape)[first]} of sample {first[0]} is outside 0..{classes - 1}, the "
            "classes of the model; correct the labels or check that this is the right model"
        )
    return numbers
