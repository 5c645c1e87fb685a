"""The last stage: empirical bias correction (docs/method.md, "Bias correction")."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.rounding.bias_correction import mean_of_codes
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.encoder import FixedCodes
from onnx_lapq.network.layers import Layer
from onnx_lapq.network.network import Network
from onnx_lapq.network.step_sizes import Steps
from onnx_lapq.stages.found import Found, Save
from onnx_lapq.stages.measure import is_worse, measured

__all__ = ["correct_biases", "correctable", "matched_codes"]


def correct_biases(bench: Bench, found: Found, save: Save) -> Found:
    """Let biases take up what is left of the shift of each layer's mean output, unless a loss rises.

    Compensated rounding has matched the means already (docs/measurements/rounding.md).
    """
    layers = correctable(bench.network) if bench.config.rounding == "nearest" else []
    if not layers or bench.out_of_time():
        return found
    bench = bench.with_codes(found.codes)
    with bench.clock.phase("bias", len(layers)) as tick:
        codes = matched_codes(bench, found.steps, tick)
        stage = measured(bench.with_codes(codes), "bias", found.steps)
    if is_worse(stage, found.stages[-1]):
        return replace(found, evaluations=bench.evaluations)
    return replace(found, codes=codes, stages=(*found.stages, stage), evaluations=bench.evaluations)


def correctable(network: Network) -> list[Layer]:
    """Layers with a bias to correct, in topological order."""
    layers = network.layers.values()
    return [layer for layer in layers if layer.bias is not None and layer.bias.windows is not None]


def matched_codes(bench: Bench, steps: Steps, on_layer: Callable[[int], None]) -> dict[str, FixedCodes]:
    """Codes of all correctable layers, with the biases that make up for the mean of what quantization does.

    Layer by layer, the mean input is measured in the network quantized and corrected so far; since a layer is
    linear, its mean output follows in closed form, and the bias takes up the difference from the float
    network's. Codes and step sizes stay. Where time is up, the layers that are left keep their biases.

    Args:
        bench: The network.
        steps: Step sizes of all quantizers.
        on_layer: Called with the number of layers done so far.
    """
    codes = dict(bench.network.codes)
    for done, layer in enumerate(correctable(bench.network), start=1):
        if bench.out_of_time():
            break
        codes[layer.site.name] = _matched(bench, codes, layer, steps)
        on_layer(done)
    return codes


def _matched(bench: Bench, codes: Mapping[str, FixedCodes], layer: Layer, steps: Steps) -> FixedCodes:
    """The layer's codes with the mean outputs that its bias is to match."""
    assert layer.bias is not None
    assert layer.bias.windows is not None
    point = bench.network.with_codes(codes).point(steps)
    probe = bench.simulation.probes[layer.site.layers[0]]

    def total(values: np.ndarray, where: slice) -> tuple[int, FloatArray]:
        windows = layer.kind.mean_inputs(values.sum(axis=0, dtype=np.float64))
        assert windows is not None
        return len(values), windows

    rows, totals = zip(*bench.evaluator.observe(probe, point, total), strict=True)
    windows = np.sum(totals, axis=0) / sum(rows)
    kept = point.weights[layer.site.name].codes
    return FixedCodes(
        codes=kept,
        wanted=layer.mean_output,
        given=mean_of_codes(layer.rows(kept), windows, layer.site.block),
    )
