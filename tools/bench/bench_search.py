"""What the joint search costs, in forward passes of the float network, beside scipy's Powell.

    python tools/bench/bench_search.py                                     # the demo model
    python tools/bench/bench_search.py model.onnx calib/ -w 4 -a 4 ...     # any model and folder

Everything is measured in one run. Passes are ratios of CPU seconds, which other work on the machine disturbs
little; seconds are of the clock. scipy's Powell, the yardstick, sees the same losses through the same
evaluator; its seconds are given as if each of its evaluations were a full one, as in the authors' code. What
comes before the search is measured by bench_run.py.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import click
import numpy as np
from bench_tables import figures_table
from rich.console import Console
from rich.table import Table

from onnx_lapq import QuantizationConfig
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.cli.options import preprocessing_options
from onnx_lapq.cli.types import BYTES
from onnx_lapq.evaluation.protocols import Evaluator
from onnx_lapq.evaluation.runner import Point
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.method.powell.joint import minimise
from onnx_lapq.method.powell.search_state import Accepted, SearchOptions, StopReason
from onnx_lapq.network.bench import Bench, set_up
from onnx_lapq.network.float_network import float_runs
from onnx_lapq.network.samples import read_samples
from onnx_lapq.network.step_sizes import Steps
from onnx_lapq.progress import Clock, silent
from onnx_lapq.stages.found import Found
from onnx_lapq.stages.joint import search_jointly
from onnx_lapq.stages.rounding import round_weights
from onnx_lapq.stages.start import find_start

_DEMO = Path(__file__).parents[2] / "demo"
_REPEATS = 3
_YARDSTICK: Literal["scipy-powell"] = "scipy-powell"


@dataclass
class Cost:
    """Seconds of the clock and of all processors."""

    clock: float = 0.0
    cpu: float = 0.0

    def __truediv__(self, count: float) -> "Cost":
        return Cost(self.clock / count, self.cpu / count)


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure what is done inside."""
    cost, clock, cpu = Cost(), time.perf_counter(), time.process_time()
    yield cost
    cost.clock, cost.cpu = time.perf_counter() - clock, time.process_time() - cpu


class Metered:
    """An evaluator that keeps what its evaluations cost."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self.evaluations = 0
        self.total = Cost()

    def losses(self, point: Point) -> np.ndarray:
        """Losses at a point, counted and timed."""
        self.evaluations += 1
        with measured() as cost:
            losses = self._evaluator.losses(point)
        self.total.clock += cost.clock
        self.total.cpu += cost.cpu
        return losses


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path), default=_DEMO / "model.onnx")
@click.argument("calib", type=click.Path(exists=True, path_type=Path), default=_DEMO / "calib")
@click.option("-w", "--weight-bits", default=4, show_default=True)
@click.option("-a", "--activation-bits", default=4, show_default=True)
@click.option("--samples", type=int, help="Use at most this many. [default: all]")
@click.option("--max-evals", "max_evaluations", type=int, help="Cap on the evaluations of each optimizer.")
@click.option("--memory", type=BYTES, default=QuantizationConfig().memory, help="As for a run.")
@click.option("--rounding", type=click.Choice(["compensated", "nearest"]), default="compensated")
@click.option("--scipy/--no-scipy", default=True, help="Run the yardstick, which takes longest.")
@preprocessing_options
def main(model: Path, calib: Path, *, scipy: bool, preprocessing: Preprocessing, **options: object) -> None:
    """Print what the joint search costs on MODEL with the samples of CALIB."""
    config = QuantizationConfig(preprocessing=preprocessing, **options).resolved()  # type: ignore[arg-type]
    prepared = prepare(load(model))
    samples = read_samples(prepared, calib, preprocessing, config.samples, lambda done: None)
    bench = set_up(prepared, place(prepared, config.placement_options()), samples, config, Clock(silent))
    found = round_weights(bench, find_start(bench, Found(), _ignore), _ignore)
    bench = bench.with_codes(found.codes)
    float_pass, full = _passes(bench, found.start)
    lean = _Run.of(bench, found)
    console = Console(width=110)
    console.print(f"{model.name}, {len(samples)} samples: {1 / float_pass.clock:.2f} float passes a second")
    console.print(_evaluations(full, lean, float_pass))
    runs = {"powell": lean, "powell without guard": _Run.unguarded(bench, found)}
    if scipy:
        runs[_YARDSTICK] = _Run.of(replace(bench, config=replace(config, optimizer=_YARDSTICK)), found)
    console.print(_optimizers(bench, found.start, runs, full))


def _ignore(found: Found) -> None:
    """Nothing is saved."""


@dataclass(frozen=True)
class _Run:
    """One optimiser, run to its end."""

    steps: Steps
    history: tuple[Accepted, ...]
    evaluations: int
    stopped: StopReason
    cost: Cost

    @classmethod
    def of(cls, bench: Bench, found: Found) -> "_Run":
        meter = Metered(bench.evaluator)
        ended = search_jointly(replace(bench, evaluator=meter), found, _ignore)  # type: ignore[arg-type]
        return cls(ended.steps, ended.history, meter.evaluations, ended.stopped, meter.total)

    @classmethod
    def unguarded(cls, bench: Bench, found: Found) -> "_Run":
        """Our optimiser on the loss alone, as the yardstick is."""
        meter = Metered(bench.evaluator)
        objective = replace(bench, evaluator=meter).objective(found.start)  # type: ignore[arg-type]
        options = SearchOptions(max_evaluations=bench.config.max_evaluations)
        result = minimise(objective, objective.start, options)
        steps = objective.steps(result.step_sizes)
        return cls(steps, result.history, result.evaluations, result.stopped, meter.total)

    @property
    def loss(self) -> float:
        """The lowest loss that was accepted."""
        return self.history[-1].loss

    def until(self, loss: float) -> int | None:
        """Evaluations until the loss was as low as this."""
        return next((at.evaluations for at in self.history if at.loss <= loss), None)


def _passes(bench: Bench, start: Steps) -> tuple[Cost, Cost]:
    """One pass of the float network, and one evaluation of which nothing is known, in turn."""
    config, size = bench.config, bench.sizes.observed
    run = float_runs(bench.network.model, bench.samples, size, config.threads, config.provider)
    first = bench.simulation.segments[0].sites[0]
    passes, fulls = Cost(), Cost()
    for repeat in range(_REPEATS):
        with measured() as one:
            for _ in run(bench.captured.names):
                pass
        moved = bench.network.point({**start, first: start[first] * (1.001 + 0.001 * repeat)})
        with measured() as full:
            bench.evaluator.losses(moved)
        for total, cost in ((passes, one), (fulls, full)):
            total.clock, total.cpu = total.clock + cost.clock, total.cpu + cost.cpu
    return passes / _REPEATS, fulls / _REPEATS


def _evaluations(full: Cost, lean: _Run, float_pass: Cost) -> Table:
    table = figures_table("one evaluation", "seconds", "float passes")
    average = lean.cost / lean.evaluations
    for name, cost in (("full", full), ("incremental, average of the joint step", average)):
        table.add_row(name, f"{cost.clock:.3f}", f"{cost.cpu / float_pass.cpu:.2f}")
    return table


def _optimizers(bench: Bench, start: Steps, runs: dict[str, _Run], full: Cost) -> Table:
    """Evaluations and seconds of each, and until each was where the yardstick ended."""
    table = figures_table(
        "optimizer", "evaluations", "seconds", "loss", "loss on guard", "evaluations until scipy's loss"
    )
    for name, run in runs.items():
        seconds = full.clock * run.evaluations if name == _YARDSTICK else run.cost.clock
        until = run.until(runs[_YARDSTICK].loss) if _YARDSTICK in runs else None
        table.add_row(
            name,
            f"{run.evaluations} ({run.stopped})",
            f"{seconds:.1f}",
            f"{run.loss:.6f}",
            f"{bench.losses(run.steps)[bench.guard].mean():.6f}",
            "never" if until is None else str(until),
        )
    return table


if __name__ == "__main__":
    main()
