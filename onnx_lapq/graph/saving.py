"""Write model files, and describe them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from onnx_lapq.common.whole_files import write_whole, writing_beside
from onnx_lapq.graph.external import bytes_on_disk
from onnx_lapq.graph.loading import ModelSource
from onnx_lapq.runtime.session import detach

__all__ = ["ModelRecord", "data_path", "describe_model", "write_model"]

_PROTOBUF_LIMIT = onnx.checker.MAXIMUM_PROTOBUF - (64 << 20)
"""Bytes of tensors that one file holds, with room for the graph."""


@dataclass(frozen=True)
class ModelRecord:
    """A model, as the report names it.

    Attributes:
        path: Its file; None for a model in memory.
        bytes: Its size, with external data.
        sha256: Of the file, without external data.
    """

    path: str | None
    bytes: int
    sha256: str


def write_model(path: Path, model: ir.Model, check: Callable[[Path], None] | None = None) -> None:
    """Write a model whole; above 2 GB its tensors go into ``path.data`` beside it.

    Args:
        path: The file.
        model: What it shall hold.
        check: Looks at what was written; where it raises, nothing is renamed.

    Raises:
        OutputError: A file cannot be written.
    """
    tensors = [value.const_value for value in model.graph.initializers.values()]
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) <= _PROTOBUF_LIMIT:
        proto = ir.to_proto(ir.external_data.load_to_model(model))
        write_whole(path, proto.SerializeToString(deterministic=True), check)
        return
    data = data_path(path)
    with writing_beside(path) as folder:
        written = folder / path.name
        folder.mkdir()
        ir.save(model, written, external_data=data.name)
        if check is not None:
            check(written)
        (folder / data.name).replace(data)
        written.replace(path)


def data_path(output: Path) -> Path:
    """Where tensors of a model above 2 GB go: beside it."""
    return output.with_name(output.name + ".data")


def describe_model(model: ModelSource) -> ModelRecord:
    """Path, size and hash of a model; those in memory count as they would be serialized."""
    if isinstance(model, ir.Model):
        proto, tensors = detach(model)
        return _in_memory(
            proto.SerializeToString(deterministic=True),
            *(memoryview(array.reshape(-1).view(np.uint8).data) for array in tensors.values()),
        )
    if isinstance(model, onnx.ModelProto):
        return _in_memory(model.SerializeToString(deterministic=True))
    if isinstance(model, bytes):
        return _in_memory(model)
    path = Path(model)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return ModelRecord(str(path), bytes_on_disk(path), digest.hexdigest())


def _in_memory(*parts: bytes | memoryview) -> ModelRecord:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return ModelRecord(None, sum(memoryview(part).nbytes for part in parts), digest.hexdigest())
