"""What it costs a model when each tensor alone is quantized: the table of a command, and its page."""

from dataclasses import dataclass, replace
from pathlib import Path

from onnx_lapq._version import __version__
from onnx_lapq.common.extras import require_extra
from onnx_lapq.common.records import to_json
from onnx_lapq.common.whole_files import check_writable, write_whole
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.job import checked, open_job, set_up_run
from onnx_lapq.method.combined_loss import describe
from onnx_lapq.method.parts import Part
from onnx_lapq.progress import Clock, Observer, silent
from onnx_lapq.stages.found import Found
from onnx_lapq.stages.sensitivity import Sensitivity, measure_alone

__all__ = ["SensitivityTable", "sensitivity_file"]


@dataclass(frozen=True)
class SensitivityTable:
    """What was measured.

    Attributes:
        version: Of onnx-lapq.
        model: The model file.
        weight_bits: As the options give them.
        activation_bits: Likewise.
        loss_parts: What the loss looks at, each with the name of its loss.
        samples: Samples that each tensor was tried on.
        tensors: The ones that cost most first.
    """

    version: str
    model: str
    weight_bits: int
    activation_bits: int
    loss_parts: tuple[Part, ...]
    samples: int
    tensors: tuple[Sensitivity, ...]

    def to_json(self) -> str:
        """Indented JSON with the field names of this class, in this order."""
        return to_json(self)

    @property
    def loss(self) -> str:
        """What the loss is, in words."""
        return describe(self.loss_parts)


def sensitivity_file(
    model: Path,
    calibration: Path,
    config: QuantizationConfig,
    page: Path | None = None,
    observer: Observer = silent,
) -> SensitivityTable:
    """Quantize each tensor of a model alone, and see what it costs.

    Args:
        model: The float ONNX model.
        calibration: A folder of images or arrays, or one ``.npz``.
        config: Options.
        page: Where a page with a plot goes; None writes none.
        observer: Told of progress.

    Raises:
        ConfigError: Bits are to be chosen.
        InputError: The model, the samples or an option is no good.
        OutputError: The page cannot be written.
        RunError: Onnxruntime failed on sound input.
    """
    if config.chooses_bits:
        raise ConfigError("a sensitivity is that of given bits; leave out --bits auto and size_budget")
    if page is not None:
        require_extra("report", "matplotlib", "jinja2")
        check_writable(page)
    config = checked(config)
    job = open_job(model, calibration, config, Clock(observer))
    nearest = replace(config, rounding="nearest")  # as `measure_alone` rounds
    bench, _ = set_up_run(job, nearest, Found(), lambda found: None)
    measured, samples = measure_alone(bench)
    found = SensitivityTable(
        __version__,
        str(model),
        config.weight_bits,
        config.activation_bits,
        bench.loss.parts,
        samples,
        tuple(sorted(measured, key=lambda one: -one.loss)),
    )
    if page is not None:
        from onnx_lapq.study.sensitivity_page import sensitivity_page

        write_whole(page, sensitivity_page(found).encode())
    return found
