"""Which positions of samples of different lengths are real, and which are padding."""

import numpy as np

from onnx_lapq.calibration.samples import Samples

__all__ = ["padding_mask"]

_CHUNK = 64


def padding_mask(samples: Samples) -> np.ndarray | None:
    """The padding mask among the inputs of a model, such as ``attention_mask``.

    It is an input [N, positions] of zeros and ones with "mask" in its name, of which every sample has a one.

    Args:
        samples: Samples for the model.

    Returns:
        Bool [N, positions], True where a position is real; None without such an input, or where it is one
        everywhere.
    """
    first = samples.batch(0, 1)
    named = [name for name, values in first.items() if "mask" in name.lower() and values.ndim == 2]
    if len(named) != 1:
        return None
    starts = range(0, len(samples), _CHUNK)
    parts = [samples.batch(at, min(at + _CHUNK, len(samples)))[named[0]] for at in starts]
    mask = np.concatenate(parts)
    if mask.all() or not np.isin(mask, (0, 1)).all() or not mask.any(axis=1).all():
        return None
    return mask.astype(bool)
