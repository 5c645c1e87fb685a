"""Feed onnx-lapq damaged models, images, arrays, options and state files, and count how it ends.

    python tools/fuzz.py --cases 10000 --seed 0 --keep /tmp/found

Every case ends in a model, or in one sentence. What does not is kept as a folder to repeat: a crash, a
traceback or internal error, a run of more than a minute, a half-written output.
"""

import argparse
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from isolated import Outcome, run_isolated
from onnx import defs, helper
from PIL import Image

from onnx_lapq import QuantizationConfig, quantize

FAST = ["--optimizer", "none", "--rounding", "nearest", "--p-grid", "2,3,4", "-q", "-o", "out.onnx"]
GOOD = {"written", "refused", "failed"}


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
    for (kind, ending), count in sorted(counts.items()):
        print(f"{kind:8} {ending:10} {count}")
    bad = sum(count for (_, ending), count in counts.items() if ending not in GOOD)
    print(f"{options.cases} cases from seed {options.seed}, {bad} ended badly")
    raise SystemExit(1 if bad else 0)


def _prepare(base: Path) -> Path:
    """A folder with a sound model, samples of both kinds, options, and the state of a run."""
    (base / "calib").mkdir(parents=True)
    pixels = np.random.default_rng(0)
    for index, suffix in enumerate(["png", "jpg", "bmp", "gif", "webp", "tif"]):
        shape = (8 + index, 8, 3)
        Image.fromarray(pixels.integers(0, 256, shape, dtype=np.uint8)).save(base / f"calib/{index}.{suffix}")
    np.savez(base / "calib.npz", x=pixels.standard_normal((6, 3, 8, 8)).astype(np.float32))
    (base / "lapq.toml").write_text(
        'weight_bits = 4\nguard = 0.2\nbits = ["Conv=8"]\n[preprocessing]\nscale = 0.1\n'
    )
    onnx.save(_network(), base / "model.onnx")
    config = QuantizationConfig(optimizer="none", rounding="nearest", p_values=(2.0, 3.0, 4.0))
    quantize(base / "model.onnx", base / "calib", config, state=base / "out.onnx.state")
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
    kind = chance.choice(list(KINDS))
    file, arguments, damage = KINDS[kind]
    job = folder / f"{seed}"
    shutil.copytree(base, job)
    if kind != "state":
        (job / "out.onnx.state").unlink()
    path = job / (chance.choice(sorted(p.name for p in (job / file).iterdir())) if file == "calib" else file)
    path = job / file / path.name if file == "calib" else path
    path.write_bytes(damage(path.read_bytes(), chance))
    before = {found.name for found in job.iterdir()}
    outcome = run_isolated([*arguments, *FAST], job)
    ending = _ending(outcome, {found.name for found in job.iterdir()} - before)
    if ending not in GOOD and keep is not None:
        shutil.copytree(job, keep / f"{seed}-{kind}-{ending}", dirs_exist_ok=True)
        (keep / f"{seed}-{kind}-{ending}" / "stderr").write_text(outcome.stderr)
    shutil.rmtree(job)
    shutil.rmtree(job.with_name(f"{job.name}.log"))
    return kind, ending


def _ending(outcome: Outcome, new: set[str]) -> str:
    if outcome.exit_code is None:
        return "hang"
    if outcome.exit_code < 0:
        return "crash"
    if "internal error" in outcome.stderr or "Traceback" in outcome.stderr:
        return "traceback"
    if new - {"out.onnx.state"} != (
        {"out.onnx", "out.onnx.report.json"} if outcome.exit_code == 0 else set()
    ):
        return "partial"
    return {0: "written", 1: "failed", 2: "refused"}.get(outcome.exit_code, "odd code")


def damage_bytes(content: bytes, chance: random.Random) -> bytes:
    """Flip, remove, repeat or cut off some bytes."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        at = chance.randrange(len(changed) or 1)
        span = chance.choice([1, 1, 4, 50])
        change = chance.choice(["flip", "flip", "set", "remove", "repeat", "cut"])
        if change == "flip" and changed:
            changed[at] ^= 1 << chance.randrange(8)
        elif change == "set":
            changed[at : at + 1] = chance.choice([b"\0", b"\xff", b"\x7f", b"\x80"])
        elif change == "remove":
            del changed[at : at + span]
        elif change == "repeat":
            changed[at:at] = changed[at : at + span]
        elif change == "cut" and chance.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def damage_graph(content: bytes, chance: random.Random) -> bytes:
    """Change nodes, attributes, tensors and types of a model."""
    model = onnx.load_from_string(content)
    for _ in range(chance.choice([1, 1, 2, 4])):
        chance.choice(GRAPH_CHANGES)(model.graph, chance)
    if chance.random() < 0.05:
        model.opset_import[0].version = chance.choice([-1, 0, 1, 7, 9, 13, 18, 21, 25, 99])
    return model.SerializeToString()


_SIZES = [-1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 100, 2**20, 2**31, 2**40, 2**62]


def _rewire(graph: onnx.GraphProto, chance: random.Random) -> None:
    names = ["", "x", *(output for node in graph.node for output in node.output)]
    names += [tensor.name for tensor in graph.initializer]
    node = chance.choice(graph.node) if graph.node else None
    if node is not None and node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice(names)


def _other_operator(graph: onnx.GraphProto, chance: random.Random) -> None:
    operators = sorted({schema.name for schema in defs.get_all_schemas() if schema.domain == ""})
    if graph.node:
        chance.choice(graph.node).op_type = chance.choice(operators)


def _remove_node(graph: onnx.GraphProto, chance: random.Random) -> None:
    if graph.node:
        del graph.node[chance.randrange(len(graph.node))]


def _repeat_node(graph: onnx.GraphProto, chance: random.Random) -> None:
    if graph.node:
        graph.node.append(chance.choice(graph.node))


def _attribute(graph: onnx.GraphProto, chance: random.Random) -> None:
    node = chance.choice(graph.node) if graph.node else None
    if node is None:
        return
    name = chance.choice(
        ["pads", "strides", "dilations", "group", "axis", "transA", "alpha", "kernel_shape", "perm"]
    )
    values = [chance.choice(_SIZES) for _ in range(chance.choice([1, 2, 4]))]
    value: object = values if chance.random() < 0.7 else chance.choice([values[0], 1e38, float("nan")])
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _tensor(graph: onnx.GraphProto, chance: random.Random) -> None:
    tensor = chance.choice(graph.initializer)
    change = chance.choice(["dims", "type", "nan", "data", "name"])
    if change == "dims" and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(_SIZES)
    elif change == "type":
        tensor.data_type = chance.randrange(30)
    elif change == "nan":
        value = np.float32(chance.choice([np.nan, np.inf, 1e30, 1e-30, 1e-45, 0]))
        tensor.raw_data = value.tobytes() * (len(tensor.raw_data) // 4)
    elif change == "data":
        tensor.raw_data = damage_bytes(tensor.raw_data, chance)
    else:
        tensor.name = chance.choice(["", "x", "y", "a", "w1"])


def _value(graph: onnx.GraphProto, chance: random.Random) -> None:
    kind = chance.choice([graph.input, graph.output])[0].type.tensor_type
    if chance.random() < 0.3:
        kind.elem_type = chance.randrange(30)
    elif kind.shape.dim:
        kind.shape.dim[chance.randrange(len(kind.shape.dim))].dim_value = chance.choice(_SIZES)


GRAPH_CHANGES: list[Callable[[onnx.GraphProto, random.Random], None]] = [
    *[_rewire, _other_operator, _remove_node, _repeat_node, _attribute, _tensor, _value]
]

KINDS: dict[str, tuple[str, list[str], Callable[[bytes, random.Random], bytes]]] = {
    "model": ("model.onnx", ["model.onnx", "calib"], damage_bytes),
    "graph": ("model.onnx", ["model.onnx", "calib"], damage_graph),
    "image": ("calib", ["model.onnx", "calib"], damage_bytes),
    "arrays": ("calib.npz", ["model.onnx", "calib.npz"], damage_bytes),
    "options": ("lapq.toml", ["model.onnx", "calib", "--config", "lapq.toml"], damage_bytes),
    "state": ("out.onnx.state", ["model.onnx", "calib", "--resume"], damage_bytes),
}

if __name__ == "__main__":
    main()
