"""Empirical bias correction at the end of a run (METHOD.md section 5, mean part)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.rounding.bias_correction import mean_output
from onnx_lapq.network.bench import Workbench
from onnx_lapq.network.input_means import input_windows
from onnx_lapq.network.layers import Encoder, FixedCodes, Layer
from onnx_lapq.network.network import Network
from onnx_lapq.network.step_sizes import Steps

__all__ = ["correct_biases", "correctable"]


def correctable(network: Network) -> list[Layer]:
    """Layers with a bias to correct, in topological order."""
    layers = network.layers.values()
    return [layer for layer in layers if layer.bias is not None and layer.bias.windows is not None]


def correct_biases(bench: Workbench, steps: Steps, on_layer: Callable[[int], None]) -> Network:
    """Give every layer the bias that makes up for the mean of what quantization does to it.

    Layer by layer, the mean input is measured in the network quantized and corrected so far; since a layer is
    linear, its mean output follows in closed form, and the bias takes up the difference from the float
    network's. Codes and step sizes stay.

    Args:
        bench: The network, calibrated.
        steps: Step sizes of all quantizers.
        on_layer: Called with the number of layers done so far.

    Returns:
        The network with corrected biases; the one given is left as it is.
    """
    given = bench.network
    corrected = replace(given, encoder=Encoder(given.layers, given.target))
    for name, codes in given.encoder.fixed.items():
        corrected.encoder.fix(name, codes)
    for done, layer in enumerate(correctable(given), start=1):
        corrected.encoder.fix(layer.site.name, _matched(bench, corrected, layer, steps))
        on_layer(done)
    return corrected


def _matched(bench: Workbench, network: Network, layer: Layer, steps: Steps) -> FixedCodes:
    """The layer's codes with the mean outputs that its bias is to match."""
    assert layer.bias is not None
    assert layer.bias.windows is not None
    point = network.point(steps)
    probe = bench.simulation.probes[layer.site.layers[0]]

    def total(values: np.ndarray, where: slice) -> FloatArray:
        windows = input_windows(layer.node, values.sum(axis=0, dtype=np.float64))
        assert windows is not None
        return windows

    windows = np.sum(list(bench.evaluator.observe(probe, point, total)), axis=0) / len(bench.samples)
    codes = point.weights[layer.site.name].codes
    return FixedCodes(
        codes=codes,
        wanted=mean_output(layer.rows(layer.values), layer.bias.windows),
        given=mean_output(layer.rows(codes), windows),
    )
