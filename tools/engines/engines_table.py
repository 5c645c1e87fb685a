"""One table of what engines printed: a row for each model file, a column for each engine.

    python tools/engines/engines_table.py RUN.json ... > table.md

Each RUN holds what a runner of this folder printed; the others are compared with the first. A cell has

- the time of one sample, of float in milliseconds, of the others as a share of float in the same engine;
- the signal-to-noise ratio beside the float model in the first engine;
- how far the outputs are from those of the first engine: the largest difference as a share of their spread.

Exit code 1 where an engine does not run a file, or loses more than 1 dB beside the first.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

_LOST = 1.0
"""Decibels."""

Row = Mapping[str, Any]
Rows = dict[tuple[str, str], Row]


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(runs: tuple[Path, ...]) -> None:
    """Print the table of RUNS."""
    found = [json.loads(path.read_text()) for path in runs]
    engines = [_by_file(run["rows"]) for run in found]
    print(f"| model, file | {' | '.join(run['engine'] for run in found)} |")
    print("| --- | --- |" + " --- |" * (len(found) - 1))
    bad = []
    for key in engines[0]:
        cells = [_cell(engine, engines[0], key) for engine in engines]
        print(f"| {', '.join(key)} | {' | '.join(cells)} |")
        for run, engine in zip(found, engines, strict=True):
            bad += [f"{', '.join(key)} in {run['engine']}"] if _is_bad(engine, engines[0], key) else []
    for line in bad:
        print(f"not as in {found[0]['engine']}: {line}", file=sys.stderr)
    sys.exit(1 if bad else 0)


def _by_file(rows: list[Row]) -> Rows:
    """Rows by model and file, the float model first."""
    ordered = sorted(rows, key=lambda row: (row["model"], row["variant"] != "float", row["variant"]))
    return {(row["model"], row["variant"]): row for row in ordered}


def _cell(engine: Rows, first: Rows, key: tuple[str, str]) -> str:
    row = engine.get(key, {"error": "not run"})
    if "error" in row:
        return row["error"].replace("\n", " ").replace("|", "/")[:80]
    plain = engine[key[0], "float"]
    time = f"{row['ms']:.3f} ms" if row is plain else f"{row['of_float']:.2f}"
    noise = [] if row is plain else [f"{_snr(row, first[key[0], 'float']):.1f} dB"]
    return "; ".join([time, *noise, *([] if engine is first else [_difference(row, first[key])])])


def _is_bad(engine: Rows, first: Rows, key: tuple[str, str]) -> bool:
    plain, row = first[key[0], "float"], engine.get(key, {"error": "not run"})
    if "error" in row:
        return "error" not in first[key]
    return key[1] != "float" and _snr(row, plain) < _snr(first[key], plain) - _LOST


def _snr(row: Row, plain: Row) -> float:
    signal, noise = np.square(plain["output"]).sum(), np.square(_apart(row, plain)).sum()
    return float(10 * np.log10(signal / noise)) if noise else np.inf


def _difference(row: Row, other: Row) -> str:
    apart = np.abs(_apart(row, other)).max()
    return f"{apart / np.std(other['output']):.1g}" if apart else "same"


def _apart(row: Row, other: Row) -> np.ndarray:
    return np.subtract(row["output"], other["output"])


if __name__ == "__main__":
    main()
