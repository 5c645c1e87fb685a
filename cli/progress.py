"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from onnx_lapq.cli.logs import LogFormat, json_line, printable
from onnx_lapq.progress import Observer, Phase, Progress, silent

__all__ = ["show_progress"]

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def show_progress(*, quiet: bool, form: LogFormat = "text") -> Iterator[Observer]:
    """An observer that shows a run on standard error, for the time of the run."""
    console = Console(stderr=True)
    if quiet:
        yield silent
    elif console.is_terminal and form == "text":
        with _bars(console) as bars:
            yield _Bars(bars)
    else:
        lines = _Lines(_line if form == "text" else _json)
        yield lines
        lines.end()


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]:>9}"),
        TextColumn("{task.fields[loss]:<13}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
    )


class _Bars:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks = {}  # type: ignore[var-annotated]
        self._phase: Phase | None = None

    def __call__(self, progress: Progress) -> None:
        if progress.said is not None:
            self._bars.console.print(
                f"{progress.phase}: {printable(progress.said)}", markup=False, highlight=False
            )
            return
        if progress.phase != self._phase:
            for task in self._tasks.values():
                finished = self._bars.tasks[task].completed or 1
                self._bars.update(task, total=finished, completed=finished, left="")
            self._begin(progress)
        task = self._tasks[progress.phase]
        self._bars.update(
            task,
            completed=progress.done,
            total=progress.total,
            count=_count(progress),
            loss="" if progress.loss is None else f"loss {progress.loss:.5g}",
            left=_left(progress, self._bars.tasks[task].elapsed or 0.0),
        )

    def _begin(self, progress: Progress) -> None:
        """A bar for the phase; one that is there already, of an earlier run, begins again."""
        self._phase = progress.phase
        if progress.phase in self._tasks:
            self._bars.reset(self._tasks[progress.phase])
        else:
            self._tasks[progress.phase] = self._bars.add_task(
                progress.phase, total=progress.total, count="", loss="", left=""
            )


class _Lines:
    """One line when a phase begins and ends, and every few seconds in between."""

    def __init__(self, line: Callable[[Progress, float, bool], str]) -> None:
        self._line = line
        self._last: Progress | None = None
        self._began = self._shown = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.said is not None:
            self.end()
            click.echo(self._line(progress, 0.0, True), err=True)
            return
        if self._last is None or progress.phase != self._last.phase:
            self.end()
            self._began = self._shown = now
        elif now - self._shown > _SECONDS_BETWEEN_LINES:
            self._shown = now
            click.echo(self._line(progress, now - self._began, False), err=True)
        self._last = progress

    def end(self) -> None:
        """Say how the last phase ended."""
        if self._last is not None:
            click.echo(self._line(self._last, time.monotonic() - self._began, True), err=True)
        self._last = None


def _line(progress: Progress, seconds: float, finished: bool) -> str:
    if progress.said is not None:
        return f"{progress.phase}: {printable(progress.said)}"
    parts = [progress.phase + ":", _count(progress)]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.5g}")
    parts.append(f"{seconds:.1f} s")
    if not finished:
        parts.append(_left(progress, seconds))
    return " ".join(part for part in parts if part) + (", done" if finished else "")


def _json(progress: Progress, seconds: float, finished: bool) -> str:
    fields = {**asdict(progress), "seconds": round(seconds, 3), "finished": finished}
    return json_line("INFO", _line(progress, seconds, finished), **fields)


def _left(progress: Progress, seconds: float) -> str:
    """What is left of a phase, at the pace so far."""
    if not progress.total or not progress.done:
        return ""
    left = seconds / progress.done * (progress.total - progress.done)
    return f"about {left:.0f} s left"


def _count(progress: Progress) -> str:
    if not progress.done:
        return ""
    return f"{progress.done}/{progress.total}" if progress.total else str(progress.done)
