"""What a run gives: the quantized model and its record."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir

from onnx_lapq.common.whole_files import check_writable, write_whole
from onnx_lapq.errors import OutputError
from onnx_lapq.evaluation.verification import Expectation, verify
from onnx_lapq.graph.saving import data_path, describe_model, write_model
from onnx_lapq.report.pictures import FindBoxes, Picture
from onnx_lapq.report.record import Report
from onnx_lapq.report.tensors import Histogram

__all__ = ["QuantizationResult", "check_output", "output_files", "page_path", "report_path"]


@dataclass(frozen=True)
class QuantizationResult:
    """The quantized model, not yet written.

    Attributes:
        ir_model: The model in onnx-ir's form.
        report: The record of the run; its ``output`` is None until the model is saved.
        histograms: The values of every quantized tensor, for the page; empty without ``config.report``.
        expected: What the written file must compute; None without ``config.verify``.
        pictures: Samples that are images, for the page.
        find_boxes: Finds the boxes in the outputs on one image, for the page; None where nothing does.
    """

    ir_model: ir.Model
    report: Report
    histograms: tuple[Histogram, ...] = ()
    expected: Expectation | None = None
    pictures: tuple[Picture, ...] = ()
    find_boxes: FindBoxes | None = None

    @property
    def model(self) -> onnx.ModelProto:
        """The model in ONNX's own form, with all its tensors inside; made anew each time."""
        return ir.to_proto(ir.external_data.load_to_model(self.ir_model.clone()))

    def save(self, path: Path | str) -> Report:
        """Write the model, and its record beside it as ``path.report.json``; each is whole or not there.

        With ``config.report`` also ``path.report.html``, the record for a person.

        Args:
            path: The ``.onnx`` file; above 2 GB its tensors go into ``path.data``.

        Returns:
            The record as written, which now names the output.

        Raises:
            OutputError: A file cannot be written, or is the float model.
            RunError: With ``config.verify``: plain onnxruntime computes something else from the file than the
                search did; what lay there before is left.
        """
        path = Path(path)
        check_output(path)
        source = self.report.model.path
        if source is not None and _is_same_file(path, Path(source)):
            raise OutputError(f"{path}: that is the float model; give another path")
        write_model(path, self.ir_model, self._verify)
        report = replace(self.report, output=describe_model(path))
        write_whole(report_path(path), report.to_json().encode())
        if self.histograms:
            from onnx_lapq.report.page import report_page

            page = report_page(report, self.histograms, self.pictures, self.find_boxes)
            write_whole(page_path(path), page.encode())
        return report

    def _verify(self, written: Path) -> None:
        if self.expected is not None:
            verify(written, self.expected)


def _is_same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def check_output(path: Path) -> None:
    """Refuse an output path before the work begins.

    Raises:
        OutputError: The model or its record cannot be written there.
    """
    for file in output_files(path):
        check_writable(file)


def output_files(output: Path) -> Iterator[Path]:
    """What a run writes: the model, its tensors where they are above 2 GB, and the records."""
    yield output
    yield data_path(output)
    yield report_path(output)
    yield page_path(output)


def report_path(output: Path) -> Path:
    """Where the record of a run goes: beside the model."""
    return output.with_name(output.name + ".report.json")


def page_path(output: Path) -> Path:
    """Where the record for a person goes: beside the model."""
    return output.with_name(output.name + ".report.html")
