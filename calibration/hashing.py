"""A hash of samples: the same for the same values, wherever they are from."""

import hashlib

import numpy as np

from onnx_lapq.calibration.stored import Samples, batches

__all__ = ["hash_samples"]

_BATCH = 64


def hash_samples(samples: Samples) -> str:
    """Hexadecimal SHA-256 of what reaches the model, and of the labels."""
    digest = hashlib.sha256()
    for at in batches(samples.groups, _BATCH):
        for name, array in samples.batch(at.start, at.stop).items():
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(_bytes(array))
    if samples.labels is not None:
        digest.update(_bytes(samples.labels))
    return digest.hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    """The bytes of an array; of one that holds objects, such as strings, their text."""
    if array.dtype.hasobject:
        array = array.astype(np.str_)
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
