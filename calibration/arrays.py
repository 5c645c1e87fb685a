"""Samples from ``.npz`` and ``.npy`` files."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnx_lapq.calibration.balancing import balanced_indices
from onnx_lapq.calibration.files import Listing
from onnx_lapq.calibration.fitting import batch_to_spec, is_pixels, pixels_to_spec
from onnx_lapq.calibration.labels import file_labels, labels_from_array
from onnx_lapq.calibration.preprocessing import Preprocessing, image_input, to_model_input
from onnx_lapq.calibration.stored import Array, InputSpec, Progress, StoredInput, StoredSamples
from onnx_lapq.errors import CalibrationError

__all__ = ["read_array_file", "read_array_folder"]

logger = logging.getLogger(__name__)

_LABELS = "labels"


@dataclass(frozen=True, eq=False)
class _Part:
    """What one file holds: an array [count, ...] per input, and labels."""

    path: Path
    arrays: Mapping[str, Array]
    labels: Array | None
    count: int


def read_array_file(
    path: Path, inputs: Sequence[InputSpec], preprocessing: Preprocessing, limit: int | None = None
) -> StoredSamples:
    """Reads one ``.npz`` (or, for models of one input, one ``.npy``) that holds all samples.

    Args:
        path: the file; an ``.npz`` holds an array per input name and may hold ``labels``.
        inputs: the model's inputs.
        preprocessing: what is done to uint8 image arrays that feed a float input.
        limit: at most this many samples, evenly over the classes.

    Returns:
        The samples, in the order of the file; an ``.npy`` stays on disk until a batch is asked for.

    Raises:
        CalibrationError: if the file cannot be read or does not fit the inputs.
        ConfigError: if mean or std do not fit the model's channels.
    """
    part = _read_part(path, inputs, preprocessing)
    arrays, labels = _limited(part.arrays, part.labels, limit)
    record = {"path": str(path), "found": part.count, "labels": None if labels is None else path.suffix[1:]}
    return _stored(arrays, labels, record, inputs, preprocessing)


def read_array_folder(
    listing: Listing,
    inputs: Sequence[InputSpec],
    preprocessing: Preprocessing,
    limit: int | None = None,
    progress: Progress | None = None,
) -> StoredSamples:
    """Reads a folder of ``.npy`` or ``.npz`` files, each with one sample or a batch, into memory.

    Labels come from ``labels`` arrays in the files, else by class sub-folders or ``labels.csv`` for
    files of one sample each.

    Args:
        listing: the folder; it holds at least one array file.
        inputs: the model's inputs.
        preprocessing: what is done to uint8 image arrays that feed a float input.
        limit: at most this many samples, evenly over the classes; no more files than that are opened.
        progress: called after each file.

    Returns:
        The samples, sorted by path.

    Raises:
        CalibrationError: if a file cannot be read, or they do not fit the inputs or each other.
        ConfigError: if mean or std do not fit the model's channels.
    """
    by_file = file_labels(listing, listing.arrays)
    total = len(listing.arrays)
    chosen = balanced_indices(by_file.values, total, total if limit is None else limit)
    parts: list[_Part] = []
    for done, index in enumerate(chosen, 1):
        parts.append(_read_part(listing.root / listing.arrays[index], inputs, preprocessing))
        if progress is not None:
            progress(done, len(chosen))
    joined = {spec.name: _joined(parts, spec.name) for spec in inputs}
    labels, names = _joined_labels(parts), None
    source = None if labels is None else "files"
    if labels is None and by_file.values is not None:
        labels = np.repeat(by_file.values[chosen], [part.count for part in parts])
        source, names = by_file.source, by_file.class_names
    record = {
        "path": str(listing.root),
        "found": total,
        "labels": source,
        "class_names": None if names is None else list(names),
    }
    arrays, labels = _limited(joined, labels, limit)
    return _stored(arrays, labels, record, inputs, preprocessing)


def _limited(
    arrays: Mapping[str, Array], labels: Array | None, limit: int | None
) -> tuple[Mapping[str, Array], Array | None]:
    """At most ``limit`` samples, evenly over the classes."""
    total = len(next(iter(arrays.values())))
    if limit is None or limit >= total:
        return arrays, labels
    chosen = balanced_indices(labels, total, limit)
    return {name: array[chosen] for name, array in arrays.items()}, None if labels is None else labels[chosen]


def _read_part(path: Path, inputs: Sequence[InputSpec], preprocessing: Preprocessing) -> _Part:
    """Loads one file and brings its arrays into the form the inputs want."""
    members = _load(path)
    input_names = {spec.name for spec in inputs}
    labels = None
    if _LABELS not in input_names and _LABELS in members:
        labels = labels_from_array(np.atleast_1d(members.pop(_LABELS)), f"{path}, array '{_LABELS}'")
    members = _by_input(path, members, [spec.name for spec in inputs])
    arrays = {}
    for spec in inputs:
        source, array = f"{path}, array '{spec.name}'", members[spec.name]
        target = image_input(spec, preprocessing)
        if target is not None and is_pixels(array, target):
            arrays[spec.name] = pixels_to_spec(array, spec, target, preprocessing.color, source)
        else:
            arrays[spec.name] = batch_to_spec(array, spec, source)
    lengths = {name: len(array) for name, array in arrays.items()}
    if labels is not None:
        lengths[_LABELS] = len(labels)
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"'{name}' {length}" for name, length in lengths.items())
        raise CalibrationError(
            f"{path}: the arrays differ in their number of samples ({shown}); make them equal."
        )
    count = next(iter(lengths.values()))
    if count == 0:
        raise CalibrationError(f"{path}: the arrays hold no samples; save at least one.")
    return _Part(path, arrays, labels, count)


def _load(path: Path) -> dict[str, Array]:
    """All arrays of a file; the one of an ``.npy`` is called "" and stays on disk."""
    try:
        if path.suffix.lower() == ".npy":
            return {"": np.asarray(np.lib.format.open_memmap(path, mode="r"))}  # takes no objects
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("not a zip archive")
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged file leads zipfile, zlib and numpy to raise nearly anything
        if "pickle" in str(error) or "Python objects" in str(error):
            raise CalibrationError(
                f"{path}: holds pickled Python objects (or is no array file at all), which are never loaded;"
                " save plain numeric arrays with numpy."
            ) from error
        reason = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(".")
        raise CalibrationError(f"{path}: cannot be read ({reason}); save the file again.") from error


def _by_input(path: Path, members: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """The array of each input; a single array of any name will do for a single input."""
    if len(names) == 1 and names[0] not in members and len(members) == 1:
        return {names[0]: next(iter(members.values()))}
    missing = [name for name in names if name not in members]
    if missing:
        held = ", ".join(f"'{name}'" for name in members if name) or "one unnamed array"
        raise CalibrationError(
            f"{path}: no array for input '{missing[0]}' (the file holds {held}); save an .npz with one array"
            f" per input: {', '.join(names)}."
        )
    extra = sorted(set(members) - set(names))
    if extra:
        logger.info("%s: ignored arrays that are no input of the model: %s", path, ", ".join(extra))
    return {name: members[name] for name in names}


def _joined(parts: Sequence[_Part], name: str) -> Array:
    arrays = [part.arrays[name] for part in parts]
    for part, array in zip(parts, arrays, strict=True):
        if array.shape[1:] != arrays[0].shape[1:] or array.dtype != arrays[0].dtype:
            raise CalibrationError(
                f"{part.path}: a sample of input '{name}' is {array.dtype} {list(array.shape[1:])}, but"
                f" {arrays[0].dtype} {list(arrays[0].shape[1:])} in {parts[0].path.name};"
                " give all samples one shape and type."
            )
    return np.concatenate(arrays)


def _joined_labels(parts: Sequence[_Part]) -> Array | None:
    labels = [part.labels for part in parts if part.labels is not None]
    if not labels:
        return None
    without = [part.path for part in parts if part.labels is None]
    if without:
        raise CalibrationError(f"{without[0]}: no 'labels' array, which other files have; add it.")
    if len({(array.dtype, array.shape[1:]) for array in labels}) > 1:
        raise CalibrationError(
            f"{parts[0].path.parent}: the 'labels' arrays differ in type or width; save them alike."
        )
    return np.concatenate(labels)


def _stored(
    arrays: Mapping[str, Array],
    labels: Array | None,
    record: Mapping[str, Any],
    inputs: Sequence[InputSpec],
    preprocessing: Preprocessing,
) -> StoredSamples:
    """Samples of arrays that fit; pixels get the conversion to the model's form."""
    stored: dict[str, StoredInput] = {}
    described: dict[str, Any] = {}
    converted = False
    for spec in inputs:
        target, array = image_input(spec, preprocessing), arrays[spec.name]
        convert = None
        if target is not None and is_pixels(array, target):
            convert = partial(to_model_input, preprocessing=preprocessing, target=target)
            converted = True
        stored[spec.name] = StoredInput(array, convert)
        described[spec.name] = {
            "image": target is not None,
            "source_dtype": str(array.dtype),
            "dtype": str(spec.dtype),
            "shape": list(array.shape),
        }
    full = {
        "kind": "arrays",
        "count": len(next(iter(arrays.values()))),
        "class_names": None,
        "preprocessing": asdict(preprocessing) | {"resize": None, "crop": None} if converted else None,
        "inputs": described,
    }
    return StoredSamples(stored, labels, full | dict(record))
