"""The losses by name, against the outputs of the float network or the labels (docs/method.md, "The loss")."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import AnyArray, FloatArray
from onnx_lapq.errors import CalibrationError, ConfigError, RunError
from onnx_lapq.method import loss_formulas

__all__ = ["CustomLoss", "LossName", "SampleLoss", "custom_loss", "default_loss", "make_loss"]

LossName = Literal["kl", "soft-kl", "cross-entropy", "binary-cross-entropy", "mse"]
SampleLoss = Callable[[Sequence[AnyArray], Any], FloatArray]
"""Outputs of the quantized network, and which samples they belong to (a slice, or an array of positions), to
one loss per sample, float64 [n]."""

CustomLoss = Callable[[Mapping[str, AnyArray], Mapping[str, AnyArray], AnyArray | None], npt.ArrayLike]
"""Outputs of the quantized network on some samples by name, those of the float network, and the labels of
these samples or None, to one loss per sample; called from several threads."""

_OutputLoss = Callable[[AnyArray, slice], FloatArray]
_SMALLEST_PROBABILITY = 1e-12
_TEMPERATURE = 1.5
"""Of ``soft-kl``: more samples lie near a decision boundary, so their mean has less noise than that of ``kl``
(measured: docs/measurements/results.md)."""


def default_loss(reference: Sequence[AnyArray], soft: bool = False) -> LossName:
    """The loss to use when none is named.

    Args:
        reference: Outputs of the float network, [N, ...] each.
        soft: "soft-kl" in place of "kl".

    Returns:
        "kl" for a single float output that looks like class scores ([N, K]) or one logit ([N], [N, 1]), else
        "mse".
    """
    scores = len(reference) == 1 and reference[0].ndim <= 2 and np.issubdtype(reference[0].dtype, np.floating)
    if not scores:
        return "mse"
    return "soft-kl" if soft else "kl"


def make_loss(name: LossName, reference: Sequence[AnyArray], labels: AnyArray | None = None) -> SampleLoss:
    """Make the loss of a calibration set. Several outputs are summed.

    Classes lie along the last axis, and along axis 1 of outputs of rank 4 (NCHW maps). Outputs that are
    probabilities already (rows that sum to 1; single values within 0 to 1) are taken to logits first. A
    single logit makes "kl" the Bernoulli divergence and "cross-entropy" the binary one.

    Args:
        name: The loss.
        reference: Outputs of the float network over the whole calibration set, [N, ...] each.
        labels: Class numbers [N] (or [N, *positions]) for the cross-entropies, 0 or 1 for a single logit.

    Returns:
        The loss; what it needs of the reference is computed once. It raises RunError for outputs of another
        shape than the reference.

    Raises:
        ConfigError: The name is not known.
        CalibrationError: Labels are missing, of another shape, or outside the range of the classes.
    """
    if name not in get_args(LossName):
        raise ConfigError(f"there is no loss {name!r}; choose one of {', '.join(get_args(LossName))}")
    makers: dict[str, Callable[[AnyArray], _OutputLoss]] = {
        "mse": _mse,
        "kl": lambda one: _kl(one, _class_axis(one)),
        "soft-kl": lambda one: _kl(one, _class_axis(one), _TEMPERATURE),
        "cross-entropy": lambda one: _cross_entropy(one, labels, _class_axis(one)),
        "binary-cross-entropy": lambda one: _binary_cross_entropy(one, labels, _class_axis(one)),
    }
    parts = [makers[name](one) for one in reference]
    tails = [one.shape[1:] for one in reference]

    def sample_loss(outputs: Sequence[AnyArray], samples: slice) -> FloatArray:
        if [output.shape[1:] for output in outputs] != tails:
            shapes = [output.shape[1:] for output in outputs]
            raise RunError(
                f"the quantized network gave outputs of shapes {shapes} where {tails} were expected"
            )
        with np.errstate(invalid="ignore", over="ignore"):
            values = [part(output, samples) for part, output in zip(parts, outputs, strict=True)]
        total: FloatArray = np.sum(values, axis=0, dtype=np.float64)
        return total

    return sample_loss


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


def _class_axis(reference: AnyArray) -> int | None:
    """The class axis; None for a single logit."""
    if reference.ndim == 1:
        return None
    axis = 1 if reference.ndim == 4 else -1
    return None if reference.shape[axis] == 1 else axis


def _kl(reference: AnyArray, axis: int | None, temperature: float = 1.0) -> _OutputLoss:
    """Divergence from the float network's class distribution.

    Both softened by a temperature T, and the result times T squared, which keeps its scale (Hinton et al.,
    Distilling the Knowledge in a Neural Network, 2015, section 2).
    """
    to_logits, squared = _to_logits(reference, axis), temperature * temperature

    def soft(output: AnyArray) -> FloatArray:
        return to_logits(output) / temperature

    if axis is None:
        binary = soft(reference)
        return lambda output, samples: squared * loss_formulas.binary_kl(soft(output), binary[samples])
    log_probabilities = loss_formulas.log_softmax(soft(reference), axis)
    return lambda output, samples: (
        squared * loss_formulas.kl_divergence(soft(output), log_probabilities[samples], axis)
    )


def _cross_entropy(reference: AnyArray, labels: AnyArray | None, axis: int | None) -> _OutputLoss:
    """Cross-entropy with labels over classes."""
    if axis is None:
        return _binary_cross_entropy(reference, labels, axis)
    shape = np.delete(np.array(reference.shape), axis)
    classes = _checked_labels(labels, tuple(shape.tolist()), reference.shape[axis])
    to_logits = _to_logits(reference, axis)
    return lambda output, samples: loss_formulas.cross_entropy(to_logits(output), classes[samples], axis)


def _binary_cross_entropy(reference: AnyArray, labels: AnyArray | None, axis: int | None) -> _OutputLoss:
    """Cross-entropy with 0/1 labels of single logits."""
    if axis is not None:
        raise ConfigError(
            f"the binary cross-entropy needs one logit per sample, not an output of shape {reference.shape}; "
            "use cross-entropy"
        )
    targets = _checked_labels(labels, reference.shape, 2)
    to_logits = _to_logits(reference, axis)
    return lambda output, samples: loss_formulas.binary_cross_entropy(to_logits(output), targets[samples])


def _mse(reference: AnyArray) -> _OutputLoss:
    """Squared difference from the float network's output."""
    if not reference.size:
        return lambda output, samples: np.zeros(len(output))
    truth = reference if np.issubdtype(reference.dtype, np.floating) else reference.astype(np.float64)
    flat = truth.reshape(-1)
    power = float(np.mean(np.square(flat, dtype=np.float64)))
    return lambda output, samples: loss_formulas.normalised_mse(
        output.astype(np.float64), truth[samples].astype(np.float64), power or 1.0
    )


def _to_logits(reference: AnyArray, axis: int | None) -> Callable[[AnyArray], FloatArray]:
    """How outputs like the reference become logits: as they are, or by the logarithm of probabilities."""
    values = reference.astype(np.float64)
    bounded = bool(values.size) and bool((values >= 0).all() and (values <= 1 + 1e-3).all())
    if axis is None and bounded:
        return _logit
    if axis is not None and bounded and np.allclose(values.sum(axis=axis), 1.0, rtol=0.0, atol=1e-3):
        return _log
    return lambda output: output.astype(np.float64)


def _log(probabilities: AnyArray) -> FloatArray:
    """Logarithms of probabilities; 0 gives a large negative number."""
    return np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST_PROBABILITY))


def _logit(probabilities: AnyArray) -> FloatArray:
    """Logits of probabilities; 0 and 1 give large numbers."""
    inside = np.clip(probabilities.astype(np.float64), _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    return np.log(inside) - np.log1p(-inside)


def _checked_labels(labels: AnyArray | None, shape: tuple[int, ...], classes: int) -> npt.NDArray[np.int64]:
    """Labels as int64 of the wanted shape, every one a class."""
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
    bad = np.argwhere((numbers != labels.reshape(shape)) | (numbers < 0) | (numbers >= classes))
    if len(bad):
        first = tuple(bad[0])
        raise CalibrationError(
            f"label {labels.reshape(shape)[first]} of sample {first[0]} is outside 0..{classes - 1}, the "
            "classes of the model; correct the labels or check that this is the right model"
        )
    return numbers
