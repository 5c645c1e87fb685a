"""The table at the end of a command, for a person."""

from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from onnx_lapq.cli.bits_tables import names_column, new_console, print_ladder, print_promotion
from onnx_lapq.common.short_names import short_names
from onnx_lapq.common.sizes import in_megabytes, with_unit
from onnx_lapq.graph.placement.options import FLOAT_BITS
from onnx_lapq.graph.placement.roles import FloatNode
from onnx_lapq.method.closeness import OutputScore, worst
from onnx_lapq.method.combined_loss import describe
from onnx_lapq.report.record import ModelScore, Report
from onnx_lapq.runtime.kernels import Kernel
from onnx_lapq.stages.found import StageRecord
from onnx_lapq.study.comparison_table import Row
from onnx_lapq.study.landscape import Landscape

__all__ = [
    "bits_text",
    "in_float_lines",
    "print_comparison",
    "print_landscape",
    "print_report",
    "print_scores",
]

_NAMED = 4


def print_report(report: Report, records: Sequence[Path], test: str | None = None) -> None:
    """Print what a run did: losses by stage, size, cost, warnings and files; the output is written.

    Args:
        report: Of the run.
        records: The files written beside the model.
        test: The test samples, where there are any.
    """
    output = report.output
    assert output is not None
    console = new_console()
    table = Table("stage", title=f"{report.loss} loss on the calibration samples", title_justify="left")
    for heading in ("search", "guard", "evaluations"):
        table.add_column(heading, justify="right")
    for stage in report.stages:
        if stage.stage == "p=2" or not stage.stage.startswith(("p=", "weights ")):
            table.add_row(*_stage(stage))
    console.print(table)
    if report.ladder is not None:
        print_ladder(console, report.ladder, report.model.bytes)
    if report.promotion is not None:
        print_promotion(console, report.promotion, report.options)
    console.print(f"Loss: {describe(report.loss_parts)}", markup=False)
    console.print(f"Samples: {_samples(report.calibration)}", markup=False)
    before, after = report.model.bytes, output.bytes
    console.print(f"Size: {with_unit(before)} -> {with_unit(after)} ({after / before:.2f} of float)")
    console.print(f"Beside float{_on_samples(report.compared)}: {_beside_float(report)}", markup=False)
    phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in report.seconds.items())
    console.print(f"Cost: {report.evaluations} loss evaluations; seconds: {phases}")
    for line in in_float_lines(report.in_float):
        console.print(f"In float: {line}", markup=False)
    for warning in report.warnings:
        console.print(f"Note: {warning}", markup=False)
    if report.test:
        print_scores(report.test, test)
    written = ", ".join(str(file) for file in (output.path, *records[:-1]))
    console.print(f"Wrote {written} and {records[-1]}", markup=False, soft_wrap=True)


def _on_samples(count: int) -> str:
    """Of calibration samples, which say less than new ones."""
    return f" on {count} calibration sample{'s' if count > 1 else ''}" if count else ""


def _beside_float(report: Report) -> str:
    """Closeness of the outputs, the furthest first, and the time of a run."""
    shown = [_close(part) for part in sorted(report.outputs, key=lambda part: part.lowest_db)]
    if report.latency_ratio is not None:
        shown.append(f"{report.latency_ratio:.2f} of its time on one thread")
    return "; ".join(shown) or "-"


def print_scores(scores: Sequence[ModelScore], test: str | None = None) -> None:
    """Print models side by side, and those that were compared with the first by their worst part.

    Args:
        scores: The models; the first is what the others are compared with.
        test: What they were scored on, where that should be said.
    """
    where = "" if test is None else f" on {test}"
    table = Table(names_column("model"))
    headings = ["MB", "ms", "top-1 %", "top-5 %", "cross-entropy", "KL from first", "worst SNR dB"]
    measured = any(score.metric is not None for score in scores)
    for heading in [*headings, "metric"] if measured else headings:
        table.add_column(heading, justify="right")
    names = _model_names(scores)
    for name, score in zip(names, scores, strict=True):
        furthest = worst(score.outputs)
        table.add_row(
            Text(name),
            in_megabytes(score.bytes),
            f"{score.latency_ms:.2f}",
            _number(score.top1, ".2f", 100),
            _number(score.top5, ".2f", 100),
            _number(score.cross_entropy, ".4f"),
            _number(score.kl, ".4f"),
            _number(None if furthest is None else furthest.lowest_db, ".1f"),
            *([_number(score.metric, ".4f")] if measured else []),
        )
    console = new_console()
    console.print(table)
    others = zip(names[1:], scores[1:], strict=True)
    for name, score in sorted(others, key=lambda pair: -_lowest(pair[1])):
        parts = "; ".join(_close(part) for part in sorted(score.outputs, key=lambda part: part.lowest_db))
        console.print(f"{name} beside the first{where}: {parts or '-'}", markup=False)


def _model_names(scores: Sequence[ModelScore]) -> list[str]:
    """What the models are called; one in memory has no path."""
    found = iter(short_names([Path(score.path) for score in scores if score.path]))
    return [next(found) if score.path else "quantized" for score in scores]


def _lowest(score: ModelScore) -> float:
    return min((part.lowest_db for part in score.outputs), default=float("inf"))


def _close(part: OutputScore) -> str:
    """How close a part is: "scores[4:84] 21.3 dB (row 7: 12.1), agrees 98.2 %"."""
    snr = "the same" if part.snr_db == inf else f"{_number(part.snr_db, '.1f')} dB"
    text = f"{part.label} {snr}"
    if part.worst_row is not None:
        text += f" (row {part.worst_row}: {_number(part.worst_db, '.1f')})"
    if part.agreement is None:
        return text
    if part.loss == "direction":
        return f"{text}, cosine {part.agreement:.4f}"
    return f"{text}, agrees {100 * part.agreement:.1f} %"


def print_comparison(rows: Sequence[Row], output: Path) -> None:
    """Print a comparison, a block of rows for every pair of bit widths."""
    table = Table("bits w/a", "method", "bias")
    headings = ["loss", "guard", "top-1 %", "cross-entropy", "KL from float", "worst dB", "MB", "s"]
    measured = any(row.metric is not None for row in rows)
    for heading in [*headings, "metric"] if measured else headings:
        table.add_column(heading, justify="right")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        same = following is not None and _bit_pair(row) == _bit_pair(following)
        table.add_row(
            _bit_pair(row),
            Text(row.method),
            {None: "-", True: "corrected", False: "as is"}[row.bias_correction],
            _number(row.loss, ".5f"),
            _number(row.guard_loss, ".5f"),
            _number(row.top1, ".2f", 100),
            _number(row.cross_entropy, ".4f"),
            _number(row.kl, ".4f"),
            _number(row.worst_db, ".1f"),
            in_megabytes(row.bytes),
            _number(row.seconds, ".1f"),
            *([_number(row.metric, ".4f")] if measured else []),
            end_section=not same,
        )
    console = new_console()
    console.print(table)
    console.print("loss, guard: on the calibration samples; the columns right of them: on the test samples")
    console.print(f"Wrote {output}.json and {output}.csv", markup=False, soft_wrap=True)


def _bit_pair(row: Row) -> str:
    return f"{bits_text(row.weight_bits)}/{bits_text(row.activation_bits)}"


def print_landscape(found: Landscape, files: Sequence[Path]) -> None:
    """Print how far step sizes depend on each other, and what the number of samples does."""
    console = new_console()
    table = Table("bits", "surface over")
    for heading in ("loss", "off diagonal", "its norm", "log10 |K|", "in the Hessian", "evaluations"):
        table.add_column(heading, justify="right")
    for view in found.views:
        table.add_row(
            view.name,
            Text(" and ".join(view.pair_names)),
            f"{view.bends.centre:.6f}",
            view.coupling.text,
            f"{view.coupling.norm:.3g}",
            f"{view.curvature.log10:.1f}",
            f"{len(view.chosen)} of {len(view.quantizers)}",
            str(view.evaluations),
        )
    console.print(table)
    if any(len(view.chosen) < len(view.quantizers) for view in found.views):
        console.print(
            "The Hessian holds the step sizes that bend the loss most at the fewest bits; more: --hessian"
        )
    if found.sizes:
        table = Table("bits", title="Held-out samples against calibration samples", title_justify="left")
        for heading in ("samples", "loss", "top-1 %"):
            table.add_column(heading, justify="right")
        for point in found.sizes:
            bits = f"w{point.weight_bits}a{point.activation_bits}"
            accuracy = _number(point.accuracy, ".2f", 100)
            table.add_row(bits, str(point.samples), f"{point.loss:.6f}", accuracy)
        console.print(table)
    console.print(f"Wrote {', '.join(str(file) for file in files)}", markup=False, soft_wrap=True)


def in_float_lines(nodes: Sequence[FloatNode | Kernel]) -> list[str]:
    """Nodes in float, one line for each reason."""
    by_reason: dict[str, list[FloatNode | Kernel]] = {}
    for node in nodes:
        by_reason.setdefault(node.reason, []).append(node)
    return [f"{_names(found)}: {reason}" for reason, found in by_reason.items()]


def _names(nodes: Sequence[FloatNode | Kernel]) -> str:
    shown = ", ".join(f"{node.op_type} {node.name}" for node in nodes[:_NAMED])
    return shown if len(nodes) <= _NAMED else f"{shown} and {len(nodes) - _NAMED} more"


def bits_text(bits: int | None) -> str:
    """A number of bits, ``float`` for those of float."""
    return {None: "-", FLOAT_BITS: "float"}.get(bits, str(bits))


def _samples(record: dict[str, Any]) -> str:
    """What reached the model, in a line."""
    done = record["preprocessing"]
    shaped = [] if done is None else _shaped(done)
    inputs = [f"{name} {_range(at)}" for name, at in record["inputs"].items()]
    text = ", ".join([f"{record['count']} from {record['path']}", *shaped, *inputs])
    if done is not None:
        mean, std = (",".join(f"{value:g}" for value in done[name]) for name in ("mean", "std"))
        text += f" = (pixel * {done['scale']:.6g} - {mean}) / {std}"
    return text


def _shaped(done: dict[str, Any]) -> Iterator[str]:
    """What an image went through before its pixels became values."""
    resize, crop = done["resize"], done["crop"]
    if done["letterbox"]:
        yield f"letterbox of {_size(resize)}"
    elif resize is not None:
        yield f"shorter side to {resize}" if isinstance(resize, int) else f"resized to {_size(resize)}"
    if crop is not None:
        yield f"middle {_size(crop)} cut out"


def _size(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def _range(about: dict[str, Any]) -> str:
    """What the values of an input reach, where it has any: the first call of a streaming model has none."""
    return "in [{:.4g}, {:.4g}]".format(*about["range"]) if "range" in about else "without values"


def _stage(stage: StageRecord) -> tuple[str, str, str, str]:
    return stage.stage, f"{stage.loss:.6f}", _number(stage.guard_loss, ".6f"), str(stage.evaluations)


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "-" if value is None else format(factor * value, form)
