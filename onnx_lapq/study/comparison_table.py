"""The table of a comparison: on disk after every row, so that an interrupted one can go on."""

import csv
import hashlib
import io
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from onnx_lapq._version import __version__
from onnx_lapq.common.whole_files import check_writable, write_whole
from onnx_lapq.errors import CalibrationError, OutputError

__all__ = ["Row", "Table", "digest", "fingerprint", "table_files"]

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class Row:
    """One model of the table.

    Attributes:
        method: ``float``, a method's name, or the file of another tool's model.
        weight_bits: 2 to 8 or 32; None for another tool's model.
        activation_bits: Likewise.
        bytes: Size of the file.
        latency_ms: Of one sample on one thread.
        top1: Share of hits on the test samples; None without labels or class scores.
        top5: Likewise.
        cross_entropy: Mean on the test samples, in nats.
        kl: Mean divergence from the float model on the test samples, in nats.
        worst_db: SNR of the output, or part of one, furthest from the float model's; None where nothing
            differs.
        metric: What the user's own metric gives; None without one.
        bias_correction: None where we quantized no weight.
        loss: On the calibration samples that the search minimises; None where we quantized nothing.
        guard_loss: On the calibration samples that only guard.
        evaluations: Loss evaluations of the run.
        seconds: Of the run.
    """

    method: str
    weight_bits: int | None
    activation_bits: int | None
    bytes: int
    latency_ms: float
    top1: float | None
    top5: float | None
    cross_entropy: float | None
    kl: float | None
    worst_db: float | None
    metric: float | None = None
    bias_correction: bool | None = None
    loss: float | None = None
    guard_loss: float | None = None
    evaluations: int | None = None
    seconds: float | None = None


class Table:
    """Rows in order, kept as ``OUTPUT.json`` and ``OUTPUT.csv``.

    The JSON file also has, as ``kept``, rows of earlier calls that this one has not asked for.

    Args:
        output: The files without their suffix. Rows that are there already and stem from the same sources
            are reused when they are asked for.
        sources: Files and folders that every row depends on.
        on_row: Called with the number of rows done so far.
        metric: Name of the user's own metric, which rows depend on too.

    Raises:
        InputError: The files cannot be written, or a source is missing.
    """

    def __init__(
        self,
        output: Path,
        sources: Sequence[Path],
        on_row: Callable[[int], None],
        metric: str | None = None,
    ) -> None:
        self._json, self._csv = table_files(output)
        check_writable(self._json)
        check_writable(self._csv)
        self._about = {
            "schema": SCHEMA_VERSION,
            "version": __version__,
            "sources": {str(path): fingerprint(path) for path in sources},
            "metric": metric,
        }
        self._known = self._read()
        self._rows: dict[str, Row] = {}
        self._on_row = on_row

    @property
    def rows(self) -> list[Row]:
        """All rows that were added."""
        return list(self._rows.values())

    def add(self, key: str, make: Callable[[], Row]) -> None:
        """Add a row, from the files if it is there, and write them.

        Args:
            key: What the row depends on beside the sources.
            make: Computes it.
        """
        self._rows[key] = self._known.get(key) or make()
        self._write()
        self._on_row(len(self._rows))

    def _write(self) -> None:
        """Rows that are known but not asked for (yet) are kept apart, for the next time."""
        kept = {key: row for key, row in self._known.items() if key not in self._rows}
        content = {**self._about, "rows": _keyed(self._rows), "kept": _keyed(kept)}
        write_whole(self._json, (json.dumps(content, indent=2) + "\n").encode())
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self._rows.values())
        write_whole(self._csv, text.getvalue().encode())

    def _read(self) -> dict[str, Row]:
        try:
            content = json.loads(self._json.read_text())
            if {key: content[key] for key in self._about} != self._about:
                logger.warning("%s: is of other files or another version; it will be replaced", self._json)
                return {}
            return {row.pop("key"): Row(**row) for row in [*content["rows"], *content["kept"]]}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise OutputError(
                f"{self._json}: is no table of a comparison; give another --output, or remove it"
            ) from error


def table_files(output: Path) -> tuple[Path, Path]:
    """The table of a comparison, as JSON and as CSV."""
    return output.with_name(f"{output.name}.json"), output.with_name(f"{output.name}.csv")


def _keyed(rows: dict[str, Row]) -> list[dict[str, Any]]:
    return [{"key": key, **asdict(row)} for key, row in rows.items()]


def digest(value: Any) -> str:
    """A short name for options."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def fingerprint(path: Path) -> str:
    """Of a file its content; of a folder the names, sizes and times of its files.

    Raises:
        CalibrationError: There is nothing of this name.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise CalibrationError(f"{path}: there is no such file or folder; check the path")
    files = [(file, file.stat()) for file in sorted(path.rglob("*")) if file.is_file()]
    return digest([(str(file.relative_to(path)), at.st_size, at.st_mtime_ns) for file, at in files])
