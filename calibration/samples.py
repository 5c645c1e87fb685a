"""Calibration samples: what they are, and how a path or data in memory becomes some."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_lapq.calibration.arrays import read_array_file, read_array_folder
from onnx_lapq.calibration.balancing import balanced_indices
from onnx_lapq.calibration.files import ARRAY_SUFFIXES, list_folder, summarize_suffixes
from onnx_lapq.calibration.images import read_images
from onnx_lapq.calibration.in_memory import InMemory, read_in_memory
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.calibration.request import Request
from onnx_lapq.calibration.stored import Array, InputSpec, OnProgress, Samples, batches
from onnx_lapq.errors import CalibrationError, ConfigError

__all__ = ["InputSpec", "SampleSource", "Samples", "batches", "open_samples", "subset", "take"]

SampleSource = str | os.PathLike[str] | InMemory
"""What samples can be read from."""


def open_samples(
    source: SampleSource,
    inputs: Sequence[InputSpec],
    preprocessing: Preprocessing,
    limit: int | None = None,
    progress: OnProgress | None = None,
) -> Samples:
    """Read calibration samples from wherever they are.

    Args:
        source: A folder of images, a folder of ``.npy``/``.npz`` files, one ``.npz`` or one ``.npy``; or
            samples in memory (`onnx_lapq.calibration.in_memory`).
        inputs: The model's inputs, at least one.
        preprocessing: What is done to images and to uint8 image arrays.
        limit: At most this many samples, evenly over the classes.
        progress: Called with (files or samples done, those known of).

    Returns:
        The samples.

    Raises:
        CalibrationError: There are none, or they cannot be read or do not fit the inputs.
        ConfigError: An option does not fit the model, or ``limit`` is not positive.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"the number of samples must be positive, not {limit}")
    if not inputs:
        raise CalibrationError("the model has no inputs to feed; check that it is the right model")
    request = Request(inputs, preprocessing, limit, progress)
    if not isinstance(source, str | os.PathLike):
        return read_in_memory(source, request)
    path = Path(source)
    if path.is_dir():
        return _open_folder(path, request)
    if not path.exists():
        raise CalibrationError(f"{path}: there is no such file or folder; check the path")
    if path.suffix.lower() in ARRAY_SUFFIXES and path.is_file():
        return read_array_file(path, request)
    raise CalibrationError(f"{path}: neither a folder nor an .npz or .npy file; give one of these")


def _open_folder(path: Path, request: Request) -> Samples:
    listing = list_folder(path)
    if listing.images and listing.arrays:
        raise CalibrationError(
            f"{path}: holds both images ({listing.images[0]}) and arrays ({listing.arrays[0]}); "
            "keep one kind in the folder"
        )
    if listing.images:
        return read_images(listing, request)
    if listing.arrays:
        return read_array_folder(listing, request)
    found = f"only other files: {summarize_suffixes(listing.others)}" if listing.others else "no files"
    raise CalibrationError(
        f"{path}: no samples in this folder ({found}); put images (.png, .jpg, .bmp, .webp, ...) or "
        ".npy/.npz arrays into it"
    )


def subset(samples: Samples, indices: Sequence[int] | npt.NDArray[np.int64]) -> Samples:
    """A view of some of the samples.

    Args:
        samples: Where they are from; stays in use.
        indices: Which, in the order wanted.

    Returns:
        Samples that fetch from the given ones on demand.
    """
    return _Subset(samples, np.asarray(indices, np.int64))


def take(samples: Samples, count: int) -> Samples:
    """An evenly class-balanced subset, the same one every time.

    Args:
        samples: Where they are from.
        count: How many; all of them, if there are no more.

    Returns:
        A subset in the original order.

    Raises:
        ConfigError: ``count`` is not positive.
    """
    if count < 1:
        raise ConfigError(f"the number of samples must be positive, not {count}")
    if count >= len(samples):
        return samples
    return subset(samples, balanced_indices(samples.labels, len(samples), count))


@dataclass(frozen=True, eq=False)
class _Subset:
    source: Samples
    indices: npt.NDArray[np.int64]

    @property
    def labels(self) -> Array | None:
        labels = self.source.labels
        return None if labels is None else labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def groups(self) -> tuple[int, ...]:
        ends = np.cumsum(self.source.groups)
        of_each = np.searchsorted(ends, self.indices, side="right")
        changes = np.flatnonzero(np.diff(of_each)) + 1
        return tuple(int(size) for size in np.diff([0, *changes, len(self.indices)]))

    @property
    def axes(self) -> Mapping[str, int | None]:
        return self.source.axes

    def batch(self, start: int, stop: int) -> dict[str, Array]:
        wanted = self.indices[start:stop]
        breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
        runs = [run for run in np.split(wanted, breaks) if run.size]
        parts = [self.source.batch(int(run[0]), int(run[-1]) + 1) for run in runs]
        if not parts:
            return self.source.batch(0, 0)
        return {name: self._joined(name, [part[name] for part in parts]) for name in parts[0]}

    def _joined(self, name: str, parts: list[Array]) -> Array:
        axis = self.axes.get(name, 0)
        return parts[0] if axis is None else np.concatenate(parts, axis=axis)

    def describe(self) -> dict[str, Any]:
        return self.source.describe() | {"count": len(self)}
