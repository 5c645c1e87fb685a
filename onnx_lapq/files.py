"""Files that are written whole or not at all."""

import hashlib
import os
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from onnx_lapq.errors import OutputError

__all__ = ["check_writable", "sha256", "write_model", "write_whole"]

_PROTOBUF_LIMIT = onnx.checker.MAXIMUM_PROTOBUF - (64 << 20)
"""Bytes of tensors that one file holds, with room for the graph."""


def check_writable(path: Path) -> None:
    """Refuse an output path before the work begins.

    Raises:
        OutputError: The folder is missing or not writable, or the path is a folder.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give the name of a file to write")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path.parent}: folder is not writable; choose another output path")


def write_whole(path: Path, content: bytes) -> None:
    """Write beside, then rename; permissions follow the umask.

    Raises:
        OutputError: The file cannot be written, for example because the disk is full.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_model(path: Path, model: ir.Model) -> None:
    """Write a model whole; above 2 GB its tensors go into ``path.data`` beside it.

    Raises:
        OutputError: A file cannot be written.
    """
    tensors = [value.const_value for value in model.graph.initializers.values()]
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) <= _PROTOBUF_LIMIT:
        proto = ir.to_proto(ir.external_data.load_to_model(model))
        write_whole(path, proto.SerializeToString(deterministic=True))
        return
    data = path.with_name(f"{path.name}.data")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            written = Path(folder) / path.name
            ir.save(model, written, external_data=data.name)
            (Path(folder) / data.name).replace(data)
            written.replace(path)
    except OSError as error:
        raise _not_written(path, error) from error


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_written(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror}); free some space or choose another path"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
