"""Write float and quantized models with inputs, for the engines that .ci/runtimes and .ci/engines run.

    PYTHONPATH=tests/support python tools/engines/make_outputs.py FOLDER    # the demo, a small transformer
    ... FOLDER --target openvino
    ... FOLDER --model model.onnx calib.npz                                 # whose samples need no options

FOLDER/NAME/ then holds float.onnx, w8a8.onnx, ... and inputs.json.
"""

import json
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import onnx
from small_models import encoder, feeds

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.calibration.samples import SampleSource
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.placement.targets import TARGETS
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.network.samples import read_samples

_DEMO = Path(__file__).parents[2] / "demo"
_QUICK = QuantizationConfig(optimizer="none", rounding="nearest")
_VARIANTS = {
    "w8a8": _QUICK,
    "w4a4": replace(_QUICK, weight_bits=4, activation_bits=4),
    "packed4": replace(_QUICK, weight_bits=4, storage="packed"),
    "packed2": replace(_QUICK, weight_bits=2, storage="packed"),
}
_INPUTS = 16


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--target", default="ort-x86", show_default=True, type=click.Choice(list(TARGETS)))
@click.option("--model", type=(Path, Path), multiple=True, metavar="MODEL CALIB", help="In place of the two.")
def main(folder: Path, target: str, model: tuple[tuple[Path, Path], ...]) -> None:
    """Write models and inputs into FOLDER."""
    for path, samples in model:
        _write(folder / path.stem, onnx.load(path), samples, replace(_QUICK, target=target))
    if model:
        return
    pixels = Preprocessing(mean=(0.2860,), std=(0.3530,))
    config = replace(_QUICK, target=target, preprocessing=pixels)
    _write(folder / "demo", onnx.load(_DEMO / "model.onnx"), _DEMO / "calib", config)
    transformer = encoder(width=128, heads=4, length=32, blocks=2)
    _write(folder / "transformer", transformer, feeds(transformer, 64), replace(_QUICK, target=target))


def _write(folder: Path, model: onnx.ModelProto, samples: SampleSource, shared: QuantizationConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "float.onnx")
    found = read_samples(prepare(load(model)), samples, shared.preprocessing, _INPUTS, lambda done: None)
    inputs = found.batch(0, _INPUTS)
    (folder / "inputs.json").write_text(json.dumps({name: _plain(values) for name, values in inputs.items()}))
    for name, config in _VARIANTS.items():
        if config.storage == "packed" and not TARGETS[shared.target].packed:
            continue
        options = replace(config, target=shared.target, preprocessing=shared.preprocessing)
        quantize(model, samples, options).save(folder / f"{name}.onnx")


def _plain(values: np.ndarray) -> dict[str, object]:
    return {"type": str(values.dtype), "shape": values.shape, "values": values.reshape(-1).tolist()}


if __name__ == "__main__":
    main()
