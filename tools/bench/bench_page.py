"""Write docs/measurements/cost.md from the log of measured runs.

python tools/bench/bench_page.py
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from bench_log import LOG, Cost, Measured, read

PAGE = Path(__file__).parents[2] / "docs" / "measurements" / "cost.md"

_HEAD = """\
# Cost, measured

<!-- Written by tools/bench/bench_page.py from tools/bench/runs.jsonl. -->

What a whole run takes, over time. `tools/bench/bench_run.py` measures it on any model and folder of samples,
with the options of `onnx-lapq`, and adds a line to the log of this page:

<!-- not run: takes minutes -->
```console
$ python tools/bench/bench_run.py demo/model.onnx demo/calib --mean 0.2860 --std 0.3530
$ python tools/bench/bench_page.py
```

- **A float pass** is onnxruntime on all cores with the float model over the same samples: the median of five,
  before, between and after both tools.
- **Load** is the load average when the run began: the work of others, which stretches all times. It is near 0
  on a quiet machine.
- **Passes** are the seconds of the run on the clock, in float passes.
- **Time** and **memory** are those of the run, beside those of `quantize_static` (QDQ, min-max) on the same
  samples. Each tool has a process of its own, and begins with the files of the samples.
"""
_HEADING = ("date", "commit", "load", "options", "float pass", "passes", "most of them", "time", "memory")
_LARGEST = 4
"""Phases that are named."""


def cost_page(runs: Sequence[Measured]) -> str:
    """The page as Markdown: a table for each model and machine."""
    kinds = groupby(sorted(runs, key=_kind), _kind)
    return "\n".join([_HEAD, *(_table(kind, list(group)) for kind, group in kinds)])


def _kind(run: Measured) -> tuple[str, int, str]:
    return run.model, run.samples, run.machine


def _table(kind: tuple[str, int, str], runs: Sequence[Measured]) -> str:
    model, samples, machine = kind
    lines = [_HEADING, ("---",) * len(_HEADING), *map(_row, runs)]
    rows = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join((f"## {model}", "", f"{samples} samples; {machine}.", "", *rows, ""))


def _row(run: Measured) -> tuple[str, ...]:
    largest = sorted(run.phases.items(), key=lambda pair: -pair[1])[:_LARGEST]
    return (
        run.date,
        run.commit,
        f"{run.load:.1f}",
        run.options,
        f"{run.float_pass:.3g} s",
        f"{run.passes:.0f}",
        ", ".join(f"{phase} {passes:.0f}" for phase, passes in largest),
        ", ".join(_times(run)),
        ", ".join(f"{cost.peak_mib} MiB" for cost in _both(run)),
    )


def _times(run: Measured) -> Iterator[str]:
    yield from (f"{cost.seconds:.1f} s" for cost in _both(run))
    if run.ratio is not None:
        yield f"ratio {run.ratio:.1f}"


def _both(run: Measured) -> list[Cost]:
    return [cost for cost in (run.ours, run.static) if cost is not None]


if __name__ == "__main__":
    PAGE.write_text(cost_page(read(LOG)))
    sys.stdout.write(f"wrote {PAGE}\n")
