"""The log of measured runs: one JSON object a line, oldest first."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["LOG", "Cost", "Measured", "append", "commit", "machine", "read", "today"]

LOG = Path(__file__).with_name("runs.jsonl")


@dataclass(frozen=True)
class Cost:
    """What a tool took for one model.

    Attributes:
        seconds: From the samples' files to the quantized file.
        peak_mib: Most memory of its process, in MiB.
    """

    seconds: float
    peak_mib: int


@dataclass(frozen=True)
class Measured:
    """One run of onnx-lapq, with quantize_static beside it.

    Attributes:
        date: The day, as in 2026-11-29.
        commit: The checkout, with ``-dirty`` where it has changes of its own.
        machine: Processor and cores.
        load: Other work on the machine when the run began: its load average over a minute.
        model: Name of the file, and of its folder.
        options: Bits, and what else is not by default.
        samples: How many.
        float_pass: Seconds of onnxruntime on all cores for the float model on all samples, median.
        phases: Seconds of each phase, in float passes.
        ours: What the run took.
        static: What quantize_static took; None where it failed.
    """

    date: str
    commit: str
    machine: str
    load: float
    model: str
    options: str
    samples: int
    float_pass: float
    phases: Mapping[str, float]
    ours: Cost
    static: Cost | None

    @property
    def passes(self) -> float:
        """All of the run, in float passes."""
        return self.ours.seconds / self.float_pass

    @property
    def ratio(self) -> float | None:
        """Time of the run, in that of quantize_static."""
        return None if self.static is None else self.ours.seconds / self.static.seconds


def append(log: Path, run: Measured) -> None:
    """Add a line."""
    with log.open("a") as file:
        print(json.dumps(asdict(run)), file=file)


def read(log: Path) -> list[Measured]:
    """All runs, in order."""
    return [_parsed(json.loads(line)) for line in log.read_text().splitlines()]


def _parsed(fields: dict) -> Measured:
    static = fields["static"]
    costs = {"ours": Cost(**fields["ours"]), "static": None if static is None else Cost(**static)}
    return Measured(**{**fields, **costs})


def today() -> str:
    """The day, in UTC."""
    return datetime.now(UTC).date().isoformat()


def commit() -> str:
    """What is checked out; changes of the log itself do not count."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":!{LOG.name}")
    return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=LOG.parent, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> str:
    """Name of the processor, where the system tells, and number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
