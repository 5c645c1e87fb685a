"""Tables of tensors and their bits, for a person."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from onnx_lapq.graph.placement.options import FLOAT_BITS
from onnx_lapq.report.bits_flags import bits_flags
from onnx_lapq.stages.found import Ladder
from onnx_lapq.stages.promotion import Promotion
from onnx_lapq.study.sensitivity import SensitivityTable

__all__ = ["names_column", "new_console", "print_ladder", "print_promotion", "print_sensitivity"]

_PIPE_WIDTH = 10_000
"""No line is broken, and no name cut, for who searches the text."""


def new_console() -> Console:
    """Where tables are printed; as wide as the terminal."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def names_column(heading: str) -> Column:
    """A column of names, which are broken where there is no room for them, never cut."""
    return Column(heading, overflow="fold")


def print_ladder(console: Console, ladder: Ladder, float_bytes: int) -> None:
    """Print the steps that took bits from weights, the cheapest first."""
    end = "until it fits" if ladder.budget is not None else "until the loss that they add is too much"
    table = Table(
        names_column("weight"), title=f"Bits of weights, cheapest steps first, {end}", title_justify="left"
    )
    for heading in ("bits", "bytes saved", "loss added", "in all", "size, of float"):
        table.add_column(heading, justify="right")
    size = ladder.bytes + sum(rung.saved for rung in ladder.rungs)
    for rung in ladder.rungs:
        size -= rung.saved
        table.add_row(
            Text(rung.layer),
            f"{rung.before} -> {rung.after}",
            str(rung.saved),
            f"{rung.added:.6f}",
            f"{rung.loss:.6f}",
            f"{size / float_bytes:.3f}",
        )
    console.print(table)


def print_promotion(console: Console, promotion: Promotion, options: Mapping[str, Any]) -> None:
    """Print the steps that raised bits, the ones that gain most for their cost first.

    Args:
        console: Where to.
        promotion: What raised them.
        options: Of the run, as its report has them.
    """
    trials = f"{len(promotion.trials)} trial{'s' if len(promotion.trials) > 1 else ''}"
    if not promotion.steps:
        console.print(f"Limits hold on {promotion.samples} at the bits asked for", markup=False)
        return
    table = Table(
        names_column("tensor"),
        "kind",
        title=f"Bits raised until the limits held on {promotion.samples}, {trials}",
        title_justify="left",
    )
    for heading in ("bits", "cost, bytes", "gain"):
        table.add_column(heading, justify="right")
    for step in promotion.steps:
        after = "float" if step.after == FLOAT_BITS else str(step.after)
        table.add_row(
            Text(step.tensor), step.kind, f"{step.before} -> {after}", str(step.cost), f"{step.gain:.3g}"
        )
    console.print(table)
    console.print(f"The same bits again: {bits_flags(promotion, options)}", markup=False, soft_wrap=True)


def print_sensitivity(found: SensitivityTable, page: Path | None) -> None:
    """Print what each tensor alone costs, the ones that cost most first."""
    console = new_console()
    title = f"Each tensor alone quantized, on {found.samples} samples"
    table = Table(names_column("tensor"), "kind", title=title, title_justify="left")
    for heading in ("bits", "loss", "SNR dB"):
        table.add_column(heading, justify="right")
    table.add_column("of", overflow="fold")
    table.add_column("layers", overflow="fold")
    for one in found.tensors:
        decibels = "-" if one.worst_db is None else f"{one.worst_db:.1f}"
        table.add_row(
            Text(one.name),
            one.kind,
            str(one.bits),
            f"{one.loss:.3g}",
            decibels,
            Text(one.worst_part or "-"),
            Text(", ".join(one.layers)),
        )
    console.print(table)
    console.print(f"Loss: {found.loss}", markup=False)
    if page is not None:
        console.print(f"Wrote {page}", markup=False, soft_wrap=True)
