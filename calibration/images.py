"""Samples from a folder of images."""

import logging
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_lapq.calibration.balancing import balanced_indices
from onnx_lapq.calibration.decoding import decode_image
from onnx_lapq.calibration.files import Listing
from onnx_lapq.calibration.labels import FileLabels, file_labels
from onnx_lapq.calibration.preprocessing import (
    ImageInput,
    Preprocessing,
    image_input,
    plan_geometry,
    size_fits,
    to_model_input,
)
from onnx_lapq.calibration.request import Request
from onnx_lapq.calibration.stored import StoredInput, StoredSamples, set_values
from onnx_lapq.common.limits import physical_memory
from onnx_lapq.common.sizes import in_gigabytes
from onnx_lapq.errors import CalibrationError

__all__ = ["read_images"]

logger = logging.getLogger(__name__)


def read_images(listing: Listing, request: Request) -> StoredSamples:
    """Decode the images of a folder; they stay in memory as uint8 of the model's size.

    Args:
        listing: The folder; it holds at least one image.
        request: What samples are wanted; one of the inputs is fed, and takes images. No more files than
            the limit are opened.

    Returns:
        The samples, sorted by path.

    Raises:
        CalibrationError: The model does not take images, or an image cannot be decoded or does not fit: the
            first one in order.
        ConfigError: Mean or std do not fit the model's channels.
    """
    preprocessing = request.preprocessing
    target = _image_target(listing.root, request)
    labels = file_labels(listing, listing.images)
    total = len(listing.images)
    chosen = balanced_indices(labels.values, total, total if request.limit is None else request.limit)
    files = [listing.images[index] for index in chosen]
    pixels = _decode_all(listing.root, files, request, target)
    record = _record(listing, labels, preprocessing, target, pixels)
    logger.info("%s: read %d of %d images of shape %s", listing.root, len(files), total, pixels.shape[1:])
    convert = partial(to_model_input, preprocessing=preprocessing, target=target)
    values = None if labels.values is None else labels.values[chosen]
    stored = {
        spec.name: StoredInput(pixels, convert)
        if spec.name == target.name
        else StoredInput(set_values(spec, len(pixels)), axis=None)
        for spec in request.inputs
    }
    return StoredSamples(stored, values, record)


def _image_target(root: Path, request: Request) -> ImageInput:
    inputs = request.fed
    if len(inputs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in inputs)
        raise CalibrationError(
            f"{root}: a folder of images feeds one input, but the model has {len(inputs)} ({names}); "
            "save the samples as .npz with one array per input, or give numbers with --set INPUT=NUMBER"
        )
    target = image_input(inputs[0], request.preprocessing)
    if target is None:
        raise CalibrationError(
            f"{root}: input {inputs[0]} does not look like an image (1, 3 or 4 channels at position 1 or 3); "
            "give --layout if its channels are symbolic, or save the samples as .npz"
        )
    return target


def _decode_all(
    root: Path, files: Sequence[PurePosixPath], request: Request, target: ImageInput
) -> npt.NDArray[np.uint8]:
    """uint8 [files, height, width, channels]."""
    geometry, color = plan_geometry(request.preprocessing, target), request.preprocessing.color
    decode = partial(decode_image, geometry=geometry, channels=target.channels, color=color)
    stack: npt.NDArray[np.uint8] | None = None
    with closing(_in_threads(decode, [root / file for file in files])) as images:
        for index, image in enumerate(images):
            if stack is None:
                _check_size(root / files[0], image.shape, target)
                _check_memory(root, len(files), image.nbytes)
                stack = np.empty((len(files), *image.shape), np.uint8)
            _check_same_size(root / files[index], image.shape, files[0], stack.shape[1:])
            stack[index] = image
            request.tell(index + 1, len(files))
    if stack is None:
        raise CalibrationError(f"{root}: no images are left to read; add some")
    return stack


def _check_memory(root: Path, count: int, size: int) -> None:
    if count * size > physical_memory():
        raise CalibrationError(
            f"{root}: {count} images take {in_gigabytes(count * size)} decoded, more than this machine has; "
            "use fewer --samples or a smaller --input-size"
        )


def _check_same_size(
    path: Path, shape: tuple[int, ...], first: PurePosixPath, wanted: tuple[int, ...]
) -> None:
    if shape != wanted:
        raise CalibrationError(
            f"{path}: {shape[0]}x{shape[1]} pixels, but {first} ends up with {wanted[0]}x{wanted[1]}, and "
            f"the model fixes no size; give all images the one that you deploy with, such as --input-size "
            f"{wanted[0]}x{wanted[1]}"
        )


def _check_size(path: Path, shape: tuple[int, ...], target: ImageInput) -> None:
    if not size_fits((shape[0], shape[1]), target):
        raise CalibrationError(
            f"{path}: {shape[0]}x{shape[1]} pixels, but input '{target.name}' takes "
            f"{target.height or 'any'}x{target.width or 'any'}; use --resize with that size"
        )


def _in_threads(
    decode: Callable[[Path], npt.NDArray[np.uint8]], paths: Sequence[Path]
) -> Generator[npt.NDArray[np.uint8], None, None]:
    """The decoded images in order; the first failure, or an interrupt, drops what is not begun."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield from pool.map(decode, paths)
    finally:
        pool.shutdown(cancel_futures=True)


def _record(
    listing: Listing,
    labels: FileLabels,
    preprocessing: Preprocessing,
    target: ImageInput,
    pixels: npt.NDArray[np.uint8],
) -> dict[str, Any]:
    geometry = plan_geometry(preprocessing, target)
    return {
        "kind": "images",
        "path": str(listing.root),
        "count": len(pixels),
        "found": len(listing.images),
        "skipped_files": len(listing.others),
        "labels": labels.source,
        "class_names": None if labels.class_names is None else list(labels.class_names),
        "preprocessing": asdict(preprocessing)
        | {
            "resize": geometry.resize,
            "crop": geometry.crop,
            "letterbox": geometry.letterbox,
            "normalized": target.dtype.kind == "f",
        },
        "inputs": {
            target.name: {
                "image": True,
                "source_dtype": "uint8",
                "dtype": str(target.dtype),
                "layout": target.layout,
                "size": list(pixels.shape[1:3]),
                "channels": target.channels,
            }
        },
    }
