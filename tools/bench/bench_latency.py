"""Latency of this tool's output beside the float model and onnxruntime.quantization.quantize_static.

    python tools/bench/bench_latency.py                          # a depthwise 224x224 network, random weights
    python tools/bench/bench_latency.py model.onnx calib/ ...      # any model with one image input

All models of a network are timed in turn, round by round, so that the ratios are of one run. The last column
is the share of outputs that stay the same, bit for bit, with kernels that cannot overflow
(session.x64quantprecision).
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime as ort
from bench_tables import figures_table
from depthwise import depthwise_network
from onnxruntime.quantization import QuantType, quantize_static
from rich.console import Console
from rival import Reader

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.calibration.preprocessing import PRESETS
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.network.samples import read_samples

_CALIBRATION = 32
_QUICK = QuantizationConfig(optimizer="none", rounding="nearest", samples=_CALIBRATION)
_W4A4 = replace(_QUICK, weight_bits=4, activation_bits=4)
_RUNS = {
    "W8A8": _QUICK,
    "W8A8 --full-range": replace(_QUICK, full_range=True),
    "W8A8 --per-tensor": replace(_QUICK, per_channel=False),
    "W4A4": _W4A4,
    "W4A4 --storage packed": replace(_W4A4, storage="packed"),
}
_BASELINES = {
    "quantize_static": {},
    "quantize_static QUInt8 activations": {"activation_type": QuantType.QUInt8},
    "quantize_static QUInt8 per-channel": {"activation_type": QuantType.QUInt8, "per_channel": True},
}


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--threads", default=1, show_default=True)
@click.option("--rounds", default=60, show_default=True)
@click.option("--preset", type=click.Choice(sorted(PRESETS)), default="unit", show_default=True)
def main(paths: tuple[Path, ...], threads: int, rounds: int, preset: str) -> None:
    """Time the networks given as MODEL CALIB pairs, or a depthwise 224x224 network."""
    with tempfile.TemporaryDirectory() as folder:
        for model, calib in _networks(paths, Path(folder)):
            _bench(model, calib, Path(folder), threads, rounds, preset)


def _networks(paths: tuple[Path, ...], folder: Path) -> Iterator[tuple[Path, Path]]:
    if len(paths) % 2:
        raise click.UsageError("give a calibration folder for every model")
    yield from zip(paths[::2], paths[1::2], strict=True)
    if not paths:
        random = np.random.default_rng(0)
        onnx.save(depthwise_network(random), folder / "depthwise224.onnx")
        images = random.standard_normal((_CALIBRATION, 3, 224, 224)).astype(np.float32)
        np.savez(folder / "calib.npz", image=images)
        yield folder / "depthwise224.onnx", folder / "calib.npz"


def _bench(model: Path, calib: Path, folder: Path, threads: int, rounds: int, preset: str) -> None:
    samples = read_samples(prepare(load(model)), calib, PRESETS[preset], _CALIBRATION, lambda done: None)
    files = {"float": model}
    for label, options in _BASELINES.items():
        files[label] = folder / f"{len(files)}.onnx"
        batches = [samples.batch(start, start + 1) for start in range(len(samples))]
        quantize_static(model, files[label], Reader(batches), **options)
    for label, config in _RUNS.items():
        files[label] = folder / f"{len(files)}.onnx"
        quantize(model, calib, config).save(files[label])
    feeds = samples.batch(0, 1)
    medians = _time({label: _open(path, threads) for label, path in files.items()}, feeds, rounds)
    headings = ("MB", "ms", "of float", "of quantize_static", "same if precise")
    table = figures_table("model", *headings, title=f"{model.name}, {threads} thread(s), batch 1")
    baseline = min(medians[label] for label in _BASELINES)
    for label, median in medians.items():
        table.add_row(
            label,
            f"{files[label].stat().st_size / 1e6:.2f}",
            f"{1e3 * median:.3f}",
            f"{median / medians['float']:.2f}",
            f"{median / baseline:.2f}",
            f"{100 * _unchanged(files[label], samples.batch(0, len(samples))):.0f} %",
        )
    Console(width=110).print(table)


def _open(path: Path, threads: int, *, precise: bool = False) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _time(
    sessions: dict[str, ort.InferenceSession], feeds: dict[str, np.ndarray], rounds: int
) -> dict[str, float]:
    """Median seconds of a run of each session."""
    seconds: dict[str, list[float]] = {label: [] for label in sessions}
    for session in sessions.values():
        session.run(None, feeds)
    for _ in range(rounds):
        for label, session in sessions.items():
            for _ in range(5):
                start = time.perf_counter()
                session.run(None, feeds)
                seconds[label].append(time.perf_counter() - start)
    return {label: float(np.median(values)) for label, values in seconds.items()}


def _unchanged(path: Path, feeds: dict[str, np.ndarray]) -> float:
    """Share of the samples with the same first output on kernels that cannot overflow."""
    fast, precise = (_open(path, 1, precise=precise).run(None, feeds)[0] for precise in (False, True))
    return float(np.mean([np.array_equal(*pair) for pair in zip(fast, precise, strict=True)]))


if __name__ == "__main__":
    main()
