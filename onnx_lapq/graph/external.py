"""Tensors that lie in files beside a model."""

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from onnx_lapq.errors import ModelError

__all__ = ["bytes_on_disk", "check_external_data", "external_files", "refuse_external_data"]


def check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse a model whose external tensors are not whole, in ordinary files beside it.

    Args:
        proto: The model, its external data not loaded.
        path: Its file.

    Raises:
        ModelError: Names the file and the tensor.
    """
    folder = path.parent.resolve()
    for tensor in _external(proto):
        subject = f"{path}: external data file {_location(tensor)!r} of tensor {tensor.name!r}"
        try:
            info = ExternalDataInfo(tensor)
            file = (folder / info.location).resolve()
            status = file.stat() if file.is_file() else None
            wanted = _bytes(tensor)
        except (OSError, ValueError) as error:
            raise ModelError(f"{subject} cannot be read ({error}); export the model again") from error
        if not file.is_relative_to(folder) and (folder / info.location).is_symlink():
            raise ModelError(
                f"{subject} is a link out of the model's folder, as in the cache of Hugging Face; copy the "
                "folder with `cp -rL FOLDER COPY`, and give the model in the copy"
            )
        if not file.is_relative_to(folder):
            raise ModelError(f"{subject} lies outside the model's folder; only files beside it are read")
        if status is None:
            raise ModelError(f"{subject} is missing; put it beside the model")
        if status.st_nlink > 1:
            raise ModelError(
                f"{subject} has multiple hard links, and may be someone else's; copy the folder with "
                "`cp -r FOLDER COPY`, and give the model in the copy"
            )
        if (info.offset or 0) + wanted > status.st_size or (
            info.length is not None and info.length != wanted
        ):
            raise ModelError(
                f"{subject} does not hold the {wanted:,} bytes of its shape {list(tensor.dims)} at "
                f"{info.offset or 0:,}; export the model again"
            )


def refuse_external_data(proto: onnx.ModelProto) -> None:
    """Refuse a model in memory whose tensors are still in files.

    Raises:
        ModelError: Names the tensor.
    """
    for tensor in _external(proto):
        raise ModelError(
            f"tensor {tensor.name!r} lies in the file {_location(tensor)!r}, but a model in memory does not "
            "say in which folder; give the path of the model, or load it with its external data"
        )


def bytes_on_disk(path: Path) -> int:
    """Size of a model file and of its external data."""
    files = external_files(onnx.load(path, load_external_data=False), path)
    return path.stat().st_size + sum(file.stat().st_size for file in files)


def external_files(proto: onnx.ModelProto, path: Path) -> set[Path]:
    """The files that hold external tensors of the model at ``path``."""
    return {path.parent / _location(tensor) for tensor in _external(proto)}


def _external(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    tensors = (tensor for body in (proto.graph, *proto.functions) for tensor in _tensors(body))
    return (tensor for tensor in tensors if uses_external_data(tensor))


def _tensors(body: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """Initializers and tensors in attributes, with those of sub-graphs."""
    if isinstance(body, onnx.GraphProto):
        yield from body.initializer
    for attribute in (attribute for node in body.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def _location(tensor: onnx.TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of the tensor's shape.

    Raises:
        ValueError: Its shape or type makes no sense.
    """
    if any(size < 0 for size in tensor.dims):
        raise ValueError(f"its shape is {list(tensor.dims)}")
    try:
        bits = math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth
        return int(-(-bits // 8))
    except TypeError as error:
        raise ValueError(str(error)) from error
