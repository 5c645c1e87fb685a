"""Fitting an array of samples to a model input: shape, dtype, and values that can be used."""

from itertools import pairwise
from typing import Any

import numpy as np

from onnx_lapq.calibration.preprocessing import Color, ImageInput
from onnx_lapq.calibration.stored import Array, InputSpec
from onnx_lapq.errors import CalibrationError

__all__ = ["batch_to_spec", "is_pixels", "pixels_to_spec"]

_CHUNK_BYTES = 1 << 26


def is_pixels(array: Array, target: ImageInput) -> bool:
    """Whether an array is taken as pixels: uint8 for a float input that takes images."""
    return array.dtype == np.uint8 and target.dtype.kind == "f"


def batch_to_spec(array: Array, spec: InputSpec, source: str) -> Array:
    """Check values that are fed as they are, and cast them if nothing is lost.

    Args:
        array: Of the model's shape, with any number of samples along their axis; one sample without that
            axis; or feeds of one sample each, stacked. Of an input without an axis of the samples: one value,
            or one for each sample.
        spec: The input.
        source: What messages call the array.

    Returns:
        [count, ...] in the model's dtype; one value for all samples is [1, ...].

    Raises:
        CalibrationError: Shape or dtype do not fit, or a value is NaN or plus infinity.
    """
    rows = _rows(array, spec)
    if rows is None or not _dims_fit(rows.shape[1:], spec):
        along = f"along axis {spec.axis}" if spec.axis else "or say with --batch-axis where they lie"
        raise CalibrationError(
            f"{source}: shape {list(array.shape)} does not fit input {spec}; "
            f"save the samples in the model's shape, {along}"
        )
    _check_finite(rows, source)
    return _cast(rows, spec, source)


def _rows(array: Array, spec: InputSpec) -> Array | None:
    """The samples along the first axis; None where there are more or fewer axes than any reading has."""
    inner = len(spec.sample_shape)
    if array.ndim == inner:
        return array[None]
    if spec.axis is None:
        return array if array.ndim == inner + 1 else None
    if array.ndim == inner + 1:
        return np.moveaxis(array, spec.axis, 0)
    stacked = array.ndim == inner + 2 and array.shape[spec.axis + 1] == 1
    return np.squeeze(array, spec.axis + 1) if stacked else None


def pixels_to_spec(array: Array, spec: InputSpec, target: ImageInput, color: Color, source: str) -> Array:
    """Bring uint8 image arrays to one layout and the model's channel order.

    Args:
        array: uint8 [count, height, width], [count, height, width, channels] or
            [count, channels, height, width], or one image without the first dimension; RGB.
        spec: The input, for messages.
        target: The input as an image input.
        color: Channel order that the model wants; "bgr" turns the channels around.
        source: What messages call the array.

    Returns:
        uint8 [count, height, width, channels].

    Raises:
        CalibrationError: The shape does not fit the input.
    """
    for candidate in _pixel_candidates(array, target):
        _, height, width, channels = candidate.shape
        fits = target.height in (None, height) and target.width in (None, width)
        if fits and channels == target.channels:
            if color == "bgr" and channels > 1:
                candidate = candidate[..., [2, 1, 0, 3][:channels]]
            return candidate
    raise CalibrationError(
        f"{source}: uint8 images of shape {list(array.shape)} do not fit input {spec}; "
        "save them in the model's size, or give a folder of image files, which are resized"
    )


def _pixel_candidates(array: Array, target: ImageInput) -> list[Array]:
    """The readings of an array as [count, height, width, channels], likeliest first."""
    if array.ndim == 2:
        return [array[None, :, :, None]]
    if array.ndim == 3:
        stack, last, first = array[..., None], array[None], np.moveaxis(array, 0, -1)[None]
        if target.channels > 1 or 1 in (array.shape[0], array.shape[2]):
            return [last, first, stack]
        return [stack]
    if array.ndim == 4:
        first = np.moveaxis(array, 1, -1)
        return [first, array] if target.layout == "nchw" else [array, first]
    return []


def _dims_fit(shape: tuple[int, ...], spec: InputSpec) -> bool:
    wanted = zip(shape, spec.sample_shape, strict=True)
    return all(not isinstance(dim, int) or dim == have for have, dim in wanted)


def _check_finite(array: Array, source: str) -> None:
    if array.dtype.kind not in "fc":
        return
    sample_bytes = max(1, array.itemsize * int(np.prod(array.shape[1:])))
    step = max(1, _CHUNK_BYTES // sample_bytes)
    for start, stop in pairwise([*range(0, len(array), step), len(array)]):
        values = array[start:stop].reshape(stop - start, -1)
        fine = (np.isfinite(values) | (values == -np.inf)).all(axis=1)  # masks that are added to scores
        if not fine.all():
            sample = start + int(np.argmin(fine))
            raise CalibrationError(
                f"{source}: sample {sample} holds NaN or infinity; correct or remove the sample"
            )


def _cast(array: Array, spec: InputSpec, source: str) -> Array:
    if array.dtype == spec.dtype:
        return array
    if not _castable(array, spec.dtype):
        raise CalibrationError(
            f"{source}: {array.dtype} values cannot be cast to the {spec.dtype} of input '{spec.name}' "
            "without loss; save them in the model's dtype"
        )
    with np.errstate(over="ignore"):
        cast = array.astype(spec.dtype)
    if cast.dtype.kind == "f":
        _check_finite(cast, f"{source}, cast to {spec.dtype}")
    return cast


def _castable(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether a cast keeps the values: by type, by precision of floats, or by the values held."""
    kinds = array.dtype.kind + dtype.kind
    if kinds in ("UO", "SO"):
        return True
    if dtype.kind not in "biuf" or array.dtype.kind not in "biuf":
        return False
    if np.can_cast(array.dtype, dtype, "safe") or kinds == "ff":
        return True
    if array.size == 0:
        return True
    low, high = int(array.min()), int(array.max())
    if array.dtype.kind in "biu" and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return low >= limits.min and high <= limits.max
    if array.dtype.kind in "biu" and dtype.kind == "f":
        exact: int = 2 ** (np.finfo(dtype).nmant + 1)
        return -exact <= low and high <= exact
    return False
