"""Files that are written whole or not at all."""

import glob
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from onnx_lapq.errors import OutputError
from onnx_lapq.graph.external import bytes_on_disk
from onnx_lapq.graph.loading import ModelSource
from onnx_lapq.runtime.session import detach

__all__ = ["ModelRecord", "check_writable", "data_path", "describe_model", "write_model", "write_whole"]

_PROTOBUF_LIMIT = onnx.checker.MAXIMUM_PROTOBUF - (64 << 20)
"""Bytes of tensors that one file holds, with room for the graph."""

_STALE = 600
"""Seconds after which a half-written file is one that a killed run left."""


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


def check_writable(path: Path) -> None:
    """Refuse an output path before the work begins.

    Raises:
        OutputError: The folder is missing or not writable, the name is too long, or what lies there is not an
            ordinary file.
    """
    try:
        _temporary(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another output") from error
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give the name of a file to write")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is a device or pipe, not an ordinary file; choose another output path")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path.parent}: folder is not writable; choose another output path")


def write_whole(path: Path, content: bytes, check: Callable[[Path], None] | None = None) -> None:
    """Write beside, then rename; permissions follow the umask.

    Args:
        path: The file.
        content: What it shall hold.
        check: Looks at what was written; where it raises, nothing is renamed.

    Raises:
        OutputError: The file cannot be written, for example because the disk is full.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        temporary.replace(path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    _remove_stale(path)


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
    folder = _temporary(path)
    data, written = data_path(path), folder / path.name
    try:
        folder.mkdir()
        ir.save(model, written, external_data=data.name)
        if check is not None:
            check(written)
        (folder / data.name).replace(data)
        written.replace(path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _remove_stale(path)


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


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def _remove_stale(path: Path) -> None:
    """Remove what runs left that were killed while they wrote the same file."""
    for found in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}"):
        with suppress(OSError):
            if time.time() - found.stat().st_mtime > _STALE:
                shutil.rmtree(found) if found.is_dir() else found.unlink()


def _in_memory(*parts: bytes | memoryview) -> ModelRecord:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return ModelRecord(None, sum(memoryview(part).nbytes for part in parts), digest.hexdigest())


def _not_written(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror}); free some space or choose another path"
    )
