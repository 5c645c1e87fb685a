"""Feed onnx-lapq damaged models, images, arrays, labels, options and state files, and count how it ends.

    python tools/robustness/fuzz.py --cases 10000 --seed 0 --keep /tmp/found

Every case ends in a model, or in one sentence. What does not is kept as a folder to repeat: a crash, a
traceback or internal error, more than a minute of the processor, a half-written or overwritten output. Cases
run in forks of a process that has imported everything, one in a hundred as a command of its own.
"""

import argparse
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from damage import damage_arrays, damage_bytes, damage_graph, damage_options
from isolated import Outcome, run_command, run_isolated
from onnx import helper
from PIL import Image

from onnx_lapq import QuantizationConfig, quantize

GOOD = {"written", "refused", "failed"}
_FAST = ["--optimizer", "none", "--rounding", "nearest", "--p-grid", "2,3,4"]
_SEARCH = ["-w", "4", "-a", "4", "--p-grid", "2,3,4", "--max-evals", "8", "--resume"]
_LINES = 6
"""Of what is said where a run is refused: one sentence, and warnings before it."""

_OWN = 0.01
"""Share of the cases that run as a command of their own."""

Damage = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Kind:
    """What is damaged, and the command that then reads it.

    Attributes:
        file: The file, or a folder of which one file is chosen.
        arguments: The command.
        damage: What is done to the bytes.
    """

    file: str
    arguments: list[str]
    damage: Damage


_RUN = ["model.onnx", "calib", *_FAST]

KINDS = {
    "model": Kind("model.onnx", _RUN, damage_bytes),
    "graph": Kind("model.onnx", _RUN, damage_graph),
    "image": Kind("calib", _RUN, damage_bytes),
    "labels": Kind("labelled/labels.csv", ["model.onnx", "labelled", *_FAST], damage_bytes),
    "archive": Kind("calib.npz", ["model.onnx", "calib.npz", *_FAST], damage_bytes),
    "arrays": Kind("calib.npz", ["model.onnx", "calib.npz", *_FAST], damage_arrays),
    "options": Kind("lapq.toml", [*_RUN, "--config", "lapq.toml"], damage_bytes),
    "values": Kind("lapq.toml", ["model.onnx", "calib", "--config", "lapq.toml"], damage_options),
    "state": Kind("out.onnx.state", ["model.onnx", "calib", *_SEARCH], damage_bytes),
    "record": Kind("out.onnx.state", ["model.onnx", "calib", *_SEARCH], damage_arrays),
}


def main() -> None:
    """Run the cases and print the counts; exit code 1 where one ended badly."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="Folder for the cases that ended badly.")
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        base = _prepare(Path(folder) / "base")
        run = partial(_case, base, Path(folder), options.keep)
        for kind, ending in pool.map(run, range(options.seed, options.seed + options.cases)):
            counts[kind, ending] += 1
            if counts.total() % 500 == 0:
                print(f"{counts.total()} cases, {_bad(counts)} ended badly", flush=True)
    for (kind, ending), count in sorted(counts.items()):
        print(f"{kind:8} {ending:10} {count}")
    print(f"{options.cases} cases from seed {options.seed}, {_bad(counts)} ended badly")
    raise SystemExit(1 if _bad(counts) else 0)


def _bad(counts: Counter[tuple[str, str]]) -> int:
    return sum(count for (_, ending), count in counts.items() if ending not in GOOD)


def _prepare(base: Path) -> Path:
    """A folder with a sound model, samples of all sorts, options, an old output, and the state of a run."""
    (base / "calib").mkdir(parents=True)
    pixels = np.random.default_rng(0)
    for index, suffix in enumerate(["png", "jpg", "bmp", "gif", "webp", "tif"]):
        shape = (8 + index, 8, 3)
        Image.fromarray(pixels.integers(0, 256, shape, dtype=np.uint8)).save(base / f"calib/{index}.{suffix}")
    shutil.copytree(base / "calib", base / "labelled")
    names = sorted(path.name for path in (base / "calib").iterdir())
    (base / "labelled" / "labels.csv").write_text(
        "".join(f"{name},{row % 5}\n" for row, name in enumerate(names))
    )
    arrays = {"x": pixels.standard_normal((6, 3, 8, 8)).astype(np.float32), "labels": np.arange(6) % 5}
    np.savez(base / "calib.npz", **arrays)
    (base / "lapq.toml").write_text(
        'weight_bits = 4\nguard = 0.2\nbits = ["Conv=8"]\n[preprocessing]\nscale = 0.1\n'
    )
    onnx.save(_network(), base / "model.onnx")
    config = QuantizationConfig(
        weight_bits=4, activation_bits=4, p_values=(2.0, 3.0, 4.0), max_evaluations=8, resume=True
    )
    quantize(base / "model.onnx", base / "calib", config, state=base / "out.onnx.state")
    (base / "out.onnx").write_bytes(b"old")
    return base


def _network() -> onnx.ModelProto:
    random_values = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(random_values.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w2"], ["c"], name="second", pads=[1] * 4, group=2),
        helper.make_node("Add", ["c", "r"], ["s"], name="add"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3"], ["y"], name="last"),
    ]
    tensors = [weight("w1", 4, 3, 3, 3), weight("b1", 4), weight("w2", 4, 2, 3, 3), weight("w3", 4, 5)]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["N", 3, 8, 8]), ("y", ["N", 5]))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _case(base: Path, folder: Path, keep: Path | None, seed: int) -> tuple[str, str]:
    """Damage one thing, run, and say how it ended."""
    chance = random.Random(seed)
    name = chance.choice(list(KINDS))
    kind = KINDS[name]
    job = folder / f"{seed}"
    shutil.copytree(base, job)
    if kind.file != "out.onnx.state":
        (job / "out.onnx.state").unlink()
    path = job / kind.file
    if path.is_dir():
        path = chance.choice(sorted(path.iterdir()))
    path.write_bytes(kind.damage(path.read_bytes(), chance))
    before = {found.name for found in job.iterdir()}
    run = run_command if chance.random() < _OWN else run_isolated
    outcome = run([*kind.arguments, "-q", "-o", "out.onnx"], job)
    ending, reason = _ending(outcome, job, before)
    if ending not in GOOD and keep is not None:
        kept = keep / f"{seed}-{name}-{ending}"
        shutil.copytree(job, kept, dirs_exist_ok=True)
        (kept / "stderr").write_text(f"{outcome.stderr}{reason}")
    shutil.rmtree(job)
    shutil.rmtree(job.with_name(f"{job.name}.log"), ignore_errors=True)
    return name, ending


def _ending(outcome: Outcome, job: Path, before: set[str]) -> tuple[str, str]:
    """How a run ended, and what is wrong about it where that is not on its standard error."""
    if outcome.exit_code is None:
        return "hang", ""
    if outcome.exit_code < 0:
        return "crash", str(outcome.exit_code)
    if "internal error" in outcome.stderr or "Traceback" in outcome.stderr:
        return "traceback", ""
    partial = _partial(outcome, job, {found.name for found in job.iterdir()} - before - {"out.onnx.state"})
    if partial:
        return "partial", partial
    if outcome.exit_code != 0 and not 1 <= len(outcome.stderr.splitlines()) <= _LINES:
        return "no sentence", ""
    endings = {0: "written", 1: "failed", 2: "refused"}
    return endings.get(outcome.exit_code, "odd code"), f"exit code {outcome.exit_code}"


def _partial(outcome: Outcome, job: Path, new: set[str]) -> str:
    """What is half-written or overwritten; nothing where all is as it should be."""
    expected = {"out.onnx.report.json"} if outcome.exit_code == 0 else set()
    if new - {"out.onnx.report.html"} != expected or (outcome.exit_code != 0 and new):
        return f"exit code {outcome.exit_code}, new files: {sorted(new)}"
    if outcome.exit_code != 0:
        return "" if (job / "out.onnx").read_bytes() == b"old" else "the old output is gone"
    try:
        onnx.checker.check_model(onnx.load(job / "out.onnx"))
        json.loads((job / "out.onnx.report.json").read_text())
    except Exception as error:
        return repr(error)
    return ""


if __name__ == "__main__":
    main()
