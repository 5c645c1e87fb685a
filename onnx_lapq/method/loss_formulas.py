"""The formulas of the losses of `onnx_lapq.method.losses`, sample by sample.

docs/method.md, "The loss".

Every function returns float64 [n], one value per sample, so that any subset can be averaged. Logits of any
float dtype are taken to float64 first. Outputs of rank > 2 are averaged over their positions: all of them
alike, or with weights [n, positions] along the first axis behind the samples, which leave out padding.
"""

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import AnyFloatArray, FloatArray

__all__ = [
    "binary_cross_entropy",
    "binary_divergence",
    "binary_kl",
    "cross_entropy",
    "direction",
    "divergence",
    "kl_divergence",
    "log_softmax",
    "normalised_mse",
]


def log_softmax(logits: AnyFloatArray, axis: int = -1) -> FloatArray:
    """``log(softmax(logits))`` along an axis, in float64, without overflow."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=axis, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return shifted


def kl_divergence(
    output: AnyFloatArray, reference: FloatArray, axis: int = -1, weights: FloatArray | None = None
) -> FloatArray:
    """KL(reference || output) of the class distributions.

    Args:
        output: Logits of the quantized network, [n, ...] with the classes along ``axis``.
        reference: Log-probabilities of the float network (:func:`log_softmax`), of the same shape.
        axis: The class axis.
        weights: Of the positions; None where all count alike.

    Returns:
        float64 [n], >= 0, in nats.
    """
    difference = reference - log_softmax(output, axis)
    difference *= np.exp(reference)
    return np.maximum(_sample_means(difference.sum(axis=axis), weights), 0.0)


def divergence(
    output: AnyFloatArray, reference: AnyFloatArray, axis: int = -1, weights: FloatArray | None = None
) -> FloatArray:
    """KL(reference || output) of class probabilities, which takes one logarithm for each.

    Args:
        output: Probabilities of the quantized network, above 0, [n, ...] with the classes along ``axis``.
            They count as if they summed to 1.
        reference: Probabilities of the float network, of the same shape.
        axis: The class axis.
        weights: Of the positions; None where all count alike.

    Returns:
        float64 [n], >= 0, in nats.
    """
    found, wanted = (values.astype(np.float64, copy=False) for values in (output, reference))
    total = np.log(found.sum(axis=axis))
    ratio = np.divide(wanted, found)
    np.log(ratio, out=ratio)
    ratio *= wanted
    return np.maximum(_sample_means(ratio.sum(axis=axis) + total, weights), 0.0)


def binary_divergence(
    output: AnyFloatArray, reference: AnyFloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """KL(reference || output) of Bernoulli probabilities, every one on its own.

    Args:
        output: Probabilities of the quantized network, between 0 and 1, [n, ...].
        reference: Those of the float network, of the same shape.
        weights: Of the positions; None where all count alike.

    Returns:
        float64 [n], >= 0, in nats.
    """
    q, p = output.astype(np.float64), reference.astype(np.float64)
    values = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return np.maximum(_sample_means(values, weights), 0.0)


def cross_entropy(
    logits: AnyFloatArray,
    labels: npt.NDArray[np.integer],
    axis: int = -1,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Negative log-likelihood of the labels.

    Args:
        logits: [n, ...] with the classes along ``axis``.
        labels: Class numbers, of the logits' shape without the class axis. Those below 0 do not count; a
            sample without others has a loss of 0.
        axis: The class axis.
        weights: Of the positions; None where all count alike.

    Returns:
        float64 [n], in nats.
    """
    has_class = labels >= 0
    classes = np.expand_dims(np.where(has_class, labels, 0), axis)
    chosen = np.take_along_axis(log_softmax(logits, axis), classes, axis=axis).squeeze(axis)
    counted = _sample_means(has_class.astype(np.float64), weights)
    means = _sample_means(np.where(has_class, -chosen, 0.0), weights)
    return np.divide(means, counted, out=np.zeros_like(means), where=counted > 0)


def binary_cross_entropy(logits: AnyFloatArray, targets: npt.NDArray[np.generic]) -> FloatArray:
    """Cross-entropy of single logits: ``softplus(z) - y z``.

    Args:
        logits: [n] or [n, ...], one logit per decision.
        targets: 0 or 1, or probabilities between, of as many elements as the logits.

    Returns:
        float64 [n], in nats.
    """
    z = logits.astype(np.float64)
    y = targets.astype(np.float64).reshape(z.shape)
    return _sample_means(np.logaddexp(0.0, z) - y * z)


def binary_kl(
    logits: AnyFloatArray, reference: AnyFloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """KL(reference || output) of Bernoulli distributions given by single logits.

    Args:
        logits: Logits of the quantized network, [n] or [n, ...].
        reference: Logits of the float network, of the same shape.
        weights: Of the positions; None where all count alike.

    Returns:
        float64 [n], >= 0, in nats.
    """
    z, r = logits.astype(np.float64), reference.astype(np.float64)
    probability = np.exp(-np.logaddexp(0.0, -r))
    divergence = np.logaddexp(0.0, z) - np.logaddexp(0.0, r) - probability * (z - r)
    return np.maximum(_sample_means(divergence, weights), 0.0)


def normalised_mse(
    output: AnyFloatArray,
    reference: AnyFloatArray,
    power: float | FloatArray,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Mean squared difference in units of the reference's power.

    Args:
        output: Output of the quantized network, [n, ...].
        reference: Output of the float network, of the same shape.
        power: Of the reference over the whole calibration set, > 0; of each row, it has ones as the sizes of
            the other axes.
        weights: Of the positions; None where all count alike.

    Returns:
        float64 [n], without unit.
    """
    difference = output.astype(np.float64)
    difference -= reference
    difference *= difference
    if isinstance(power, float):
        return _sample_means(difference, weights) / power
    difference /= power
    return _sample_means(difference, weights)


def direction(
    output: AnyFloatArray, reference: AnyFloatArray, axis: int = -1, weights: FloatArray | None = None
) -> FloatArray:
    """How far vectors point elsewhere and are of another length: 1 - cosine + (length ratio - 1)^2 / 2.

    Near zero it is half the squared distance in units of the reference's own length, so that long and short
    vectors count alike.

    Args:
        output: Vectors of the quantized network, [n, ...].
        reference: Vectors of the float network, of the same shape; those of length zero do not count.
        axis: Their elements lie along it.
        weights: Of the positions; None where all count alike.

    Returns:
        float64 [n], without unit.
    """
    found, wanted = output.astype(np.float64), reference.astype(np.float64)
    lengths = [np.sqrt(np.square(vectors).sum(axis=axis)) for vectors in (found, wanted)]
    inner = (found * wanted).sum(axis=axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.where(lengths[0] > 0, inner / (lengths[0] * lengths[1]), 0.0)
        ratio = lengths[0] / lengths[1]
        distance = np.where(lengths[1] > 0, 1 - cosine + (ratio - 1) ** 2 / 2, 0.0)
    return np.maximum(_sample_means(distance, weights), 0.0)


def _sample_means(values: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Means over all axes but the first, of [n, positions, ...] weighted by [n, positions]."""
    means: FloatArray
    if weights is None:
        means = values.reshape(values.shape[0], -1).mean(axis=1)
    else:
        by_position = values.reshape(*weights.shape, -1).mean(axis=2)
        means = (by_position * weights).sum(axis=1) / weights.sum(axis=1)
    return means
