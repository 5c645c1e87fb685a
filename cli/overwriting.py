"""What a run must not write over: what it reads."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from onnx_lapq.calibration.files import is_read, list_folder
from onnx_lapq.errors import OutputError
from onnx_lapq.graph.loading import model_files

__all__ = ["refuse_overwriting"]


def refuse_overwriting(outputs: Iterable[Path], models: Iterable[Path], others: Iterable[Path]) -> None:
    """Refuse to write where something lies that is read, be it by a link.

    Args:
        outputs: Files that will be written.
        models: Models that are read, with their external data.
        others: Samples, in a file or a folder, and option files.

    Raises:
        OutputError: Names the output.
        InputError: An output exists, and a model or a folder cannot be read.
    """
    existing = {_identity(output): output for output in outputs if output.exists()}
    if not existing:
        return
    folders_too = any(is_read(output.name) for output in existing.values())
    for path in _files(models, others, folders_too):
        if path.exists() and _identity(path) in existing:
            raise OutputError(f"{existing[_identity(path)]}: is read by this run; give another --output")


def _identity(path: Path) -> tuple[int, int]:
    """What paths of one file have in common."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _files(models: Iterable[Path], others: Iterable[Path], folders_too: bool) -> Iterator[Path]:
    for model in models:
        yield from model_files(model)
    for path in others:
        if not path.is_dir():
            yield path
        elif folders_too:
            listing = list_folder(path)
            yield from (path / name for name in (*listing.images, *listing.arrays))
            yield from () if listing.labels_file is None else (listing.labels_file,)
