"""Samples from ``.npz`` and ``.npy`` files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnx_lapq.calibration.archive import Archive
from onnx_lapq.calibration.balancing import balanced_indices
from onnx_lapq.calibration.collecting import Part, collect
from onnx_lapq.calibration.files import Listing
from onnx_lapq.calibration.labels import file_labels
from onnx_lapq.calibration.parts import limited, read_part, store
from onnx_lapq.calibration.request import Request
from onnx_lapq.calibration.stored import Array, Samples
from onnx_lapq.errors import CalibrationError, LapqError

__all__ = ["read_array_file", "read_array_folder"]


def read_array_file(path: Path, request: Request) -> Samples:
    """Read one ``.npz`` (or, for models of one input, one ``.npy``) that holds all samples.

    Args:
        path: The file; an ``.npz`` holds an array per input name and may hold ``labels``.
        request: What samples are wanted.

    Returns:
        The samples, in the order of the file; an ``.npy`` stays on disk until a batch is asked for.

    Raises:
        CalibrationError: The file cannot be read or does not fit the inputs.
        ConfigError: Mean or std do not fit the model's channels.
    """
    with _opened(path) as members:
        part = read_part(str(path), members, request)
    samples = limited(collect([part], request.inputs), request.limit)
    source = None if samples.labels is None else path.suffix[1:]
    return store(samples, {"path": str(path), "found": part.count, "labels": source}, request)


def read_array_folder(listing: Listing, request: Request) -> Samples:
    """Read a folder of ``.npy`` or ``.npz`` files, each with one sample or a batch, into memory.

    Labels come from ``labels`` arrays in the files, else by class sub-folders or ``labels.csv`` for
    files of one sample each.

    Args:
        listing: The folder; it holds at least one array file.
        request: What samples are wanted; no more files than its limit are opened.

    Returns:
        The samples, sorted by path; where they differ in shape, those of one shape together.

    Raises:
        CalibrationError: A file cannot be read, or they do not fit the inputs or each other.
        ConfigError: Mean or std do not fit the model's channels.
    """
    by_file = file_labels(listing, listing.arrays)
    total = len(listing.arrays)
    chosen = balanced_indices(by_file.values, total, total if request.limit is None else request.limit)
    parts: list[Part] = []
    for done, index in enumerate(chosen, 1):
        path = listing.root / listing.arrays[index]
        with _opened(path) as members:
            parts.append(read_part(str(path), members, request))
        request.tell(done, len(chosen))
    names = None
    source = "files" if any(part.labels is not None for part in parts) else None
    if source is None and by_file.values is not None:
        parts = [_labelled(part, label) for part, label in zip(parts, by_file.values[chosen], strict=True)]
        source, names = by_file.source, by_file.class_names
    record = {
        "path": str(listing.root),
        "found": total,
        "labels": source,
        "class_names": None if names is None else list(names),
    }
    return store(limited(collect(parts, request.inputs), request.limit), record, request)


def _labelled(part: Part, label: np.int64) -> Part:
    """All samples of a file with the file's label."""
    return replace(part, labels=np.full(part.count, label))


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Array]]:
    """The arrays of a file, read as they are asked for; the one of an ``.npy`` is called ""."""
    try:
        if not path.is_file():
            raise ValueError("not an ordinary file")
        if path.suffix.lower() == ".npy":
            yield {"": np.asarray(np.lib.format.open_memmap(path, mode="r"))}  # takes no objects
        else:
            with path.open("rb") as file:
                yield Archive(file)
    except LapqError:
        raise
    except Exception as error:  # a damaged file leads zipfile, zlib and numpy to raise nearly anything
        if "pickle" in str(error) or "Python objects" in str(error):
            raise CalibrationError(
                f"{path}: holds pickled Python objects (or is no array file at all), which are never loaded; "
                "save plain numeric arrays with numpy"
            ) from error
        reason = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(".")
        raise CalibrationError(f"{path}: cannot be read ({reason}); save the file again") from error
