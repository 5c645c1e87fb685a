"""Read a float model from a file or from memory, and check it.

What onnxruntime loads is taken: nodes out of order are sorted, and a size of -1 is an unknown one, though
onnx's checker refuses both.
"""

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from google.protobuf.message import DecodeError

from onnx_lapq.errors import ModelError, model_errors
from onnx_lapq.graph.external import check_external_data, external_files, refuse_external_data
from onnx_lapq.graph.size_limits import check_nodes, inlined_nodes
from onnx_lapq.runtime.session import is_loadable

__all__ = ["ModelSource", "load", "model_files"]

ModelSource = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model
"""A file, the bytes of one, or a model in memory."""

_MEMORY = "the model"


def load(model: ModelSource) -> ir.Model:
    """Read a model; external data of a file is mapped, and read where it is used.

    Args:
        model: An ``.onnx`` file, whose external tensors must lie in the same folder; its bytes; or a model in
            memory, which is left as it is.

    Raises:
        ModelError: The file is missing, unreadable, no valid ONNX model or too large, or its external data is
            missing or elsewhere.
    """
    if isinstance(model, ir.Model):
        loaded = model.clone()
    elif isinstance(model, onnx.ModelProto | bytes):
        loaded = _from_memory(model)
    elif isinstance(model, str | os.PathLike):
        loaded = _from_file(Path(model))
    else:
        raise ModelError(
            f"the model is of type {type(model).__name__}; give a path, bytes, an onnx.ModelProto "
            "or an onnx_ir.Model"
        )
    check_nodes(inlined_nodes(loaded))
    common_passes.TopologicalSortPass()(loaded)
    _forget_unknown_sizes(loaded)
    loaded.metadata_props.pop("onnx_lapq", None)
    return loaded


def model_files(path: Path) -> list[Path]:
    """The file of a model, and those of its external data.

    Raises:
        ModelError: As `load` does.
    """
    return [path, *external_files(_proto(path), path)]


def _from_file(path: Path) -> ir.Model:
    proto = _proto(path)
    with model_errors(f"{path}: not a valid ONNX model"):
        _check(str(path), proto)
        return ir.load(path)


def _proto(path: Path) -> onnx.ModelProto:
    proto = _parsed(lambda: _read(path), str(path))
    check_external_data(proto, path)
    return proto


def _read(path: Path) -> onnx.ModelProto:
    size = path.stat().st_size
    if not path.is_file():
        raise ModelError(f"{path}: not an ordinary file; give the name of an .onnx file")
    if size > onnx.checker.MAXIMUM_PROTOBUF:
        raise ModelError(f"{path}: larger than the 2 GB of an ONNX file; save it with external data")
    return onnx.load(path, load_external_data=False)


def _from_memory(model: onnx.ModelProto | bytes) -> ir.Model:
    proto = _parsed(lambda: onnx.load_from_string(model) if isinstance(model, bytes) else model, _MEMORY)
    refuse_external_data(proto)
    with model_errors(f"{_MEMORY}: not a valid ONNX model"):
        _check(proto, proto)
        return ir.from_proto(proto)


def _check(model: str | onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """Raise what onnx's checker raises, unless onnxruntime loads the model all the same.

    Functions that call themselves are for the checker alone to find.
    """
    try:
        onnx.checker.check_model(model)
    except Exception:
        if proto.functions or not is_loadable(model):
            raise


def _forget_unknown_sizes(model: ir.Model) -> None:
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    for value in (*model.graph.inputs, *(output for node in nodes for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([None if _says_nothing(size) else size for size in value.shape])


def _says_nothing(size: int | ir.SymbolicDim) -> bool:
    """Whether a size is -1, or ``?``, which Paddle calls all its unknown sizes."""
    return size < 0 if isinstance(size, int) else size.value == "?"


def _parsed(read: Callable[[], onnx.ModelProto], name: str) -> onnx.ModelProto:
    try:
        proto = read()
    except FileNotFoundError as error:
        raise ModelError(f"{name}: no such model file; check the path") from error
    except OSError as error:
        raise ModelError(
            f"{name}: cannot be read ({error.strerror}); check the path and permissions"
        ) from error
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{name}: not an ONNX file, or cut short; export the model again") from error
    if not proto.graph.node:
        raise ModelError(f"{name}: holds no ONNX graph; export the model again")
    check_nodes(len(proto.graph.node))
    return proto
