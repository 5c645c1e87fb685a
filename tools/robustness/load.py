"""Large loads: 20,000 images, a model of 1 GB, eight runs at once; what each takes in time and memory.

python tools/robustness/load.py --images 20000 --gigabytes 1 --runs 8
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
from isolated import run_isolated
from onnx import helper, numpy_helper
from PIL import Image

_FAST = ["--optimizer", "none", "--rounding", "nearest", "--p-grid", "2,3,4"]
_WIDTH = 4096
_SIZE = 32
_TIMEOUT = 3600


def main() -> None:
    """Make the loads, run them and print a line for each; exit code 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=8)
    options = parser.parse_args()
    loads: list[Callable[[Path], bool]] = [
        lambda folder: _many_images(folder, options.images),
        lambda folder: _large_model(folder, options.gigabytes),
        lambda folder: _many_runs(folder, options.runs),
    ]
    sound = True
    for load in loads:
        with tempfile.TemporaryDirectory() as folder:
            sound &= load(Path(folder))
    raise SystemExit(0 if sound else 1)


def _many_images(folder: Path, count: int) -> bool:
    job = _job(folder / "job", count)
    return _run(f"{count:,} images of {_SIZE}x{_SIZE}", job, "calib", _FAST)


def _large_model(folder: Path, gigabytes: float) -> bool:
    """A row of matrix products."""
    job = folder / "job"
    job.mkdir()
    chance = np.random.default_rng(0)
    count = round(gigabytes * (1 << 30) / (4 * _WIDTH * _WIDTH))
    nodes, tensors = [], []
    for index in range(count):
        weight = chance.standard_normal((_WIDTH, _WIDTH), np.float32) * np.float32((2 / _WIDTH) ** 0.5)
        tensors.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"y{index}"], name=f"m{index}"))
        nodes.append(helper.make_node("Relu", [f"y{index}"], [f"x{index + 1}"], name=f"r{index}"))
    _save(job, nodes, tensors, "x0", ["N", _WIDTH], f"x{count}", ["N", _WIDTH])
    np.savez(job / "calib.npz", x0=chance.standard_normal((16, _WIDTH), np.float32))
    return _run(f"a model of {(job / 'model.onnx').stat().st_size / 1e9:.2f} GB", job, "calib.npz", _FAST)


def _many_runs(folder: Path, count: int) -> bool:
    """Runs at once in one folder, each with an output of its own, beside one that was alone."""
    job = _job(folder / "job", 64)
    sound = _run("one run alone", job, "calib", ["--max-evals", "20"])
    alone = (job / "out.onnx").read_bytes()
    jobs = [_job(folder / f"{number}", 64) for number in range(count)]
    with ThreadPoolExecutor(count) as pool:
        ends = list(
            pool.map(
                lambda job: _run(f"one of {count} at once", job, "calib", ["--max-evals", "20"]),
                jobs,
            )
        )
    same = all((job / "out.onnx").read_bytes() == alone for job in jobs)
    print(f"{count} runs at once: {'the bytes' if same else 'NOT the bytes'} of the one alone", flush=True)
    return sound and all(ends) and same


def _run(name: str, job: Path, data: str, options: Sequence[str]) -> bool:
    outcome = run_isolated(["model.onnx", data, "-o", "out.onnx", "-q", *options], job, _TIMEOUT)
    print(
        f"{name}: exit code {outcome.exit_code}, {outcome.seconds:.0f} s, peak {outcome.peak / 1e9:.2f} GB "
        f"{outcome.stderr.strip()}",
        flush=True,
    )
    return outcome.exit_code == 0


def _job(folder: Path, images: int) -> Path:
    """A small convolutional network and a folder of noise in ten classes."""
    chance = np.random.default_rng(0)
    for number in range(images):
        path = folder / "calib" / f"{number % 10}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (_SIZE, _SIZE, 3), np.uint8)).save(path)
    nodes, tensors, channels = [], [], 3
    for index, width in enumerate((8, 16)):
        weight = chance.standard_normal((width, channels, 3, 3), np.float32) / np.float32(3 * channels**0.5)
        tensors.append(numpy_helper.from_array(weight, f"w{index}"))
        conv = helper.make_node("Conv", [f"x{index}", f"w{index}"], [f"y{index}"], name=f"c{index}")
        conv.attribute.extend(
            helper.make_attribute(*pair) for pair in (("strides", [2, 2]), ("pads", [1] * 4))
        )
        nodes += [conv, helper.make_node("Relu", [f"y{index}"], [f"x{index + 1}"], name=f"r{index}")]
        channels = width
    tensors.append(numpy_helper.from_array(chance.standard_normal((channels, 10), np.float32), "last"))
    nodes.append(helper.make_node("GlobalAveragePool", ["x2"], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"))
    nodes.append(helper.make_node("Gemm", ["flat", "last"], ["scores"], name="gemm"))
    _save(folder, nodes, tensors, "x0", ["N", 3, _SIZE, _SIZE], "scores", ["N", 10])
    return folder


def _save(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    tensors: Sequence[onnx.TensorProto],
    first: str,
    takes: Sequence[int | str],
    last: str,
    gives: Sequence[int | str],
) -> None:
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in ((first, takes), (last, gives))
    ]
    graph = helper.make_graph(nodes, "load", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")


if __name__ == "__main__":
    main()
