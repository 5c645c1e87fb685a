"""Models that nobody here made, with inputs: onnx's backend tests, and folders of .onnx files."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

__all__ = ["CALIBRATION", "TEST", "Case", "Feeds", "backend_cases", "folder_cases", "read_samples"]

CALIBRATION, TEST = 64, 32
"""The most samples a model is calibrated and judged on; a model without samples of its own gets fewer."""

_FEW = 8
"""Of them for calibration, four times as many to judge on."""
_SPREAD = 0.1
"""Of the samples made up around one set of inputs, as a share of each value."""

_LARGEST = 150_000_000
"""Bytes of a classifier of which the weights are made up."""

_KINDS = ("simple", "pytorch-converted", "pytorch-operator", "node")

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A model and one set of its inputs.

    Attributes:
        name: What it is called in tables.
        model: The file, or its bytes.
        feeds: Inputs by name, or a path of an ``.npz`` with samples; None where they are made up.
    """

    name: str
    model: bytes | Path
    feeds: Feeds | Path | None


def backend_cases() -> Iterator[Case]:
    """Every model of onnx's backend tests, and once more with constants where it has no weights."""
    warnings.simplefilter("ignore")
    for kind in _KINDS:
        for test in load_model_tests(kind=kind):
            if test.model is None:
                yield from _tested(f"{kind}/{test.name}", Path(test.model_dir) / "model.onnx")
                continue
            names = [value.name for value in test.model.graph.input]
            arrays = test.data_sets[0][0] if test.data_sets else []
            yield from _twice(f"{kind}/{test.name}", test.model, _by_name(names, arrays))
    for path in sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx")):
        yield Case(f"light/{path.stem}", path, None)
        filled = _with_weights(onnx.load(path))
        if len(filled) < _LARGEST:
            yield Case(f"light/{path.stem} (weights)", filled, None)


def folder_cases(folder: Path) -> Iterator[Case]:
    """Every .onnx file of a folder, with an ``.npz`` of samples or a ``test_data_set_0`` where it has one."""
    for path in sorted(folder.rglob("*.onnx")):
        name = str(path.relative_to(folder).with_suffix(""))
        if (path.parent / "test_data_set_0").is_dir():
            yield from _tested(str(path.relative_to(folder).parent), path)
        else:
            samples = path.with_suffix(".npz").absolute()
            yield Case(name, path, samples if samples.exists() else None)


def read_samples(case: Case, session: ort.InferenceSession) -> tuple[list[Feeds], list[Feeds]]:
    """Batches of samples that fit the model: those for calibration, and those to judge on.

    Raises:
        Exception: Of any kind, where inputs of such a type or shape cannot be made up.
    """
    if isinstance(case.feeds, Path):
        with np.load(case.feeds) as archive:
            rows = {value.name: archive[value.name] for value in session.get_inputs()}
        count = min(CALIBRATION + TEST, *(len(row) for row in rows.values()))
        batches = [{name: row[at : at + 1] for name, row in rows.items()} for at in range(count)]
        kept = min(CALIBRATION, (count + 1) // 2)
        return batches[:kept], batches[kept:] or batches
    random = np.random.default_rng(0)
    feeds = {
        value.name: base
        if (base := (case.feeds or {}).get(value.name)) is not None
        else _made_up(value, random)
        for value in session.get_inputs()
    }
    made = [{name: _near(base, random) for name, base in feeds.items()} for _ in range(5 * _FEW)]
    return made[:_FEW], made[_FEW:]


def _tested(name: str, path: Path) -> Iterator[Case]:
    """A model with inputs in files beside it; a model of onnx's tests that cannot be read is left out."""
    model = onnx.load(path)
    files = sorted((path.parent / "test_data_set_0").glob("input_*.pb"), key=lambda file: int(file.stem[6:]))
    try:
        arrays = [numpy_helper.to_array(onnx.load_tensor(file)) for file in files]
    except Exception:  # a sequence or an optional
        arrays = []
    yield from _twice(name, model, _by_name([value.name for value in model.graph.input], arrays))


def _by_name(names: list[str], arrays: list[object]) -> Feeds | None:
    if not arrays or not all(isinstance(array, np.ndarray | np.generic) for array in arrays):
        return None
    return {name: np.asarray(array) for name, array in zip(names, arrays, strict=False)}


def _twice(name: str, model: onnx.ModelProto, feeds: Feeds | None) -> Iterator[Case]:
    yield Case(name, model.SerializeToString(), feeds)
    later = [value.name for value in model.graph.input if value.name in (feeds or {})][1:]
    if not feeds or not later:
        return
    model.graph.initializer.extend(numpy_helper.from_array(feeds[one], one) for one in later)
    model.ir_version = max(model.ir_version, 4)
    kept = [value for value in model.graph.input if value.name not in later]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    yield Case(f"{name} (frozen)", model.SerializeToString(), {kept[0].name: feeds[kept[0].name]})


def _with_weights(model: onnx.ModelProto) -> bytes:
    """A classifier that gives its logits, with random weights where the file fills them with one number."""
    random = np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "ConstantOfShape"]:
        shape = shapes[node.input[0]]
        values = np.ones(shape, np.float32)
        if len(shape) > 1:
            values = random.standard_normal(shape, np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        model.graph.node.remove(node)
    if model.graph.node[-1].op_type == "Softmax":
        model.graph.output[0].name = model.graph.node.pop().input[0]
        model.graph.output[0].type.tensor_type.ClearField("shape")
    kept = [value for value in model.graph.input if value.name not in shapes]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)
    return model.SerializeToString()


def _made_up(value: ort.NodeArg, random: np.random.Generator) -> np.ndarray:
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in value.shape]
    kind = value.type.removeprefix("tensor(").removesuffix(")").upper().replace("FLOAT32", "FLOAT")
    dtype = helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(kind))
    if np.issubdtype(dtype, np.floating):
        return random.standard_normal(shape).astype(dtype)
    return np.zeros(shape, dtype)


def _near(base: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if not np.issubdtype(base.dtype, np.floating):
        return base
    with np.errstate(all="ignore"):
        return np.asarray(base * (1 + _SPREAD * random.standard_normal(base.shape))).astype(base.dtype)
