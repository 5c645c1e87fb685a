"""Which positions of samples of different lengths are real, and which are padding."""

import numpy as np

from onnx_lapq.calibration.samples import Samples, batches

__all__ = ["has_tokens", "padding_mask"]

_CHUNK = 64


def padding_mask(samples: Samples) -> np.ndarray | None:
    """The padding mask among the inputs of a model, such as ``attention_mask``.

    It is an input [N, positions] of zeros and ones with "mask" in its name, of which every sample has a one.

    Args:
        samples: Samples for the model.

    Returns:
        Bool [N, positions], True where a position is real; None without such an input, where it is one
        everywhere, and for samples of several shapes, which have their own lengths.
    """
    named = _masks(samples)
    if len(named) != 1 or len(samples.groups) > 1:
        return None
    parts = [samples.batch(at.start, at.stop)[named[0]] for at in batches(samples.groups, _CHUNK)]
    mask = np.concatenate(parts)
    if mask.all() or not np.isin(mask, (0, 1)).all() or not mask.any(axis=1).all():
        return None
    return mask.astype(bool)


def has_tokens(samples: Samples) -> bool:
    """Whether samples are sequences: they have padding, or a mask and lengths of their own."""
    return padding_mask(samples) is not None or (len(samples.groups) > 1 and len(_masks(samples)) == 1)


def _masks(samples: Samples) -> list[str]:
    first = samples.batch(0, 1)
    return [name for name, values in first.items() if "mask" in name.lower() and values.ndim == 2]
