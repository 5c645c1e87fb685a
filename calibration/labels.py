"""Labels: from class sub-folders, from ``labels.csv``, and from arrays."""

import csv
import logging
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from onnx_lapq.calibration.files import Listing
from onnx_lapq.calibration.stored import Array
from onnx_lapq.errors import CalibrationError

__all__ = [
    "FileLabels",
    "file_labels",
    "labels_from_array",
]

logger = logging.getLogger(__name__)

_LARGEST_CSV = 1 << 28
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


@dataclass(frozen=True, eq=False)
class FileLabels:
    """Labels of a list of files.

    Attributes:
        values: int64 [count], or None if there are no labels.
        class_names: Names of the class sub-folders in label order, or None.
        source: Where the labels are from: ``"sub-folders"``, ``"labels.csv"`` or None.
    """

    values: npt.NDArray[np.int64] | None
    class_names: tuple[str, ...] | None
    source: str | None


def file_labels(listing: Listing, files: Sequence[PurePosixPath]) -> FileLabels:
    """Find the labels of the files of a folder.

    ``labels.csv`` at the top of the folder wins. Without it the rule is that of torchvision's
    ImageFolder: a file's class is the top-level sub-folder it lies in, and the class index is the
    place of that name in sorted order ("10" sorts before "2"), counting empty sub-folders. There
    are no labels if a file lies outside every sub-folder, if there is only one sub-folder, or if
    the sub-folders are named like the splits of a data set (train, val, test).

    Args:
        listing: The folder.
        files: The sample files, relative to the folder.

    Returns:
        The labels, in the order of the files.

    Raises:
        CalibrationError: ``labels.csv`` cannot be read or does not fit the files.
    """
    names = _class_names(listing, files)
    if listing.labels_file is not None:
        return FileLabels(_read_csv(listing.labels_file, files, names or ()), names, "labels.csv")
    if names is None:
        return FileLabels(None, None, None)
    index = {name: position for position, name in enumerate(names)}
    values = np.array([index[file.parts[0]] for file in files], np.int64)
    _warn_about_numbers(listing.root, names)
    return FileLabels(values, names, "sub-folders")


def labels_from_array(array: Array, source: str) -> Array:
    """Bring a label array into one of the forms that the losses take.

    Args:
        array: bool, integer or float; [count], [count, 1], [count, k], or of more axes, such as classes of
            pixels, or boxes for a metric of the user's own.
        source: What messages call it.

    Returns:
        int64 [count] for class indices (integers, or floats that are whole and go above 1), and int64
        [count, k] for those of positions, else float32 [count] or [count, k] targets in [0, 1]; of more axes
        as it is.

    Raises:
        CalibrationError: It is of another type or shape, or a target is outside [0, 1].
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind in "biuf" and array.ndim > 2:
        return array
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        raise CalibrationError(
            f"{source}: labels are {array.dtype} of shape {array.shape}; save class indices "
            "(integers, one per sample or position) or 0/1 targets (one row per sample)"
        )
    whole = array.dtype.kind in "biu" or bool(np.isfinite(array).all() and (array == np.rint(array)).all())
    targets = bool(((array >= 0) & (array <= 1)).all())
    if array.ndim == 1 and array.dtype.kind in "biu":
        return array.astype(np.int64)
    if whole and (array.max(initial=0) > 1 or (array.ndim == 2 and not targets)):
        return array.astype(np.int64)
    if not targets:
        raise CalibrationError(
            f"{source}: labels of shape {list(array.shape)} are neither whole numbers nor targets between 0 "
            "and 1; save class numbers, or targets"
        )
    return array.astype(np.float32)


def _class_names(listing: Listing, files: Sequence[PurePosixPath]) -> tuple[str, ...] | None:
    """Names of the class sub-folders, or None if the folder is not sorted into classes."""
    names = listing.folders
    if len(names) < 2 or any(len(file.parts) < 2 for file in files):
        return None
    if all(name.lower() in _SPLITS for name in names):
        logger.warning(
            "%s: sub-folders %s look like splits of a data set, not classes; no labels are taken",
            listing.root,
            ", ".join(names),
        )
        return None
    empty = sorted(set(names) - {file.parts[0] for file in files})
    if empty:
        logger.warning("%s: class folder %s holds no samples", listing.root, ", ".join(empty))
    return names


def _warn_about_numbers(root: Path, names: Sequence[str]) -> None:
    """Say so if folders are named by numbers that are not their class index."""
    if not all(name.isascii() and name.isdigit() for name in names):
        return
    for index, name in enumerate(names):
        if int(name) != index:
            logger.warning(
                "%s: folder '%s' is class %d, its place in sorted order, as in torchvision; "
                "if its name is the label, write a labels.csv",
                root,
                name,
                index,
            )
            return


def _read_csv(path: Path, files: Sequence[PurePosixPath], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Labels of the files by ``labels.csv``; rows for files that are not there are passed over."""
    rows = _csv_rows(path)
    keys = _file_keys(files)
    classes = {_key(name): index for index, name in enumerate(names)}
    if rows and _is_header(rows[0][1], keys, classes):
        rows = rows[1:]
    found: dict[int, int] = {}
    for line, (file, label) in rows:
        position = keys.get(_key(file))
        if position is None:
            continue
        value = _parse_label(label, classes, path, line)
        if found.setdefault(position, value) != value:
            raise CalibrationError(f"{path}: line {line} gives '{file}' a second label; keep one of the two")
    missing = [file for position, file in enumerate(files) if position not in found]
    if missing:
        raise CalibrationError(
            f"{path}: no row for '{missing[0]}' ({len(missing)} of {len(files)} files have none); "
            "add rows of the form file,label with paths relative to the folder"
        )
    return np.array([found[position] for position in range(len(files))], np.int64)


def _csv_rows(path: Path) -> list[tuple[int, tuple[str, str]]]:
    """(line number, (file, label)) of each row; separated by comma, semicolon or tab."""
    try:
        if path.stat().st_size > _LARGEST_CSV:
            raise CalibrationError(f"{path}: larger than {_LARGEST_CSV:,} bytes; keep one row per file")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path}: cannot be read as UTF-8 text ({error}); save it again") from error
    first = text.split("\n", 1)[0]
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    rows: list[tuple[int, tuple[str, str]]] = []
    for line, row in _cells(path, text, delimiter):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) < 2 or not cells[0] or not cells[1]:
            raise CalibrationError(f"{path}: line {line} is not of the form file,label; correct it")
        rows.append((line, (cells[0], cells[1])))
    return rows


def _cells(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise CalibrationError(
            f"{path}: line {reader.line_num} cannot be read ({error}); correct it"
        ) from error


def _is_header(row: tuple[str, str], keys: dict[str, int], classes: dict[str, int]) -> bool:
    file, label = row
    return _key(file) not in keys and not _is_integer(label) and _key(label) not in classes


def _file_keys(files: Sequence[PurePosixPath]) -> dict[str, int]:
    """Position of each file by its relative path, and by its bare name where that is unique."""
    keys: dict[str, int] = {}
    ambiguous: set[str] = set()
    for position, file in enumerate(files):
        name = _key(file.name)
        if keys.setdefault(name, position) != position:
            ambiguous.add(name)
    for name in ambiguous:
        del keys[name]
    keys.update({_key(str(file)): position for position, file in enumerate(files)})
    return keys


def _key(text: str) -> str:
    """One spelling for a path: forward slashes, no leading ./, composed Unicode."""
    return unicodedata.normalize("NFC", text.replace("\\", "/")).removeprefix("./")


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) <= 18  # what int64 holds


def _parse_label(label: str, classes: dict[str, int], path: Path, line: int) -> int:
    named = classes.get(_key(label))
    if named is not None and not _is_integer(label):
        return named
    if not _is_integer(label):
        raise CalibrationError(
            f"{path}: label '{label}' in line {line} is neither a whole number nor the name of a class "
            "sub-folder; write the class index"
        )
    return int(label)
