"""The landscape of a model's loss, from files to files: figures, and the numbers behind them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from onnx_lapq._version import __version__
from onnx_lapq.calibration.samples import Samples
from onnx_lapq.common.extras import require_extra
from onnx_lapq.common.records import to_json
from onnx_lapq.common.whole_files import check_writable, write_whole
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError, OutputError
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.placement.layer_bits import check_patterns
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.network.samples import read_samples
from onnx_lapq.progress import Clock, Observer, silent
from onnx_lapq.stages.rewriting.equalization import equalize
from onnx_lapq.study.calibration_size import SizePoint, hold_out, measure_sizes
from onnx_lapq.study.extent import Extent
from onnx_lapq.study.landscape_view import View, look

__all__ = ["Image", "Landscape", "check_folder", "landscape_file", "output_files"]

Image = Literal["png", "svg"]

_FIGURES = ("surface", "quadratic", "errors", "hessian", "coupling", "sizes")


@dataclass(frozen=True, eq=False)
class Landscape:
    """Everything that was measured.

    Attributes:
        version: Of onnx-lapq.
        model: The model file.
        views: One for each pair of bit widths.
        sizes: What the number of calibration samples does.
    """

    version: str
    model: str
    views: tuple[View, ...]
    sizes: tuple[SizePoint, ...]

    def to_json(self) -> str:
        """Indented JSON with the field names of this class, in this order."""
        return to_json(self)

    def to_npz(self) -> bytes:
        """The arrays of the views as ``.npz``, with names such as ``w4a4.hessian``."""
        file = io.BytesIO()
        arrays: dict[str, Any] = {name: array for view in self.views for name, array in _arrays(view)}
        np.savez_compressed(file, **arrays)
        return file.getvalue()


def landscape_file(
    model: Path,
    calibration: Path,
    folder: Path,
    configs: Sequence[QuantizationConfig],
    extent: Extent,
    *,
    sizes: Sequence[int] = (),
    test: Path | None = None,
    image: Image = "png",
    observer: Observer = silent,
) -> tuple[Landscape, list[Path]]:
    """Measure and draw the loss of a quantized model around its layer-wise step sizes.

    Args:
        model: The float ONNX model.
        calibration: A folder of images or arrays, or one ``.npz``.
        folder: Where the files go; made if it is missing.
        configs: Options, one for each pair of bit widths; they share samples and preprocessing.
        extent: How far and how finely to look.
        sizes: Numbers of calibration samples to compare; none leaves that figure out.
        test: What to judge these on; without it every fifth calibration sample is held out.
        image: Format of the figures.
        observer: Told of progress.

    Returns:
        What was measured, and the files written.

    Raises:
        ConfigError: Bits or weights are to be chosen or changed, which a landscape does not do.
        InputError: The model, the samples, an option or the folder is no good.
        RunError: Onnxruntime failed on sound input.
    """
    _check(configs)
    require_extra("report", "matplotlib")
    clock = Clock(observer)
    with clock.phase("prepare"):
        prepared = prepare(load(model), fold_codes=configs[0].fold_codes, values=configs[0].feeding().values)
        for config in configs:
            check_patterns(prepared, config.placement_options())
    first = configs[0]
    with clock.phase("samples") as tick:
        samples = read_samples(
            prepared, calibration, first.preprocessing, first.samples, tick, first.feeding()
        )
        pool, held_out = samples, samples
        if sizes and test is None:
            pool, held_out = hold_out(samples)
        elif test is not None:
            held_out = read_samples(prepared, test, first.preprocessing, None, tick, first.feeding())
    networks = [_equalized(prepared, pool, config) for config in configs]
    points = [
        point
        for network, config in zip(networks, configs, strict=True)
        if sizes
        for point in measure_sizes(network, pool, held_out, sizes, config, clock)
    ]
    views = _views(networks, samples, configs, extent, clock)
    found = Landscape(__version__, str(model), tuple(views), tuple(points))
    with clock.phase("write"):
        return found, _write(found, folder, image)


def output_files(folder: Path, image: Image) -> list[Path]:
    """What a landscape may write; the last one with ``sizes`` only."""
    numbers = [folder / "landscape.json", folder / "landscape.npz"]
    return [*numbers, *(folder / f"{name}.{image}" for name in _FIGURES)]


def check_folder(folder: Path, image: Image) -> None:
    """Refuse a folder before the work begins; one that is missing is made when there is something to write.

    Raises:
        OutputError: It is a file, or it or its files cannot be written.
    """
    try:
        missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    if missing and missing[-1].exists():
        raise OutputError(f"{missing[-1]}: is not a folder; choose another folder")
    for path in missing[-1:] or output_files(folder, image):
        check_writable(path)


def _check(configs: Sequence[QuantizationConfig]) -> None:
    for config in configs:
        if config.chooses_bits:
            raise ConfigError("a landscape is that of given bits; leave out --bits auto and size_budget")
        if config.transform != "none":
            raise ConfigError(f"a landscape has no --transform {config.transform}; leave it out")


def _equalized(prepared: ir.Model, samples: Samples, config: QuantizationConfig) -> ir.Model:
    """The network with even channels, where the options ask for them."""
    if not config.equalize:
        return prepared
    even = prepared.clone()
    equalize(even, samples, config)
    return even


def _views(
    networks: Sequence[ir.Model],
    samples: Samples,
    configs: Sequence[QuantizationConfig],
    extent: Extent,
    clock: Clock,
) -> list[View]:
    """The views; all look at the step sizes that bend the loss most at the fewest bits."""
    found: dict[int, View] = {}
    first: View | None = None
    for index in sorted(
        range(len(configs)), key=lambda at: configs[at].weight_bits + configs[at].activation_bits
    ):
        found[index] = look(networks[index], samples, configs[index], extent, clock, first)
        first = first or found[index]
    return [found[index] for index in range(len(configs))]


def _write(found: Landscape, folder: Path, image: Image) -> list[Path]:
    from onnx_lapq.study.landscape_figures import draw_landscape

    contents = {"landscape.json": found.to_json().encode(), "landscape.npz": found.to_npz()}
    contents |= draw_landscape(found.views, found.sizes, image)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def _arrays(view: View) -> list[tuple[str, np.ndarray]]:
    arrays = {
        "quantizers": np.array(view.quantizers),
        "step_sizes": view.step_sizes,
        "gradient": view.bends.gradient,
        "curvatures": view.bends.curvature,
        "chosen": view.chosen,
        "hessian": view.hessian.values,
        "hessian_errors": view.hessian.errors,
        "pair": np.array(view.pair),
        "axis": view.axis,
        "surface": view.surface,
        "p": np.array(view.fit.samples),
    }
    return [(f"{view.name}.{name}", array) for name, array in arrays.items()]
