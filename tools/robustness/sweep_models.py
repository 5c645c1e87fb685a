"""Quantize foreign models at W8A8 with this tool and with onnxruntime's quantize_static, side by side.

    python tools/robustness/sweep_models.py --rows rows.jsonl            # every model of onnx's backend tests
    python tools/robustness/sweep_models.py exported/ --rows rows.jsonl  # every .onnx file of a folder

Backend models are taken as they are, and once more with all inputs but the first as constants, which gives
their layers weights; large classifiers without weights in the file get random ones. A model of a folder
gets the samples of an ``.npz`` of its name, inputs from a ``test_data_set_0`` beside it, or made up ones.
Both tools are calibrated on the same samples and judged on others. Models that the file of rows holds already
are not run again. Exits with 1 where this tool failed.
"""

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import click
import onnx
import onnxruntime as ort
from foreign import Case, Feeds, backend_cases, folder_cases, read_samples
from isolated import call_isolated
from judging import lowest_snr, microseconds, open_model
from sweep_tables import Ending, Row, print_tables

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.errors import InputError

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from rival import quantize_statically

_SECONDS = 600
"""Of the processor, for a model with both tools."""

_LONGEST = 400
"""Characters of a refusal."""


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--match", default="", help="Only models whose name contains this.")
@click.option("--rows", type=click.Path(path_type=Path), help="File that gets a line for every model.")
def main(folders: tuple[Path, ...], match: str, rows: Path | None) -> None:
    """Sweep onnx's backend models, or the .onnx files of FOLDERS."""
    done = {row.name: row for row in _read(rows)}
    cases = [case for folder in folders for case in folder_cases(folder)] if folders else backend_cases()
    for case in cases:
        if match in case.name and case.name not in done:
            done[case.name] = _isolated(case)
            if rows is not None:
                with rows.open("a") as file:
                    print(json.dumps(asdict(done[case.name])), file=file)
    print_tables(list(done.values()))
    raise SystemExit(any(row.ours.kind == "failed" for row in done.values()))


def _read(rows: Path | None) -> Iterator[Row]:
    if rows is None or not rows.exists():
        return
    for line in rows.read_text().splitlines():
        fields = json.loads(line)
        yield Row(**{**fields, "ours": Ending(**fields["ours"]), "theirs": Ending(**fields["theirs"])})


def _isolated(case: Case) -> Row:
    try:
        return call_isolated(_SECONDS, _sweep, case)
    except ChildProcessError as error:
        return Row(case.name, None, Ending("failed", str(error)), Ending("failed", str(error)))


def _sweep(case: Case) -> Row:
    """Quantize a model with both tools, and compare."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        model = case.model.resolve() if isinstance(case.model, Path) else Path(folder) / "model.onnx"
        os.chdir(folder)  # onnxruntime's tools leave files
        if isinstance(case.model, bytes):
            model.write_bytes(case.model)
        try:
            given = open_model(model)
            calibration, held_out = read_samples(case, given)
            given.run(None, calibration[0])
        except Exception as error:
            return Row(case.name, None, *[Ending("not run", _line(error))] * 2)
        ours, quick = _ended(_quantize, model, Path(folder) / "ours.onnx", calibration)
        theirs, slow = _ended(quantize_statically, model, Path(folder) / "theirs.onnx", calibration)
        ours, theirs = _judged(ours, given, quick, held_out), _judged(theirs, given, slow, held_out)
        if quick is None or slow is None or not ours.kind == theirs.kind == "done":
            return Row(case.name, None, ours, theirs)
        times = microseconds([given, quick, slow], held_out[0])
        return Row(case.name, times[0], replace(ours, us=times[1]), replace(theirs, us=times[2]))


def _ended(
    quantize: Callable[[Path, Path, list[Feeds]], None], model: Path, output: Path, batches: list[Feeds]
) -> tuple[Ending, ort.InferenceSession | None]:
    """How it ended, and the written model where there is one that onnxruntime opens."""
    try:
        quantize(model, output, batches)
        session = open_model(output)
        return Ending("done", codes=_codes(output)), session
    except InputError as error:
        said = str(error).replace(str(model), "MODEL")
        return Ending("refused" if "\n" not in said and len(said) <= _LONGEST else "failed", said), None
    except Exception as error:
        return Ending("failed", _line(error)), None


def _codes(output: Path) -> int:
    """How many values of a written model are turned into codes, weights apart."""
    nodes = onnx.load(output, load_external_data=False).graph.node
    return sum(node.op_type == "QuantizeLinear" for node in nodes)


def _quantize(model: Path, output: Path, batches: list[Feeds]) -> None:
    quantize(model, batches, QuantizationConfig(workers=1)).save(output)
    onnx.checker.check_model(str(output), full_check=True)


def _judged(
    ending: Ending, given: ort.InferenceSession, found: ort.InferenceSession | None, batches: list[Feeds]
) -> Ending:
    if found is None:
        return ending
    try:
        return replace(ending, snr=lowest_snr(given, found, batches))
    except Exception as error:
        return Ending("failed", f"the written model: {_line(error)}")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0][:_LONGEST]


if __name__ == "__main__":
    main()
