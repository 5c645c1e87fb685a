"""Run the tool over many models: each must end in a valid model or a refusal of one sentence.

    python tools/robustness/sweep_models.py                    # every model of onnx's backend tests, twice
    python tools/robustness/sweep_models.py exported/          # and every .onnx file of a folder

Backend models are taken as they are, and once more with all inputs but the first frozen to constants, which
gives their layers weights. Exits with 1 if any model ends otherwise; the names of those are printed.
"""

import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.errors import InputError, RunError

_SAMPLES = 4
_LONGEST = 400
"""Characters of a refusal."""


@dataclass(frozen=True)
class Case:
    """A model and one set of its inputs; None where they are made up."""

    name: str
    model: bytes | Path
    feeds: dict[str, np.ndarray] | None


@dataclass(frozen=True)
class Ending:
    """How it went: ``valid``, ``refused``, ``failed`` or ``not run by onnxruntime``."""

    name: str
    kind: str
    text: str


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--match", default="", help="Only cases whose name contains this.")
@click.option("--bits", default=8, show_default=True)
@click.option("--list", "listing", is_flag=True, help="Print how every case ended.")
def main(folders: tuple[Path, ...], match: str, bits: int, listing: bool) -> None:
    """Sweep onnx's backend models, or the .onnx files of FOLDERS."""
    cases = _exported(folders) if folders else _backend()
    chosen = [case for case in cases if match in case.name]
    with ProcessPoolExecutor() as pool:
        endings = []
        for ending in pool.map(partial(_sweep, bits=bits), chosen, chunksize=1 if folders else 10):
            endings.append(ending)
            if listing or ending.kind == "failed":
                click.echo(f"{ending.kind:8} {ending.name}: {ending.text}")
    refusals = Counter(ending.text.split(": ")[-1][:70] for ending in endings if ending.kind == "refused")
    for text, count in refusals.most_common(12):
        click.echo(f"{count:6} refused: {text}")
    counts = Counter(ending.kind for ending in endings)
    click.echo(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) + f" of {len(endings)}")
    raise SystemExit(counts["failed"] > 0)


def _backend() -> Iterator[Case]:
    warnings.simplefilter("ignore")
    for kind in ("node", "simple", "pytorch-converted", "pytorch-operator"):
        for test in load_model_tests(kind=kind):
            case = _read_case(test)
            if case is not None:
                yield case
                yield _frozen(case)
    for path in sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx")):
        yield Case(path.stem, path, None)


def _read_case(test: object) -> Case | None:
    if test.model is not None:
        arrays = test.data_sets[0][0] if test.data_sets else []
        model = test.model
    else:
        model = onnx.load(Path(test.model_dir) / "model.onnx")
        files = sorted(Path(test.model_dir).glob("test_data_set_0/input_*.pb"))
        arrays = [numpy_helper.to_array(onnx.load_tensor(file)) for file in files]
    names = [value.name for value in model.graph.input]
    if not all(isinstance(array, np.ndarray) for array in arrays):
        return Case(test.name, model.SerializeToString(), None)
    return Case(test.name, model.SerializeToString(), dict(zip(names, arrays, strict=False)))


def _frozen(case: Case) -> Case:
    """The case with every input but the first as an initializer."""
    model = onnx.ModelProto.FromString(case.model)
    feeds = dict(case.feeds or {})
    names = [value.name for value in model.graph.input if value.name in feeds][1:]
    for name in names:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(feeds.pop(name)), name))
    model.ir_version = max(model.ir_version, 4)
    kept = [value for value in model.graph.input if value.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return Case(f"{case.name} (frozen)", model.SerializeToString(), feeds)


def _exported(folders: tuple[Path, ...]) -> Iterator[Case]:
    for folder in folders:
        for path in sorted(folder.rglob("*.onnx")):
            yield Case(str(path.relative_to(folder)), path, None)


def _sweep(case: Case, bits: int) -> Ending:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        model, output = Path(folder) / "model.onnx", Path(folder) / "out.onnx"
        if isinstance(case.model, Path):
            model = case.model
        else:
            model.write_bytes(case.model)
        try:
            np.savez(Path(folder) / "calib.npz", **_samples(model, case.feeds))
        except Exception as error:
            return Ending(case.name, "not run by onnxruntime", str(error)[:200])
        config = QuantizationConfig(
            weight_bits=bits, activation_bits=bits, optimizer="none", samples=_SAMPLES, workers=1
        )
        try:
            quantize(model, Path(folder) / "calib.npz", config).save(output)
            _require_valid(model, output)
        except (InputError, RunError) as error:
            one = "\n" not in str(error) and len(str(error)) <= _LONGEST
            kind = "refused" if one and isinstance(error, InputError) else "failed"
            return Ending(case.name, kind, str(error).replace(str(model), "MODEL"))
        except Exception as error:
            return Ending(case.name, "failed", f"{type(error).__name__}: {error}"[:_LONGEST])
    return Ending(case.name, "valid", "")


def _samples(model: Path, feeds: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """A few samples: the inputs given with some noise, or random ones of the shapes the model says."""
    random = np.random.default_rng(0)
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    result = {}
    for value in session.get_inputs():
        base = (feeds or {}).get(value.name)
        if base is None:
            shape = [size if isinstance(size, int) and size > 0 else 1 for size in value.shape]
            base = np.zeros(shape, helper.tensor_dtype_to_np_dtype(_element_type(value.type)))
            if np.issubdtype(base.dtype, np.floating):
                base = random.standard_normal(shape).astype(base.dtype)
        copies = [base] * _SAMPLES
        if np.issubdtype(base.dtype, np.floating):
            noise = random.standard_normal((_SAMPLES, *base.shape)) * 0.01
            copies = [(base + part).astype(base.dtype) for part in noise]
        result[value.name] = np.stack(copies) if base.ndim == 0 else np.concatenate(copies)
    session.run(
        None,
        {
            name: array[: len(array) // _SAMPLES] if array.ndim else array
            for name, array in {
                value.name: result[value.name] for value in session.get_inputs() if len(value.shape)
            }.items()
        }
        | {value.name: result[value.name][0] for value in session.get_inputs() if not len(value.shape)},
    )
    return result


def _element_type(kind: str) -> int:
    names = {"float": "FLOAT", "double": "DOUBLE", "float16": "FLOAT16", "bool": "BOOL", "string": "STRING"}
    inner = kind.removeprefix("tensor(").removesuffix(")")
    return TensorProto.DataType.Value(names.get(inner, inner.upper()))


def _require_valid(model: Path, output: Path) -> None:
    onnx.checker.check_model(str(output), full_check=True)
    sessions = [
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (model, output)
    ]
    signatures = [
        [(value.name, value.type) for value in (*session.get_inputs(), *session.get_outputs())]
        for session in sessions
    ]
    if signatures[0] != signatures[1]:
        raise AssertionError(f"signature {signatures[0]} became {signatures[1]}")


if __name__ == "__main__":
    main()
