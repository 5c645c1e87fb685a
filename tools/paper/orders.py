"""In which order step sizes, codes and the joint step go best, on samples held out.

    python tools/paper/orders.py MODEL CALIB [--mean M --std S] [--bits 4 4] [--samples N] [--max-evals N]

Three disjoint subsets of the samples calibrate one run each, and all samples outside the subset judge it.
Every run begins with step sizes by LAPQ and ends with bias correction; orders differ in what lies between.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from rich import box
from rich.console import Console
from rich.table import Table

from onnx_lapq import QuantizationConfig
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.calibration.samples import Samples, batches, subset
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.method.losses import make_loss
from onnx_lapq.network.bench import Bench, set_up
from onnx_lapq.network.samples import read_samples
from onnx_lapq.progress import Clock, silent
from onnx_lapq.runtime.session import open_session, run
from onnx_lapq.stages.biases import correct_biases
from onnx_lapq.stages.found import Attempt, Found
from onnx_lapq.stages.joint import search_jointly
from onnx_lapq.stages.measure import measured
from onnx_lapq.stages.rounder import Rounder
from onnx_lapq.stages.start import find_start

Order = tuple[str, ...]
Bits = tuple[int, int]
FloatArray = npt.NDArray[np.float64]

DEFAULT: Order = ("codes", "joint")
ORDERS: tuple[Order, ...] = (
    ("codes",),
    DEFAULT,
    ("joint", "codes"),
    ("joint", "codes", "joint"),
    ("codes", "joint", "codes", "joint"),
    ("codes", "joint", "joint"),
)
"""The last one tells what a second joint step brings by its evaluations alone."""
BITS: tuple[Bits, ...] = ((8, 8), (4, 8), (4, 4), (3, 3), (2, 4))
SUBSETS = 3
_BATCH = 64


def _round(bench: Bench, found: Found) -> Found:
    """Codes afresh, at the step sizes as they are."""
    attempt = Rounder(bench).round(Attempt(None, found.steps), lambda done, attempt: None)
    return replace(found, steps=attempt.steps, codes=attempt.codes)


def _search(bench: Bench, found: Found) -> Found:
    found = replace(found, start=found.steps, search=None)
    return search_jointly(bench, found, lambda found: None)


_STAGES: Mapping[str, Callable[[Bench, Found], Found]] = {"codes": _round, "joint": _search}


def follow(bench: Bench) -> Iterator[tuple[Order, ir.Model]]:
    """The quantized model of every order; stages that orders begin with alike are run once."""
    start = find_start(bench, Found(), lambda found: None)
    known: dict[Order, Found] = {(): replace(start, steps=start.start)}
    for order in ORDERS:
        for end, stage in enumerate(order, start=1):
            if order[:end] not in known:
                known[order[:end]] = _STAGES[stage](bench, known[order[: end - 1]])
        yield order, _finished(bench, known[order])


def _finished(bench: Bench, found: Found) -> ir.Model:
    """The model with biases corrected, unless that raises the search or the guard loss."""
    before = measured(bench.with_codes(found.codes), "before", found.steps)
    found = correct_biases(bench, replace(found, stages=(before,)), lambda found: None)
    network = bench.network.with_codes(found.codes)
    return network.written(network.point(found.steps))


def _outputs(model: ir.Model, samples: Samples) -> list[np.ndarray]:
    session = open_session(model)
    parts = [run(session, samples.batch(at.start, at.stop)) for at in batches(samples.groups, _BATCH)]
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def measure(
    prepared: ir.Model, samples: Samples, config: QuantizationConfig, per_subset: int
) -> dict[Order, FloatArray]:
    """Held-out loss of every order, one for each subset."""
    placement = place(prepared, config.placement_options())
    reference = _outputs(prepared, samples)
    loss = make_loss("kl", reference)
    found: dict[Order, list[float]] = {order: [] for order in ORDERS}
    for rows in _subsets(len(samples), per_subset):
        bench = set_up(prepared, placement, subset(samples, rows), config, Clock(silent))
        for order, quantized in follow(bench):
            losses = loss(_outputs(quantized, samples), slice(0, len(samples)))
            found[order].append(float(np.delete(losses, rows).mean()))
            click.echo(f"{', '.join(order)}: {found[order][-1]:.5f}", err=True)
    return {order: np.array(losses) for order, losses in found.items()}


def _subsets(count: int, size: int) -> list[npt.NDArray[np.int64]]:
    """Positions of disjoint subsets, each evenly spread over the (class-sorted) samples."""
    every = [np.arange(first, count, SUBSETS) for first in range(SUBSETS)]
    return [rows[np.arange(min(size, len(rows))) * len(rows) // min(size, len(rows))] for rows in every]


def _spread(values: FloatArray, digits: int) -> str:
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


@click.command(help=__doc__)
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.argument("calib", type=click.Path(path_type=Path, exists=True))
@click.option("--mean", type=float, default=0.2860, show_default=True)
@click.option("--std", type=float, default=0.3530, show_default=True)
@click.option("--bits", type=(int, int), multiple=True, default=BITS, help="Of weights and activations.")
@click.option("--limit", type=int, help="Use at most this many of all samples.")
@click.option("--samples", "per_subset", default=128, show_default=True, help="Samples per subset.")
@click.option("--max-evals", default=120, show_default=True, help="Evaluations of a joint step.")
def main(
    model: Path,
    calib: Path,
    mean: float,
    std: float,
    bits: tuple[Bits, ...],
    limit: int | None,
    per_subset: int,
    max_evals: int,
) -> None:
    """Print the losses, and how they compare with the default order on the same subset."""
    preprocessing = Preprocessing(mean=(mean,), std=(std,))
    config = QuantizationConfig(preprocessing=preprocessing, max_evaluations=max_evals, workers=1).resolved()
    prepared = prepare(load(model))
    samples = read_samples(prepared, calib, preprocessing, limit, lambda done: None)
    heads = [", ".join(order) for order in ORDERS]
    losses = Table("loss", *heads, box=box.MARKDOWN)
    ratios = Table(f"of {', '.join(DEFAULT)}", *heads, box=box.MARKDOWN)
    for weights, activations in bits:
        name = f"W{weights}A{activations}"
        click.echo(name, err=True)
        options = replace(config, weight_bits=weights, activation_bits=activations)
        found = measure(prepared, samples, options, per_subset)
        losses.add_row(name, *(_spread(found[order], 5) for order in ORDERS))
        ratios.add_row(name, *(_spread(found[order] / found[DEFAULT], 2) for order in ORDERS))
    console = Console(width=180)
    console.print(losses)
    console.print(ratios)


if __name__ == "__main__":
    main()
