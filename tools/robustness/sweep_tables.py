"""What came of the models of tools/robustness/sweep_models.py: tables in Markdown."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import click

__all__ = ["Ending", "Row", "print_tables"]

_KINDS = ("done", "refused", "failed")
_LESS_DB, _SLOWER = 1.0, 1.1
_TIMED_US = 5.0
"""Of the float model; what is quicker is the call itself, and its ratio is noise."""


@dataclass(frozen=True)
class Ending:
    """How a tool did with a model.

    Attributes:
        kind: ``done``, ``refused`` in a sentence, ``failed``, or ``not run``: onnxruntime runs no such model.
        text: What it said.
        snr: Of the worst float output of the written model, in dB.
        us: Microseconds of a run of the written model.
        codes: Values that the written model turns into codes; none where a tool only copied the model.
    """

    kind: str
    text: str = ""
    snr: float = 0.0
    us: float = 0.0
    codes: int = 0


@dataclass(frozen=True)
class Row:
    """One model: its name, microseconds of the float model, and how both tools did."""

    name: str
    us: float | None
    ours: Ending
    theirs: Ending


def print_tables(rows: Sequence[Row]) -> None:
    """Counts, reasons, and the models that are worse than the other tool's."""
    run = [row for row in rows if row.ours.kind != "not run"]
    click.echo(f"{len(rows)} models, {len(rows) - len(run)} that onnxruntime does not run")
    _table(
        "this tool \\ quantize_static",
        _KINDS,
        [
            (
                kind,
                *(sum(row.ours.kind == kind and row.theirs.kind == other for row in run) for other in _KINDS),
            )
            for kind in _KINDS
        ],
    )
    for kind in ("refused", "failed"):
        reasons = Counter(_reason(row.ours.text) for row in run if row.ours.kind == kind)
        _table(f"{kind} by this tool", ["models"], reasons.most_common())
    for what, some in (("quantizes", True), ("only copies", False)):
        refused = [row for row in run if row.ours.kind == "refused" and row.theirs.kind == "done"]
        reasons = Counter(_reason(row.ours.text) for row in refused if bool(row.theirs.codes) == some)
        _table(f"refused, and quantize_static {what} it", ["models"], reasons.most_common())
    reasons = Counter(row.theirs.text[:60] for row in run if row.theirs.kind == "failed")
    _table("failed in quantize_static", ["models"], reasons.most_common(10))
    both = [row for row in run if row.us is not None]
    timed = [row for row in both if row.us and row.us >= _TIMED_US]
    noisier = [row for row in both if row.ours.snr < row.theirs.snr - _LESS_DB]
    slower = [row for row in timed if row.ours.us > _SLOWER * row.theirs.us]
    _verdict(f"SNR at least theirs - {_LESS_DB:g} dB", noisier, both)
    _verdict(f"latency at most {_SLOWER:g} of theirs, float at least {_TIMED_US:g} us", slower, timed)
    figures = ["float us", "SNR", "theirs", "us", "theirs"]
    rest = [row for row in both if row in noisier or row in slower]
    _table("worse than quantize_static", figures, [_figures(row) for row in rest])


def _verdict(what: str, worse: Sequence[Row], judged: Sequence[Row]) -> None:
    good = len(judged) - len(worse)
    click.echo(f"{what}: {good} of {len(judged)} ({good / max(1, len(judged)):.1%})")


def _figures(row: Row) -> tuple[object, ...]:
    values = (row.us or 0.0, row.ours.snr, row.theirs.snr, row.ours.us, row.theirs.us)
    return row.name, *(f"{value:.1f}" for value in values)


def _reason(text: str) -> str:
    """A message without names and numbers, so that those of one kind count as one."""
    return re.sub(r"\d+(\.\d+)?", "N", re.sub(r"'[^']*'", "'X'", text.removeprefix("MODEL: ")))


def _table(name: str, headings: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    lines = list(lines)
    if lines:
        click.echo(f"\n| {' | '.join([name, *headings])} |\n| --- |{' ---: |' * len(headings)}")
        click.echo("\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n")
