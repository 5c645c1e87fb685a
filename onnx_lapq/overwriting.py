"""What a run must not write over: what it reads."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from onnx_lapq.calibration.files import list_folder
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
    existing = [output for output in outputs if output.exists()]
    if not existing:
        return
    for path in _files(models, others):
        for output in existing:
            if path.exists() and output.samefile(path):
                raise OutputError(f"{output}: is read by this run; give another --output")


def _files(models: Iterable[Path], others: Iterable[Path]) -> Iterator[Path]:
    for model in models:
        yield from model_files(model)
    for path in others:
        if path.is_dir():
            listing = list_folder(path)
            yield from (path / name for name in (*listing.images, *listing.arrays))
            yield from () if listing.labels_file is None else (listing.labels_file,)
        else:
            yield path
