"""Tensors that lie in files beside a model."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

from onnx_lapq.errors import ModelError

__all__ = ["bytes_on_disk", "check_external_data", "refuse_external_data"]


def check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse a model whose external files are missing or not beside it.

    Args:
        proto: The model, its external data not loaded.
        path: Its file.

    Raises:
        ModelError: Names the file and the tensor.
    """
    folder = path.parent.resolve()
    for tensor, location in _external(proto):
        file = (folder / location).resolve()
        if not file.is_relative_to(folder):
            raise ModelError(
                f"{path}: external data file {location!r} of tensor {tensor!r} lies outside the model's "
                "folder; only files beside the model are read"
            )
        if not file.is_file():
            raise ModelError(
                f"{path}: external data file {location!r} of tensor {tensor!r} is missing; "
                "put it beside the model"
            )


def refuse_external_data(proto: onnx.ModelProto) -> None:
    """Refuse a model in memory whose tensors are still in files.

    Raises:
        ModelError: Names the tensor.
    """
    for tensor, location in _external(proto):
        raise ModelError(
            f"tensor {tensor!r} lies in the file {location!r}, but a model in memory does not say in which "
            "folder; give the path of the model, or load it with its external data"
        )


def bytes_on_disk(path: Path) -> int:
    """Size of a model file and of its external data."""
    locations = {location for _, location in _external(onnx.load(path, load_external_data=False))}
    return path.stat().st_size + sum((path.parent / location).stat().st_size for location in locations)


def _external(proto: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """Name of every external tensor and of its file."""
    for tensor in _get_all_tensors(proto):
        if uses_external_data(tensor):
            yield tensor.name, ExternalDataInfo(tensor).location
