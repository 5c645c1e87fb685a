"""What a run costs: each phase in float passes, memory, and quantize_static beside it.

    python tools/bench/bench_run.py demo/model.onnx demo/calib -w 4 -a 4 --mean 0.2860 --std 0.3530

Takes the options of onnx-lapq. Both tools run in a process of their own, on the same samples, and begin with
the files of these. A float pass is onnxruntime on all cores with the float model over all samples: the median
of five, before, between and after both tools. Seconds are of the clock, so the machine should be quiet. The
run becomes a line of the log, which bench_page.py makes a page of.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import TypeVar

import click
import onnxruntime as ort
from bench_log import LOG, Cost, Measured, append, commit, machine, today
from bench_tables import figures_table
from rich.console import Console
from rival import quantize_statically

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.calibration.samples import Samples, batches
from onnx_lapq.cli.allocator import give_back_freed_memory, keep_what_is_loaded
from onnx_lapq.cli.options import run_options
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.network.batching import batch_limit, batch_sizes, fixed_batch
from onnx_lapq.network.samples import read_samples
from onnx_lapq.runtime.session import Feeds

_PATH = click.Path(exists=True, path_type=Path)
_PASSES = 2
"""Float passes at each of three moments."""

_GROWTH = 16
"""Bytes of activations for a byte of an input, about: what bounds the batch."""

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A model, its samples and the options."""

    model: Path
    calib: Path
    config: QuantizationConfig


class Batches:
    """The samples of a job, and batches of a size that all models of a kind can take.

    Going through it again gives the same batches.
    """

    def __init__(self, job: Job) -> None:
        feeding, config = job.config.feeding(), job.config
        prepared = prepare(load(job.model), fold_codes=config.fold_codes, values=feeding.values)
        start = time.perf_counter()
        self.samples: Samples = read_samples(
            prepared, job.calib, config.preprocessing, config.samples, lambda done: None, feeding
        )
        self.seconds = time.perf_counter() - start
        self.session = ort.InferenceSession(str(job.model), providers=["CPUExecutionProvider"])
        size = fixed_batch(prepared, self.samples) or _free_size(self.session, self.samples)
        self._slices = batches(self.samples.groups, size)

    def __iter__(self) -> Iterator[Feeds]:
        return (self.samples.batch(at.start, at.stop) for at in self._slices)


def _free_size(session: ort.InferenceSession, samples: Samples) -> int:
    sample = sum(array.nbytes for array in samples.batch(0, 1).values())
    return batch_sizes(batch_limit(session, samples), _GROWTH * sample).observed


@click.command()
@click.argument("model", type=_PATH)
@click.argument("calib", type=_PATH)
@click.option("--log", type=click.Path(path_type=Path), default=LOG, help="File that gets a line.")
@run_options()
def main(model: Path, calib: Path, log: Path, config: QuantizationConfig) -> None:
    """Print what a run on MODEL with the samples of CALIB costs."""
    load_before = os.getloadavg()[0]
    job = Job(model.resolve(), calib.resolve(), config)
    given = Batches(job)
    passes = _float_passes(given)[1:]
    phases, ours = _apart(_run_ours, job)
    passes += _float_passes(given)
    static = _static(job)
    one = median(passes + _float_passes(given))
    run = Measured(
        date=today(),
        commit=commit(),
        machine=machine(),
        load=_short(load_before),
        model="/".join(job.model.parts[-2:]),
        options=_described(config),
        samples=len(given.samples),
        float_pass=_short(one),
        phases={phase: _short(seconds / one) for phase, seconds in phases.items()},
        ours=ours,
        static=static,
    )
    append(log, run)
    _print(run)


def _float_passes(given: Batches) -> list[float]:
    """Seconds of onnxruntime for a warm-up or two passes over all samples."""
    passes = []
    for _ in range(_PASSES):
        seconds = 0.0
        for feeds in given:
            start = time.perf_counter()
            given.session.run(None, feeds)
            seconds += time.perf_counter() - start
        passes.append(seconds)
    return passes


def _apart(measure: Callable[[Job], T], job: Job) -> T:
    """What a function returns, in a fresh interpreter."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, job).result()


def _run_ours(job: Job) -> tuple[dict[str, float], Cost]:
    """Seconds of each phase, and of all, as the command runs it."""
    give_back_freed_memory()
    keep_what_is_loaded()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = quantize(job.model, job.calib, job.config).save(Path(folder) / "model.onnx")
    seconds = time.perf_counter() - start
    phases = {**report.seconds, "all else": seconds - sum(report.seconds.values())}
    return phases, Cost(_short(seconds), _peak_mib())


def _run_static(job: Job) -> Cost:
    """Reading the samples counts, preparing the model for our reader does not."""
    given = Batches(job)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # onnxruntime's tools leave files
        start = time.perf_counter()
        quantize_statically(job.model, Path(folder) / "model.onnx", given)
        seconds = time.perf_counter() - start
        os.chdir(job.model.parent)
    return Cost(_short(given.seconds + seconds), _peak_mib())


def _static(job: Job) -> Cost | None:
    try:
        return _apart(_run_static, job)
    except Exception as error:
        click.echo(f"quantize_static failed: {type(error).__name__}: {error}".split("\n")[0], err=True)
        return None


def _short(value: float) -> float:
    """Four digits, for the log."""
    return float(f"{value:.4g}")


def _peak_mib() -> int:
    """Most memory of this process since its program began; `resource` would count what started it, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise OSError("/proc/self/status does not tell the peak of the memory")


def _described(config: QuantizationConfig) -> str:
    """Bits, and what else differs from the defaults, but for the preprocessing."""
    plain = asdict(QuantizationConfig())
    shown = {field.name for field in fields(config)} - {"weight_bits", "activation_bits", "preprocessing"}
    others = [
        f"{name}={value}" for name, value in asdict(config).items() if name in shown and value != plain[name]
    ]
    return ", ".join([f"W{config.weight_bits}A{config.activation_bits}", *others])


def _print(run: Measured) -> None:
    console = Console(width=110)
    console.print(
        f"{run.model}, {run.options}, {run.samples} samples: a float pass takes {run.float_pass:.3f} s"
    )
    table = figures_table("phase", "seconds", "float passes")
    for phase, passes in {**run.phases, "all": run.passes}.items():
        table.add_row(phase, f"{passes * run.float_pass:.1f}", f"{passes:.1f}")
    beside = figures_table("tool", "seconds", "peak MiB", "of quantize_static's time")
    beside.add_row("onnx-lapq", *_cells(run.ours), "" if run.ratio is None else f"{run.ratio:.2f}")
    if run.static is not None:
        beside.add_row("quantize_static", *_cells(run.static), "1.00")
    console.print(table)
    console.print(beside)


def _cells(cost: Cost) -> tuple[str, str]:
    return f"{cost.seconds:.1f}", str(cost.peak_mib)


if __name__ == "__main__":
    main()
