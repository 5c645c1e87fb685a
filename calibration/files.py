"""Finding the files of a calibration folder."""

import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from onnx_lapq.errors import CalibrationError

__all__ = ["ARRAY_SUFFIXES", "IMAGE_SUFFIXES", "Listing", "is_read", "list_folder", "summarize_suffixes"]

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp"}
    | {".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)
ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
_LABELS_FILE = "labels.csv"
_DEEPEST = 100
_JUNK_FOLDERS = frozenset({"__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found"})


@dataclass(frozen=True)
class Listing:
    """The visible content of a folder; paths are relative to it and sorted by code point.

    Attributes:
        root: The folder.
        images: Image files, by suffix.
        arrays: ``.npy`` and ``.npz`` files.
        others: Files of no use here.
        folders: Names of the top-level sub-folders, empty ones too.
        labels_file: The ``labels.csv`` at the top, if there is one.
    """

    root: Path
    images: tuple[PurePosixPath, ...]
    arrays: tuple[PurePosixPath, ...]
    others: tuple[PurePosixPath, ...]
    folders: tuple[str, ...]
    labels_file: Path | None


def is_read(name: str) -> bool:
    """Whether a file of this name in a folder of samples is read."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in IMAGE_SUFFIXES | ARRAY_SUFFIXES or name.lower() == _LABELS_FILE


def list_folder(root: Path) -> Listing:
    """List a folder and all below it; links are followed, loops of links are cut.

    Hidden entries (``.DS_Store``, ``._photo.jpg``, ``.git``) and the folders that operating systems
    leave behind (``__MACOSX``, ...) are passed over.

    Args:
        root: An existing folder.

    Returns:
        The sorted listing.

    Raises:
        CalibrationError: The folder or one below cannot be read.
    """
    files: list[PurePosixPath] = []
    folders = _walk(root, PurePosixPath(), set(), files)
    files.sort(key=lambda path: path.parts)
    labels = [path for path in files if str(path).lower() == _LABELS_FILE]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    arrays = [path for path in files if path.suffix.lower() in ARRAY_SUFFIXES]
    used = {*labels, *images, *arrays}
    others = [path for path in files if path not in used]
    if others:
        logger.info("%s: skipped %d other files (%s)", root, len(others), summarize_suffixes(others))
    return Listing(
        root=root,
        images=tuple(images),
        arrays=tuple(arrays),
        others=tuple(others),
        folders=tuple(sorted(folders)),
        labels_file=root / labels[0] if labels else None,
    )


def summarize_suffixes(paths: Iterable[PurePosixPath]) -> str:
    """What kinds of files there are, as in ``30 .heic, 1 .txt``; the most frequent three."""
    counts = Counter(path.suffix.lower() or "without suffix" for path in paths)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {suffix}" for suffix, count in ranked[:3])


def _walk(
    folder: Path, relative: PurePosixPath, seen: set[tuple[int, int]], files: list[PurePosixPath]
) -> list[str]:
    """Collect the files below a folder; return the names of its own sub-folders.

    Every link is followed to a folder not seen yet, so that a web of links ends.
    """
    try:
        stat = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CalibrationError(
            f"{folder}: the folder cannot be read ({reason}); check its permissions"
        ) from error
    if len(relative.parts) > _DEEPEST:
        raise CalibrationError(
            f"{folder}: more than {_DEEPEST} folders deep; give a folder nearer to the images"
        )
    identity = (stat.st_dev, stat.st_ino)
    if folder.is_symlink() and identity in seen:
        logger.warning("%s: skipped a link to a folder that is read already", folder)
        return []
    seen.add(identity)
    subfolders: list[str] = []
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name.lower() in _JUNK_FOLDERS:
            logger.debug("%s: skipped a hidden entry", entry.path)
        elif path.is_dir():
            subfolders.append(entry.name)
            _walk(path, relative / entry.name, seen, files)
        elif path.is_file():
            files.append(relative / entry.name)
        else:
            logger.warning("%s: skipped a broken link or special file", entry.path)
    return subfolders
